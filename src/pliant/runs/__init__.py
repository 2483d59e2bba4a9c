"""One run, from its recipe to its report: the directory, the session, and the steps that work on it."""
