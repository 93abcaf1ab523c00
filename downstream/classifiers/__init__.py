"""The classifiers that every arm is fitted with, and those of a user."""
