"""Measurements of a trained classifier, each an entry point of its own."""
