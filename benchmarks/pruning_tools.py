"""Half the MACs of EfficientNet-Lite0 on photographs: Pliant against other tools that prune.

    pip install --no-deps torch-pruning
    pip install --no-deps nvidia-modelopt nvidia-ml-py omegaconf pulp regex torchprofile==0.0.4
    python benchmarks/pruning_tools.py --data ../shared/data/clothing --minutes 60 --seeds 0 1 2

Each way gets the same time, images, augmentation and fine-tuning (see `pruning.py`). Rows for each
seed: the best network within half the MACs of a run of the shipped photograph space; of a run of
the same network given as a module of the user's own (`lite0.py`), which answers whether a foreign
network loses something; and those of Torch-Pruning (magnitude, group norm) and of FastNAS (at its
own settings), which begin with the full network fine-tuned. A tool that is not installed has no
row, and is named.

Networks are chosen by the validation images; `test_top1` is of images that chose nothing. Start the
same command again to resume: rows that are finished are read from `--run-dir`, runs and FastNAS's
search resume where they were stopped. Time is measured, so it needs a quiet machine.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from photographs import means
from pruning import FASTNAS, IMPORTANCES, full_network, macs, pruned_network
from result import kept, publish, screen

from pliant.accuracy.evaluation import top1
from pliant.progress import shown
from pliant.runs.automatic import automatic_recipe
from pliant.runs.baselines import linear_start
from pliant.runs.recipe import load_recipe
from pliant.runs.run import Run
from pliant.runs.search import search_front
from pliant.runs.session import Session
from pliant.targets import Arithmetic
from pliant.training.allocator import keep_freed_memory
from pliant.training.checkpoint import load_tensors, save_tensors

STARTS = {
    "photograph space": "efficientnet-lite0",
    "module of the user's own": f"{Path(__file__).with_name('lite0.py')}:build",
}
PACKAGES = dict.fromkeys(IMPORTANCES, "torch_pruning") | {FASTNAS: "modelopt"}
"""What each tool is imported as."""


def open_run(arguments, name, seed):
    """The run of a start and a seed, begun or resumed."""
    folder = arguments.run_dir / f"{name.split()[0]}-{seed}"
    if (folder / "recipe.toml").is_file():
        return Run(folder, load_recipe(str(folder / "recipe.toml")))
    changes = {
        "data.source": arguments.data,
        "data.image_size": arguments.image_size,
        "time": f"{arguments.minutes:g}min",
        "train.start": STARTS[name],
        "limits": [f"macs={arguments.macs / 1e6:g}M"],
        "seed": seed,
    }
    if arguments.epochs:
        changes["train.epochs"] = arguments.epochs
    return Run(folder, automatic_recipe(changes).recipe)


def row_of(run, name, seed, network, million_macs, **facts):
    """What every row has."""
    test = run.data.test.open(f"benchmark: {name}")
    found = {
        "network": name,
        "seed": seed,
        "million_macs": million_macs,
        "validation_top1": top1(network, run.data.validation).top1,
        "test_top1": top1(network, test).top1,
    }
    screen.print(found)
    return found | facts


def searched_row(arguments, name, seed):
    """The whole job of a run."""
    with open_run(arguments, name, seed) as run, shown(screen) as progress:
        session = Session(run, target=Arithmetic(run.space), progress=progress)
        chosen = search_front(session).chosen.architecture
        metadata = run.record.metadata
        facts = {f"{step}_s": metadata(f"{step}_seconds") for step in ("training", "search")}
        facts |= {"epochs": session.plan.epochs, "architecture": str(chosen)}
        million = run.space.cost(chosen).macs / 1e6
        return row_of(run, f"Pliant, {name}", seed, session.network(chosen), million, **facts)


def full_of(run):
    """The full network, fine-tuned once and kept beside the run's weights."""
    path = run.folder / "full.safetensors"
    if not path.is_file():
        network, epochs = full_network(run, run.record.metadata("training_seconds"))
        save_tensors(path, dict(network.state_dict()), {"epochs": str(epochs)})
        return network
    network = linear_start(run).requires_grad_(True)
    network.load_state_dict(load_tensors(path)[0])
    return network


def pruned_row(arguments, tool, seed):
    """The network of another tool, in the time of the run of the photograph space."""
    with open_run(arguments, "photograph space", seed) as run:
        seconds = run.record.metadata("training_seconds")
        full = full_of(run)
        network, epochs = pruned_network(run, full, tool, arguments.macs, seconds, run.folder)
        million = macs(network, run.data.image_size) / 1e6
        name = tool if tool == FASTNAS else f"Torch-Pruning, {tool}"
        return row_of(run, name, seed, network, million, epochs=epochs)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--epochs", type=int, help="at most; as many as fit where not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--macs", type=float, default=192e6, help="half of those of 224 pixels")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/pruning-tools"))
    arguments = parser.parse_args()
    keep_freed_memory()
    missing = [tool for tool, name in PACKAGES.items() if importlib.util.find_spec(name) is None]
    rows = []
    for seed in arguments.seeds:
        parts = {name: (searched_row, name) for name in STARTS}
        parts |= {tool: (pruned_row, tool) for tool in PACKAGES if tool not in missing}
        for part, (make, name) in parts.items():
            path = arguments.run_dir / f"row-{part.split()[0]}-{seed}.json"
            rows.append(kept(path, lambda: make(arguments, name, seed)))  # noqa: B023 - at once
        publish(
            f"pruning_tools-{Path(arguments.data).resolve().name}",
            rows,
            minutes=arguments.minutes,
            not_installed=missing,
            means=means(rows),
        )


if __name__ == "__main__":
    main()
