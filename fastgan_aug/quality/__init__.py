"""Judging: counts, and the one classifier."""
