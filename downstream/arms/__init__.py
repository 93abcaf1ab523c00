"""The arms: each says what a classifier is fitted on, and how; nothing else differs."""
