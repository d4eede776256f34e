"""The figures of the work on high-frequency components (CVPR 2020)."""
