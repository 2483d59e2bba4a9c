"""The largest counts that options take; a slip of the finger otherwise runs for ever."""

from __future__ import annotations

MOST = 10**7
"""Of networks, images, labels and epochs."""
MOST_THREADS = 4096
"""Of threads and of images that run at once."""
