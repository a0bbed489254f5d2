"""What an experiment has shown so far, from the feedback table: see docs/statistics.md."""
