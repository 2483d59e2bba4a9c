"""Do 200 random networks compute the same after a random morph?

    python benchmarks/morphs.py --morphs 200

Half are networks of the spaces, whose larger children inherit their weights (more channels, blocks,
larger kernels, squeeze-and-excitation, edges of cells). Half are random modules of all kinds of
layers (`tests/networks/morph/random_morphs.py`), with a random operation on a random layer. The
change is that of the outputs over the largest one, in evaluation and in training mode, in single
precision; dropout is left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from result import publish, screen

sys.path.append(str(Path(__file__).parents[1] / "tests" / "networks" / "morph"))
from random_morphs import random_morph

from pliant.networks.morph.check import TOLERANCE, change


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--morphs", type=int, default=200)
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.morphs):
        found = random_morph(seed)
        changed = change(found.parent, found.child, found.images)
        rows.append(
            {
                "seed": seed,
                "morph": found.what,
                "evaluation": changed.evaluation,
                "training": changed.training,
            }
        )
        screen.print(seed, found.what, f"{changed.largest:.1e}")
    kinds = {row["morph"].split()[0] for row in rows}
    publish(
        "morphs",
        rows,
        largest_evaluation=max(row["evaluation"] for row in rows),
        largest_training=max(row["training"] for row in rows),
        target=TOLERANCE,
        kinds={kind: sum(row["morph"].split()[0] == kind for row in rows) for kind in kinds},
    )


if __name__ == "__main__":
    main()
