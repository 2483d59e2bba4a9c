"""From a sub-network to files that run anywhere, with the proof that they do."""
