"""What a run has to show, as one HTML page that works offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.report.summary import Summary as Summary
    from pliant.report.summary import read_summary_file as read_summary_file
    from pliant.report.summary import summary_to_json as summary_to_json
    from pliant.report.summary import write_summary_file as write_summary_file
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "summary": ["Summary", "read_summary_file", "summary_to_json", "write_summary_file"],
        },
    )
