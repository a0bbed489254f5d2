"""The world outside, simulated: a ranking server that asks for lists, and users who act on them.

Nothing else in ``streaming`` knows of it. What these modules measure is simulated.
"""
