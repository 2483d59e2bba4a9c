"""How fast are GradSign and Zen, and how much memory does GradSign take?

    python benchmarks/zero_shot_speed.py [--networks 20]

All times are CPU time of one thread, the better of two runs, on the same networks of NAS-Bench-201,
weights and images. GradSign, 64 CIFAR-10 images: against one forward and backward pass per image,
and against one batched pass, whose convolutions no way of counting signs avoids. Zen, batch 64, one
repeat: against two passes in PyTorch's default memory format, without gradients. Peak memory:
resident memory above that before the score, of a network of 50 million parameters and 128 images of
32x32, in its own process. Rate: networks per second in two processes over one.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from result import publish
from torch import nn
from torch.nn import functional as F
from zero_shot import DATA, IMAGES, drawn

from pliant.accuracy.zero_shot import ScoringInput
from pliant.accuracy.zero_shot.gradsign import gradsign
from pliant.accuracy.zero_shot.initial_weights import standard_normal
from pliant.accuracy.zero_shot.zen import zen
from pliant.data import load
from pliant.scoring.images import training_batch
from pliant.scoring.networks import preset_networks
from pliant.training.allocator import keep_freed_memory


def cpu_seconds(function):
    began = time.process_time()
    value = function()
    return value, time.process_time() - began


def better_of_two(function):
    return min((cpu_seconds(function) for _ in range(2)), key=lambda pair: pair[1])


def plain_gradsign(network, images, labels):
    network.train()
    weights = [
        module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    counts = [torch.zeros_like(weight) for weight in weights]
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        gradients = torch.autograd.grad(
            F.cross_entropy(network(image), label), weights, allow_unused=True
        )
        for count, gradient in zip(counts, gradients, strict=True):
            if gradient is not None:
                count += gradient.sign()
    return sum(float(count.abs().sum()) for count in counts)


def batched_pass(network, images, labels):
    """Forward and backward over the batch in channels-last, 16 images at a time.

    These convolutions no way of counting signs avoids.
    """
    network = copy.deepcopy(network).train().to(memory_format=torch.channels_last)
    weights = [
        module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    for some, theirs in zip(
        images.to(memory_format=torch.channels_last).split(16), labels.split(16), strict=True
    ):
        torch.autograd.grad(F.cross_entropy(network(some), theirs), weights, allow_unused=True)


@torch.no_grad()
def plain_zen(network, shape):
    """The steps of the public code, with the statistics of the batch.

    The last BatchNorm and ReLU belong to the input of the pooling.
    """
    network.train()
    standard_normal(network, torch.Generator().manual_seed(0))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # the running variance is that of the last pass
    maps = []
    hook = network.blocks["head"].input_norm.register_forward_hook(
        lambda _, inputs, made: maps.append(made.relu())
    )
    x, e = torch.randn(shape), torch.randn(shape)
    network(x)
    network(x + 0.01 * e)
    hook.remove()
    z1 = (maps[0] - maps[1]).flatten(1).norm(dim=1).mean().log()
    return float(z1 + sum(0.5 * norm.running_var.mean().log() for norm in norms))


def beside_plain(rows, networks, images, labels):
    found = []
    for row in rows:
        torch.manual_seed(0)
        network = networks.network(row["arch"])
        inputs = ScoringInput(network, images, labels, 0)
        loop, loop_seconds = better_of_two(
            lambda network=network: plain_gradsign(network, images, labels)
        )
        ours, seconds = better_of_two(lambda inputs=inputs: gradsign(inputs).value)
        _, zen_seconds = better_of_two(lambda inputs=inputs: zen(inputs, repeats=1))
        _, plain_zen_seconds = better_of_two(
            lambda network=network: plain_zen(network, images.shape)
        )
        _, batch_seconds = better_of_two(
            lambda network=network: batched_pass(network, images, labels)
        )
        found.append(
            (
                loop_seconds,
                seconds,
                batch_seconds,
                abs(ours - loop) / loop if loop else abs(ours),
                plain_zen_seconds,
                zen_seconds,
            )
        )
        print(
            f"{row['flops_millions']} MFLOPs: GradSign {loop_seconds / seconds:.2f}x, "
            f"Zen {plain_zen_seconds / zen_seconds:.2f}x",
            flush=True,
        )
    return found


def wide_network():
    """50 million parameters in residual-like stages at 32x32 to 4x4."""
    widths = (64, 192, 448, 1024)
    layers, last = [], 3
    for number, width in enumerate(widths):
        for depth in range(5):
            layers += [
                nn.Conv2d(last, width, 3, stride=2 if number and depth == 0 else 1, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            last = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 10))


def peak_memory():
    """In a subprocess, as the system only knows the highest use so far."""
    torch.set_num_threads(1)
    network = wide_network()
    images, labels = torch.randn(128, 3, 32, 32), torch.randint(10, (128,))
    network(images[:1].expand(2, 3, 32, 32))
    before = _resident_peak()
    began = time.process_time()
    gradsign(ScoringInput(network, images, labels, 0))
    size = sum(one.nbytes for one in network.parameters())
    print(
        json.dumps(
            {
                "parameters": size // 4,
                "of_parameters": (_resident_peak() - before) / size,
                "seconds": time.process_time() - began,
            }
        )
    )


def _resident_peak():
    status = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    )
    return int(status["VmHWM"].split()[0]) * 1024


def rate(processes, count):
    """Networks a second by `pliant score`'s pool."""
    from pliant.scoring.process_pool import ScorePool, Worker
    from pliant.scoring.selection import MethodScorer, select_methods

    batch = training_batch(load(str(DATA / "cifar10"), seed=0), IMAGES, 0)
    names = [row["arch"] for row in drawn(DATA / "nas_bench_201_cifar10.csv", count, 1)]
    source = preset_networks("nas-bench-201", batch.shape)
    scorer = MethodScorer({one.name: one for one in select_methods("gradsign").methods})
    with ScorePool(Worker(source, batch, scorer, 0), processes) as pool:
        list(
            pool.score([(name, ("parameters",)) for name in names[: 2 * processes]])
        )  # the processes have started
        began = time.perf_counter()
        list(pool.score([(name, ("gradsign",)) for name in names]))
        return count / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        peak_memory()
        return
    torch.set_num_threads(1)
    keep_freed_memory()
    batch = training_batch(load(str(DATA / "cifar10"), seed=0), IMAGES, 0)
    images, labels = torch.from_numpy(batch.images), torch.from_numpy(batch.labels)
    rows = drawn(DATA / "nas_bench_201_cifar10.csv", arguments.networks, 0)
    found = beside_plain(rows, preset_networks("nas-bench-201", batch.shape), images, labels)
    loop, ours, batched, _, plain, zen_seconds = (
        sum(column) for column in zip(*found, strict=True)
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, str(Path(__file__)), "--peak"],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    peak = json.loads(child.stdout)
    one, two = (rate(processes, arguments.networks) for processes in (1, 2))
    publish(
        "zero_shot_speed",
        [
            {
                "what": "GradSign: CPU time of the plain loop over ours",
                "value": loop / ours,
                "asked": "at least 5",
            },
            {
                "what": "CPU time of the plain loop over one batched pass, which gives no signs",
                "value": loop / batched,
            },
            {
                "what": "GradSign: largest difference to the loop",
                "value": max(row[3] for row in found),
                "asked": "at most 0.005",
            },
            {"what": "GradSign: CPU seconds a network", "value": ours / len(rows)},
            {
                "what": "Zen: CPU time of ours over plain passes",
                "value": zen_seconds / plain,
                "asked": "at most 0.5",
            },
            {"what": "Zen: CPU seconds a network", "value": zen_seconds / len(rows)},
            {
                "what": "GradSign: peak memory over the parameters' size",
                "value": peak["of_parameters"],
                "asked": "at most 4",
            },
            {"what": "Rate of two processes over one", "value": two / one},
        ],
        networks=len(rows),
        parameters_of_peak=peak["parameters"],
        load_average=os.getloadavg()[0],
    )


if __name__ == "__main__":
    main()
