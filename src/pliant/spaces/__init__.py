"""Search spaces: what networks there are, and what each of them computes, without PyTorch."""
