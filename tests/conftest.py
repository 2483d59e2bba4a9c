"""What several rooms need for their tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import hypothesis
import pretend_clock
import pytest
import torch

from pliant.data import DataSet, load
from pliant.data.cache import CACHE_VARIABLE
from pliant.devices import measure
from pliant.networks.supernet import Supernet
from pliant.spaces.architecture import Architecture
from pliant.spaces.block import Block
from pliant.spaces.convolutional_blocks import BasicBlock, ConvBlock
from pliant.spaces.input_output_blocks import Head, Preprocess
from pliant.spaces.mobile import MobileFrame, MobileSpace, MobileStage
from pliant.spaces.presets import preset
from pliant.spaces.resnet import PlainSpace, ResidualStage
from pliant.spaces.space import Choice, Space
from pliant.training.loop import make_accelerator

# pytest-xdist states the size of a terminal to its workers, which a console would take for its own.
for _size in ("COLUMNS", "LINES"):
    os.environ.pop(_size, None)

_REAL_CLOCK = {
    name: getattr(measure, name)
    for name in ("runtime_named", "time", "_involuntary_context_switches", "_MEASURE_FILE")
}

# How long one example takes says how busy the machine is. The suite has the same examples always;
# `--hypothesis-profile random` looks for others.
hypothesis.settings.register_profile("pliant", deadline=None, derandomize=True)
hypothesis.settings.register_profile("random", deadline=None)
hypothesis.settings.load_profile("pliant")

MACHINE_ROOMS = ("cli", "deploy", "devices", "drills", "report", "runs", "training")
"""Some of their tests measure this machine, start processes or send signals."""
PROCESS_MODULES = ("multiprocessing", "psutil", "signal", "subprocess")
"""Files of tests that import one of them are those that start processes or send signals."""
MEASURING_FILES = (
    "test_layer_times.py",
    "test_measure.py",
    "test_resident_memory.py",
    "test_roofs.py",
)
"""What they measure is not by the pretend clock."""
MACHINE_FIXTURES = frozenset({"real_clock", "driver"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that depends on this machine is repeated once: what else runs here may disturb it.

    The summary lists what was repeated. Every other test must pass the first time.
    """
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        room = item.path.relative_to(Path(__file__).parent).parts[0]
        starts_processes = any(hasattr(item.module, name) for name in PROCESS_MODULES)
        measures = not MACHINE_FIXTURES.isdisjoint(item.fixturenames)
        if (
            measures
            or item.path.name in MEASURING_FILES
            or (room in MACHINE_ROOMS and starts_processes)
        ):
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=2))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images of tests are cached apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _pretend_clock() -> Iterator[None]:
    """Latencies are measured by a clock that is alike on every machine."""
    with pytest.MonkeyPatch.context() as patch:
        pretend_clock.install(patch.setattr)
        yield


@pytest.fixture(scope="module")
def real_clock() -> Iterator[None]:
    """Latencies of this machine, for tests of how they are measured."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _REAL_CLOCK.items():
            patch.setattr(measure, name, value)
        yield


class ToySpace(Space):
    """306 networks with every rule that a space may have.

    Free choices, depths that add blocks, and a choice that depends on a block.
    """

    def __init__(self) -> None:
        super().__init__("toy", channels=3, image_size=8, classes=5)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return (
            Choice("r", (4, 6, 8), "resolution"),
            Choice("w", (0.5, 1.0), "width"),
            Choice("1d", (0, 1, 2), "depth"),
            Choice("1.1h", (4, 8), "width", condition=("1d", 1)),
            Choice("1.2h", (4, 8, 16), "width", condition=("1d", 2)),
            Choice("1.2k", (1, 3, 5), "kernel", condition=("1.2h", 8)),
            Choice("2.1h", (8, 16, 24), "width"),
        )

    def layout(self, architecture: Architecture) -> tuple[Block, ...]:
        chosen = architecture.mapping
        size, width = int(chosen["r"]), int(16 * float(chosen["w"]))
        blocks: list[Block] = [
            Preprocess(
                slot="preprocess", size=self.image_size, channels=self.channels, resolution=size
            ),
            ConvBlock(slot="stem", size=size, inputs=self.channels, outputs=width),
        ]
        if "1.1h" in chosen:
            blocks.append(
                BasicBlock(slot="one", size=size, channels=width, mid_channels=int(chosen["1.1h"]))
            )
        if "1.2h" in chosen:
            outputs = int(chosen["1.2h"])
            blocks.append(
                ConvBlock(
                    slot="two",
                    size=size,
                    inputs=width,
                    outputs=outputs,
                    kernel=int(chosen.get("1.2k", 1)),
                )
            )
            width = outputs
        blocks.append(
            ConvBlock(slot="last", size=size, inputs=width, outputs=int(chosen["2.1h"]), stride=2)
        )
        return (
            *blocks,
            Head(slot="head", size=-(-size // 2), inputs=int(chosen["2.1h"]), classes=self.classes),
        )


@pytest.fixture(scope="session")
def toy_space() -> Space:
    return ToySpace()


TINY = """
name = "tiny"
space = "digits"
limits = ["latency_ms=0.1", "parameters=20k"]

[data]
source = "digits"
pad = 1

[train]
epochs = 3
batch_size = 128
precision = "fp32"

[search]
estimates = 20
rounds = 2
candidates = 300
front = 3
images = 100
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose whole job takes seconds."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def digits_profile(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """This machine for the digits space, by the clock of the tests."""
    from pliant import Run
    from pliant.runs.session import Session
    from pliant.targets import THIS_CPU

    with Run.create(str(tiny), folder=tmp_path_factory.mktemp("profile") / "run") as run:
        _ = Session(run, target=THIS_CPU).target
        return run.profile_path


@dataclass(frozen=True)
class Finished:
    """A whole job, done."""

    folder: Path
    result: Any
    openings: dict[str, int]
    """How often the test split had been opened at each step's last report."""


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny: Path, digits_profile: Path
) -> Finished:
    """The whole job in Python; tests that write into its folder take `copied`."""
    from pliant import Run, run_all

    openings: dict[str, int] = {}
    with Run.create(
        str(tiny),
        folder=tmp_path_factory.mktemp("runs") / "tiny",
        target__name=str(digits_profile),
    ) as run:

        def watch(step: str, done: int, total: int, note: str) -> None:
            openings[f"{step} {done}" if step == "deliver" else step] = run.data.test.openings

        return Finished(run.folder, run_all(run, progress=watch), openings)


@pytest.fixture
def copied(tmp_path: Path, finished: Finished) -> Path:
    """A copy of the finished run's folder."""
    import shutil

    return Path(shutil.copytree(finished.folder, tmp_path / "copied"))


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`pliant ...` in this process: its exit code, standard output and standard error."""
    import logging
    import sys

    from pliant.cli import main

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pliant", *map(str, words)])
        monkeypatch.setattr(logging.getLogger(), "level", logging.getLogger().level)
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture(scope="session")
def digits() -> DataSet:
    return load("digits", seed=0)


@pytest.fixture(scope="session")
def digits_space() -> Space:
    return preset("digits", channels=1, image_size=8, classes=10)


@pytest.fixture(scope="session")
def tiny_space() -> Space:
    """Two blocks with every elastic dimension, and dropout."""
    stage = MobileStage(8, (1, 2), (3, 5), (1, 2, 3), stride=2, squeeze_excite=True)
    frame = MobileFrame(stem=8, stem_stride=1, expand=16, hidden=0, dropout=0.3)
    return MobileSpace("tiny", [stage], (6, 8), frame, channels=1, image_size=8, classes=10)


@pytest.fixture(scope="session")
def plain_space() -> Space:
    """Plain convolutions, which a CPU trains fastest."""
    stages = [
        ResidualStage(16, (0, 1), (0.5, 1.0), (0.5, 1.0)),
        ResidualStage(32, (0, 1), (0.5, 1.0), (0.5, 1.0)),
    ]
    return PlainSpace("plain", stages, (8,), stem=8, channels=1, image_size=8, classes=10)


@pytest.fixture
def fresh(digits):
    def make(space: Space, seed: int = 0) -> Supernet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Supernet(space, mean=digits.mean, std=digits.std)

    return make


@pytest.fixture(scope="session")
def cpu():
    return make_accelerator("fp32", "cpu")
