"""Which architecture to evaluate next: searchers, their loop, and whether limits are feasible."""
