"""What options of several commands share."""

LARGEST_SEED = 2**31 - 1
"""Fits every generator that a seed goes to, and sums of a seed and a small number."""
