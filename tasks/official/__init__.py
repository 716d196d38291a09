"""Metrics as the benchmarks' own code computes them, to the digit; texts in, numbers out."""
