"""Networks of other people made elastic: any module that `torch.export` can trace."""

from pliant.networks.foreign.shrink import shrunk
from pliant.networks.foreign.supernet import ForeignSupernet, make_elastic

__all__ = ["ForeignSupernet", "make_elastic", "shrunk"]
