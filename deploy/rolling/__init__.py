"""Releases reach users: one change of champion, experiments and routing at a time."""
