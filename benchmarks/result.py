"""How every benchmark reports: a table on the screen, and JSON with machine, command and date.

The JSON goes to `results/`. Importing this module also makes the exact walks of the tests
(`oracles`) importable for the benchmarks that compare with them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pliant.runs.run import machine

RESULTS = Path(__file__).parent / "results"
sys.path.append(str(Path(__file__).parents[1] / "tests" / "accelerator"))
screen = Console(width=140)


def publish(name: str, rows: Sequence[Mapping[str, Any]], **facts: Any) -> None:
    """Print the rows, and write them with the facts to `results/<name>.json`."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*(column.replace("_", " ") for column in columns), title=name)
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    screen.print(table)
    for key, value in facts.items():
        screen.print(f"{key}: {_cell(value)}", highlight=False)
    command = "python " + " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    result = {
        "benchmark": name,
        "command": command,
        "date": date.today().isoformat(),
        "machine": machine(),
        **facts,
        "rows": list(rows),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(
        json.dumps(result, indent=1, default=float) + "\n", encoding="utf-8"
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
