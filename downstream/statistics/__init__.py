"""What differences between arms may be called: intervals, tests, power."""
