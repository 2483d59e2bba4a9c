"""Search spaces: what networks there are, and what each of them computes, without PyTorch."""

from pliant.spaces import cell_blocks as cell_blocks  # known by name wherever blocks are read
