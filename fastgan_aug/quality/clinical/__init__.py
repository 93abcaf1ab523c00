"""What a physician measures on a slice: counts, ratios, maps, spectra, severity."""
