"""Tests of means by patient, the analysis of variance of the paper, equivalence."""
