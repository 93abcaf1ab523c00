"""Data sets: what comes in, how it is stored, split, drawn and augmented."""
