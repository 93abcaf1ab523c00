"""Readers of DICOM, NIfTI, folders of images and NPZ archives."""
