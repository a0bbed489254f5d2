"""Offline metrics of generated lists against logged feedback, with paired bootstrap intervals."""
