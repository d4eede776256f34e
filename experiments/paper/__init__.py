"""The figures of the APR paper."""
