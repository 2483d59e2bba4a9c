"""Slow, independent counts of loop nests, and random nests: the cost model must equal them."""
