"""Ablations: what varies, on which data, which question it answers; one short entry each."""
