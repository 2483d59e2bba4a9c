"""Which architecture to look at next: searchers, the loop that they run in, and whether limits can be met at all."""
