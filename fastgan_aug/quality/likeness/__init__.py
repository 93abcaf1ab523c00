"""Whether synthetic slices look and spread like real ones, in features of two views."""
