"""The project's programs, compiled for chips that this machine hasn't got."""
