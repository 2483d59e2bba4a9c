"""Slow and independent counts of a loop nest, and random nests to count: what the cost model is held against."""
