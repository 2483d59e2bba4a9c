"""Charts and their library in a page that stays small enough to send: compressed, as text.

Plotly's library has 4.8 MB; compressed and written in 85 characters it has 1.8. The page's script
unpacks it with the browser's own `DecompressionStream` (all browsers since 2023).
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from functools import cache

from markupsafe import Markup
from plotly.offline import get_plotlyjs

_RFC_1924 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
ALPHABET = Markup(_RFC_1924.translate(str.maketrans("&<>`", ",./:")))
"""85 characters, none of which means anything to an HTML parser inside a script element."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A compressed text."""

    text: Markup
    """Five characters for four bytes of a zlib stream, most significant first."""
    length: int
    """Bytes of the stream; what follows is padding."""


def pack(source: str) -> Packed:
    """Compress a text for a page."""
    stream = zlib.compress(source.encode("utf-8"), 9)
    digits = base64.b85encode(stream, pad=True).decode("ascii")
    text = digits.translate(str.maketrans(_RFC_1924, ALPHABET))
    return Packed(Markup(text), len(stream))


@cache
def packed_plotly() -> Packed:
    """The charts' library."""
    return pack(get_plotlyjs())
