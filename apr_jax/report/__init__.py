"""Records, drawn: the page, its figures and tables, and the table in the terminal."""
