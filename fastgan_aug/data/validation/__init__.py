"""What a data set must not hold, and what one should know of it."""
