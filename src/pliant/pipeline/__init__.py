"""The whole job, step by step, on a run directory: what the commands do and what a few lines of Python call."""
