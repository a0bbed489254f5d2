"""The feedback table as the consumer writes it and ``streaming/table.py`` keeps it."""
