"""Other servers, each a process of `benchmarks.comparison`; they need what the project does not."""
