"""How well does each zero-shot score rank the networks of NAS-Bench-201, and what does it cost?

    python benchmarks/zero_shot.py [--networks 1000] [--only-table]
    python benchmarks/zero_shot.py --networks 3000 --scores gradsign [--start kaiming-normal]

Networks are drawn by a fixed seed from the CIFAR-10 file of the benchmark. All have PyTorch's
default initialisation and see the same 64 training images, on one thread. The scores of a network
are one line of `work/zero-shot-SEED.jsonl`; a killed run resumes from there, and scores that a line
lacks are added. Ground truth is the test accuracy after 200 epochs. The baseline is the parameter
count, once of the network that runs here and once as the benchmark counts it, with operations on no
path. Differences to it are paired: on the same bootstrap samples of networks.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import torch
from result import publish
from torch import nn

from pliant.accuracy.ranking import rank_correlations
from pliant.accuracy.zero_shot import COMPONENTS, SCORES, ZeroShotScore, aggregate_ranks, score
from pliant.data import load
from pliant.scoring.images import training_batch
from pliant.scoring.networks import preset_networks
from pliant.training.allocator import keep_freed_memory

ROOT = Path(__file__).parent
DATA = ROOT.parent.parent / "shared" / "data"
IMAGES = 64


def drawn(file, networks, seed):
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    return [
        rows[position] for position in np.random.default_rng(seed).permutation(len(rows))[:networks]
    ]


def read(path):
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    # A run that was killed may have left half a line at the end.
    return {row["arch"]: row for row in (json.loads(line) for line in lines if line.endswith("}"))}


def kaiming_normal(network):
    """Weights from N(0, 2 / fan-in), biases 0: the initialisation of the published AZ-NAS table."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


STARTS = {"pytorch": lambda network: network, "kaiming-normal": kaiming_normal}


def missing(line, names):
    return [name for name in names if name not in line["scores"] and name not in line["failed"]]


def score_all(rows, path, data, seed, *, names, start):
    known = read(path)
    batch = training_batch(load(str(data), seed=0), IMAGES, 0)
    images, labels = torch.from_numpy(batch.images), torch.from_numpy(batch.labels)
    networks = preset_networks("nas-bench-201", batch.shape)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in known.values()), encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            line = known.get(
                row["arch"], {"arch": row["arch"], "scores": {}, "seconds": {}, "failed": {}}
            )
            if not (wanted := missing(line, names)):
                continue
            torch.manual_seed(seed)
            found = score(
                STARTS[start](networks.network(row["arch"])), wanted, images, labels, seed=seed
            )
            good = {name: one for name, one in found.items() if isinstance(one, ZeroShotScore)}
            line["scores"] |= {name: one.value for name, one in good.items()}
            line["seconds"] |= {name: one.seconds for name, one in good.items()}
            line["failed"] |= {name: one.reason for name, one in found.items() if name not in good}
            # Of two lines of a network the later one counts.
            file.write(json.dumps(line) + "\n")
            file.flush()
            if number % 25 == 0:
                print(f"{number + 1} of {len(rows)} networks", flush=True)
    return networks.space


def table(rows, known, space, names):
    truth = [float(row["cifar10_test_pct"]) for row in rows]
    found = [known[row["arch"]] for row in rows]
    scores = {name: [one["scores"].get(name) for one in found] for name in names}
    if set(COMPONENTS) <= set(names):
        scores["az-nas"] = aggregate_ranks([one["scores"] for one in found])
    scores["parameters as the benchmark counts"] = [
        space.benchmark_size(space.parse(row["arch"])).parameters for row in rows
    ]
    seconds = {
        name: float(np.mean([one["seconds"][name] for one in found if name in one["seconds"]]))
        for name in names
    }
    if "az-nas" in scores:
        seconds["az-nas"] = sum(seconds[view] for view in COMPONENTS)
    return [
        {
            "score": one.name,
            "kendall": str(one.kendall),
            "spearman": str(one.spearman),
            "kendall_equal_size": str(one.equal_size),
            "kendall_over_parameters": str(one.over_parameters),
            "regret_percent": one.regret,
            "failed": one.failed,
            "cpu_seconds": one.seconds,
        }
        for one in rank_correlations(truth, scores, seconds=seconds)
    ]


def compared(rows, known, space, names):
    """Kendall's tau of one score minus another's, on the same bootstrap samples."""
    truth = [float(row["cifar10_test_pct"]) for row in rows]
    found = [known[row["arch"]]["scores"] for row in rows]
    counted = [space.benchmark_size(space.parse(row["arch"])).parameters for row in rows]
    pairs = {
        "zen over zen-reference": ("zen", [one.get("zen-reference") for one in found]),
        "gradsign over parameters as the benchmark counts": ("gradsign", counted),
    }
    answers = {}
    for text, (name, bar) in pairs.items():
        if name not in names:
            continue
        [_, one] = rank_correlations(
            truth, {"parameters": bar, name: [scores.get(name) for scores in found]}
        )
        answers[text] = str(one.over_parameters)
    return answers


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DATA / "cifar10")
    parser.add_argument("--truth", type=Path, default=DATA / "nas_bench_201_cifar10.csv")
    parser.add_argument(
        "--scores",
        nargs="+",
        choices=list(SCORES),
        default=list(SCORES),
        help="beside parameters and MACs",
    )
    parser.add_argument("--start", choices=list(STARTS), default="pytorch")
    parser.add_argument(
        "--only-table", action="store_true", help="of the networks that are scored already"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = drawn(arguments.truth, arguments.networks, arguments.seed)
    names = list(dict.fromkeys(["parameters", "macs", *arguments.scores]))
    variant = "" if arguments.start == "pytorch" else f"-{arguments.start}"
    path = ROOT / "work" / f"zero-shot-{arguments.seed}{variant}.jsonl"
    if arguments.only_table:
        from pliant.spaces.presets import preset

        space = preset("nas-bench-201", channels=3, image_size=32, classes=10)
    else:
        space = score_all(
            rows, path, arguments.data, arguments.seed, names=names, start=arguments.start
        )
    known = read(path)
    rows = [row for row in rows if row["arch"] in known and not missing(known[row["arch"]], names)]
    facts = {"networks": len(rows), "images": IMAGES, "start": arguments.start}
    if set(SCORES) - set(names):
        variant = f"-{'-'.join(arguments.scores)}-{len(rows)}{variant}"
    publish(
        f"zero_shot{variant}",
        table(rows, known, space, names),
        **facts,
        **compared(rows, known, space, names),
    )


if __name__ == "__main__":
    main()
