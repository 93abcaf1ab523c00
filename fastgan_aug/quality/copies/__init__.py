"""Whether synthetic slices are copies of the training slices."""
