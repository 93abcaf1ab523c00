"""The command line, `fastgan-aug`."""
