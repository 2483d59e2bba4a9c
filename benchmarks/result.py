"""How every benchmark reports: a table on the screen, and JSON with machine, command and date.

The JSON goes to `results/`. Importing this module also makes the exact walks of the tests
(`oracles`) importable for the benchmarks that compare with them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pliant.files import write_atomically
from pliant.runs.run import machine
from pliant.units import parse_duration

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


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What a file holds as JSON, or what is made now and kept there: how long scripts resume."""
    if not path.is_file():
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(found, indent=1, default=float) + "\n")
    return json.loads(path.read_text("utf-8"))


def minutes(text: str) -> float:
    """Seconds of a budget such as `40min`, for argparse."""
    seconds = parse_duration(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"a budget is a time such as 40min or 2h, not {text!r}")
    return seconds


def epoch_seconds(train: Callable[[int], Any]) -> float:
    """Wall time of an epoch of what trains for a number of epochs, without what comes once."""

    def seconds(epochs: int) -> float:
        began = time.monotonic()
        train(epochs)
        return time.monotonic() - began

    seconds(1)  # loads and allocates
    once = seconds(1)
    return max(1e-3, (seconds(3) - once) / 2)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple) and len(value) > 1:
        return f"{len(value)} values"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
