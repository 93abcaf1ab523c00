"""Conditional FastGAN augmentation for small, imbalanced, labelled image sets.

This module imports nothing, so that the client stays light; import what you need by its room,
for example ``from fastgan_aug.data.dataset import Dataset``.
"""
