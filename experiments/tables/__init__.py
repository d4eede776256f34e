"""The tables of the paper: what is missing is trained and measured."""
