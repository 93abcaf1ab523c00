"""The digital phantom: patients who do not exist, and the scanner that measures them."""
