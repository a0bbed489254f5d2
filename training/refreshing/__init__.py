"""A refresh of the champion, a step a module; ``pipeline.py`` puts them together."""
