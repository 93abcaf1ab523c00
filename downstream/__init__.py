"""The proof: what synthetic slices do to a classifier, by patient."""
