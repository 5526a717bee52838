"""Evaluation: gaze errors, their intervals, and the comparison of kinds of training data. Import from the modules."""
