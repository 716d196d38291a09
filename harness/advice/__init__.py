"""Which patch to read a length with, by trying them."""
