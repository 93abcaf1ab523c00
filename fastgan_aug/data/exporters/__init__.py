"""Writers of synthetic slices: Parquet, NPZ, PNG, NIfTI and DICOM, always marked."""
