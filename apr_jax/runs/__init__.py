"""A run as files: its work directory, records, checkpoints and curves."""
