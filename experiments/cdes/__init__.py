"""The figures of the work on frequency bias and CDES (IJCAI 2022)."""
