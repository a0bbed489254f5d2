"""The parts of ``deploy/demo.py``."""
