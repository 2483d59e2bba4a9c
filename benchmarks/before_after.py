"""Is this checkout as fast as another one? Each figure in fresh processes, in interleaved pairs.

    git worktree add ../before COMMIT
    python benchmarks/before_after.py ../before

A probe runs in the sources and benchmarks of its checkout, and its figure is CPU seconds (wall
seconds for starting the program). The two checkouts take turns, so that what else runs here slows
both; the ratio is the median over pairs, with the quartiles beside it. Pairs that are done are
kept in `benchmarks/work/before_after.json`, so a stopped run resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from result import publish, screen

from pliant.files import write_atomically

HERE = Path(__file__).parents[1]
WORK = HERE / "benchmarks" / "work" / "before_after.json"

TRAINING = """
import time, torch
import numpy as np
from training_rate import passes, subject
torch.manual_seed(0)
supernet, images, labels = subject({preset!r}, 128)
rng = np.random.default_rng(0)
largest = supernet.space.largest()
sampled = [supernet.space.sample_choices(rng) for _ in range(6)]
architectures = [largest] * 6 if {largest} else sampled
def step(architecture):
    passes(lambda x: supernet(x, architecture), images, labels, "fp32")
for architecture in architectures:  # the first time, libraries prepare their kernels
    step(architecture)
started = time.process_time()
for architecture in architectures:
    step(architecture)
print(time.process_time() - started)
"""
LOOP = """
import time, torch
from training_rate import overhead_share, subject
torch.manual_seed(0)
supernet, _, _ = subject("mobile-32", 2)
started = time.process_time()
overhead_share(supernet, "fp32")
print(time.process_time() - started)
"""
MAPPINGS = """
import contextlib, io
from accelerator_mapper import rates
with contextlib.redirect_stdout(io.StringIO()):
    rows = rates()
print(sum(1 / row["million_a_second"] for row in rows))
"""
COSTS = """
import time
import numpy as np
from pliant.spaces.presets import preset
space = preset({preset!r}, channels=3, image_size={size}, classes=10)
started, rng = time.process_time(), np.random.default_rng(0)
for _ in range(300):
    space.cost(space.sample_choices(rng))
print(time.process_time() - started)
"""


def script(text: str) -> Callable[[Path], float]:
    """A probe that is Python code; the last line that it prints is its figure."""

    def figure(checkout: Path) -> float:
        found = run(checkout, ["-c", text])
        return float(found.stdout.split()[-1])

    return figure


def run(checkout: Path, arguments: list[str], cwd: Path | None = None):
    """Python with the sources and benchmarks of a checkout; one thread."""
    paths = os.pathsep.join(str(checkout / name) for name in ("src", "benchmarks"))
    threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | threads | {"PYTHONPATH": paths},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )


def demo(checkout: Path) -> float:
    """CPU seconds of `pliant run digits` with all its processes."""
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(checkout, ["-m", "pliant", "run", "digits"], cwd=Path(folder))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def starting(arguments: list[str]) -> Callable[[Path], float]:
    """Wall seconds of a process, the least of three."""

    def figure(checkout: Path) -> float:
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            run(checkout, arguments)
            taken.append(time.perf_counter() - started)
        return min(taken)

    return figure


PROBES: dict[str, Callable[[Path], float]] = {
    "training step, largest of plain-32": script(TRAINING.format(preset="plain-32", largest=True)),
    "training step, largest of mobile-32": script(
        TRAINING.format(preset="mobile-32", largest=True)
    ),
    "elastic step, plain-32": script(TRAINING.format(preset="plain-32", largest=False)),
    "elastic step, mobile-32": script(TRAINING.format(preset="mobile-32", largest=False)),
    "training loop, sandwich rule, mobile-32": script(LOOP),
    "mappings, one core": script(MAPPINGS),
    "sample and cost, digits": script(COSTS.format(preset="digits", size=8)),
    "sample and cost, ofa-mobilenetv3": script(COSTS.format(preset="ofa-mobilenetv3", size=224)),
    "pliant run digits": demo,
    "pliant --help": starting(["-m", "pliant", "--help"]),
    "import pliant": starting(["-c", "import pliant"]),
    "Python alone": starting(["-c", "pass"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="the checkout to compare with")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", choices=PROBES, action="append")
    arguments = parser.parse_args()
    before = arguments.before.resolve()
    commits = {"before": commit(before), "after": commit(HERE)}
    known = json.loads(WORK.read_text("utf-8")) if WORK.is_file() else {}
    if known.get("commits") != commits:
        known = {"commits": commits, "pairs": {}}
    rows = []
    for name in arguments.only or PROBES:
        pairs = known["pairs"].setdefault(name, [])
        while len(pairs) < arguments.pairs:
            order = (before, HERE) if len(pairs) % 2 else (HERE, before)
            found = {checkout: PROBES[name](checkout) for checkout in order}
            pairs.append([found[before], found[HERE]])
            WORK.parent.mkdir(exist_ok=True)
            write_atomically(WORK, json.dumps(known, indent=1).encode())
            screen.print(f"{name}: {found[before]:.4g} s before, {found[HERE]:.4g} s after")
        rows.append(summary(name, pairs))
    publish("before_after", rows, **commits)


def commit(checkout: Path) -> str:
    """The commit of a checkout."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def summary(name: str, pairs: list[list[float]]) -> dict[str, float | str]:
    """Medians of both checkouts, and of the ratio within a pair with its quartiles."""
    ratios = [after / before for before, after in pairs]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "probe": name,
        "before_s": statistics.median(pair[0] for pair in pairs),
        "after_s": statistics.median(pair[1] for pair in pairs),
        "after_over_before": statistics.median(ratios),
        "quartiles": f"{low:.3f} to {high:.3f}",
        "pairs": len(pairs),
    }


if __name__ == "__main__":
    main()
