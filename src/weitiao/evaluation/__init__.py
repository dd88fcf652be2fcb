"""Scores, base against tuned on the same held-out rows, and the report."""
