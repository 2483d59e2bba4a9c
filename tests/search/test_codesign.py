"""The search for an accelerator: it learns, repeats, remembers, and says what gained what."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from pliant import Record
from pliant.accelerator.chip import Axis, Memory, load_chip
from pliant.accelerator.energy import TABLES
from pliant.accelerator.hardware_space import HardwareSpace
from pliant.accelerator.network_mapping import map_workload
from pliant.errors import InfeasibleError, RecipeError, RunConflictError
from pliant.progress import silent
from pliant.runs.codesign import CodesignOptions, codesign, given_stages, parse_workloads
from pliant.search.codesign import PARENTS, POPULATION, search_hardware
from pliant.search.mapped_designs import Design, MappedNetworks, NetworkCost
from pliant.workload import NETWORK_INPUT, Layer, Workload


@pytest.fixture(scope="module")
def chip():
    return load_chip("eyeriss")


@pytest.fixture(scope="module")
def workloads():
    def conv(name, reads, **sizes):
        return Layer(name, "conv", (reads,), bits=8, **sizes)

    one = Workload((conv("a", "image", K=8, C=3, P=8, Q=8, R=3, S=3),), 300, input_bits=8)
    two = Workload(
        (
            conv("a", "image", K=8, C=3, P=8, Q=8, R=3, S=3),
            Layer("b", "matmul", ("a",), K=10, C=512, bits=8),
        ),
        300,
        input_bits=8,
    )
    return {"one": one, "two": two}


def test_evolved_mappings_are_called_neither_best_nor_proven(chip, workloads):
    options = CodesignOptions(mapper="evolution", mappings=60)
    evolved = MappedNetworks(workloads, options.layer_mapper())
    stage = given_stages(evolved, chip, options)[1]
    assert stage.name == "evolved mappings on eyeriss"
    assert not stage.best.proven
    assert evolved.bound(chip) <= MappedNetworks(workloads).design(chip).edp <= stage.best.edp


def conv_model():
    """One convolution as an ONNX file."""
    weight = numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "w")
    image, out = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 8, 8])
        for name, channels in (("image", 3), ("out", 8))
    )
    node = helper.make_node("Conv", ["image", "w"], ["out"], name="conv", pads=[1, 1, 1, 1])
    graph = helper.make_graph([node], "net", [image], [out], [weight])
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset]).SerializeToString()


class Toy(MappedNetworks):
    """The fewer bytes of registers, the better; the search has to find that."""

    def __init__(self, share=0.0):
        super().__init__({})
        self.asked, self.share = 0, share

    def bound(self, chip):
        return self.share * (chip.registers.total_bytes * 1e3 + chip.buffer.total_bytes)

    def design(self, chip, vector=(), limit=math.inf):
        self.asked += 1
        if chip.buffer.total_bytes < 2000:
            return Design(chip, tuple(vector), {}, "the buffer is too small")
        if self.bound(chip) >= limit:
            return Design(chip, tuple(vector), {}, bound=self.bound(chip))
        cycles = chip.registers.total_bytes * 1e3 + chip.buffer.total_bytes
        return Design(chip, tuple(vector), {"toy": NetworkCost(cycles, 1.0, True)})


class Remembered(dict):
    """Designs by key."""

    def get(self, key, chip, vector):
        return super().get(key)

    def put(self, key, design):
        self[key] = design


def test_costs_are_those_of_the_mapped_networks(chip, workloads):
    design = MappedNetworks(workloads).design(chip)
    edps = []
    for name, workload in workloads.items():
        mapped = map_workload(workload, chip)
        assert design.costs[name].cycles == pytest.approx(mapped.cycles)
        assert design.costs[name].energy == pytest.approx(mapped.energy)
        assert design.costs[name].proven
        edps.append(mapped.cycles * mapped.energy)
    assert design.edp == pytest.approx(math.sqrt(edps[0] * edps[1]))


def test_the_search_learns_where_random_draws_do_not(chip):
    found = {
        algorithm: [
            min(
                one.edp
                for one in search_hardware(
                    HardwareSpace(chip), Toy(), designs=320, seed=seed, algorithm=algorithm
                )
            )
            for seed in range(3)
        ]
        for algorithm in ("cma-es", "random")
    }
    assert max(found["cma-es"]) < np.mean(found["random"])


def test_a_search_that_was_stopped_goes_on_with_the_same_designs(chip):
    def search(networks, designs, memory):
        space = HardwareSpace(chip)
        return list(search_hardware(space, networks, designs=designs, seed=3, memory=memory))

    whole = search(Toy(), 80, None)
    memory, networks = Remembered(), Toy()
    search(networks, 40, memory)
    again = search(networks, 80, memory)
    assert [one.vector for one in again] == [one.vector for one in whole]
    assert [one.edp for one in again] == [one.edp for one in whole]
    assert any(one.failure for one in again)
    assert networks.asked <= 88  # the last generation of a short search is drawn smaller


def test_where_every_design_fails_the_reason_is_told(chip):
    class Fails(Toy):
        def design(self, chip, vector=(), limit=math.inf):
            return Design(chip, tuple(vector), {}, "no layer fits")

    with pytest.raises(InfeasibleError, match=r"none of 16 designs .* no layer fits"):
        list(search_hardware(HardwareSpace(chip), Fails(), designs=32, seed=0))


def test_a_codesign_takes_the_gain_apart_and_resumes(chip, workloads, tmp_path: Path):
    options = CodesignOptions(designs=16, seed=1)
    result = codesign(workloads, chip, tmp_path, options, progress=silent)
    names = [stage.name for stage in result.stages]
    assert names == [
        "row-stationary on eyeriss",
        "best mappings on eyeriss",
        "best sizes",
        "best hardware",
        "random hardware",
    ]
    assert result.gain(result.stages[0]) == 1
    assert result.gain(result.stages[1]) >= 1
    assert result.best.edp == min(stage.best.edp for stage in result.stages)
    assert result.bound <= result.best.edp
    assert result.stages[3].best.edp <= result.stages[1].best.edp  # it begins at the chip's sizes
    assert load_chip(tmp_path / "best.toml").axes == result.best.chip.axes
    assert "What was gained by what" in (tmp_path / "report.html").read_text("utf-8")
    assert codesign(workloads, chip, tmp_path, options, progress=silent) == result
    with pytest.raises(RunConflictError):
        codesign(workloads, chip, tmp_path, replace(options, seed=2), progress=silent)


def test_a_bound_rejects_no_parent_and_no_best_design(chip):
    def search(judge, algorithm, threads=2):
        space = HardwareSpace(chip)
        return list(
            search_hardware(space, judge, designs=96, seed=5, algorithm=algorithm, threads=threads)
        )

    for algorithm in ("cma-es", "random"):
        whole, bounded = search(Toy(0.0), algorithm), search(Toy(0.9), algorithm)
        rejected = [one for one in bounded if one.bound is not None]
        assert len(rejected) > 10
        if algorithm == "random":
            assert min(one.edp for one in bounded) == min(one.edp for one in whole)
        else:  # what is ranked behind the parents may be in another order
            first = slice(0, POPULATION)
            kept = sorted(one.edp for one in bounded[first])[:PARENTS]
            assert kept == sorted(one.edp for one in whole[first])[:PARENTS]
            one = search(Toy(0.9), algorithm, threads=1)
            assert one == bounded
        for one in rejected:
            assert one.edp == math.inf
            assert one.failure is None


def test_a_design_is_rejected_by_a_bound_that_its_mappings_keep(chip, workloads):
    networks = MappedNetworks(workloads)
    design, bound = networks.design(chip), networks.bound(chip)
    assert bound <= design.edp
    assert networks.design(chip, limit=design.edp * (1 + 1e-9)).costs == design.costs
    for limit in (bound, 0.9 * design.edp, 0.999 * design.edp):
        rejected = networks.design(chip, limit=limit)
        assert limit <= rejected.bound <= design.edp * (1 + 1e-9)
        assert not rejected.costs
        assert not rejected.proven


KILLED = """
import os, signal, sys
from pathlib import Path
from pliant.cli import main
from pliant.runs import codesign
original = codesign.decomposed
def decomposed(networks, within, options, memory, told):
    def watch(name, done, total, note):
        if (name, done) == ("best hardware", 9):
            os.kill(os.getpid(), signal.SIGKILL)
    return original(networks, within, options, memory, watch)
codesign.decomposed = decomposed
main()
"""


def test_killed_in_the_middle_of_a_level_it_ends_as_if_nothing_had_been(tmp_path, command):
    def words(out):
        chosen = ["--workload", path, "--within", "nvdla-256", "--designs", 20]
        return ["codesign", *chosen, "--minimise", "edp,area", "--out", out]

    path = tmp_path / "net.onnx"
    path.write_bytes(conv_model())
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    program = [sys.executable, "-c", KILLED, *map(str, words(killed))]
    assert subprocess.run(program, capture_output=True, check=False).returncode == -signal.SIGKILL
    with Record.read(killed / "record.sqlite") as record:
        assert 20 < len(record.evaluations("design")) < 40
    said = [command(*words(out)) for out in (killed, whole)]
    assert [one[0] for one in said] == [0, 0]
    assert said[0][1].replace("/killed/", "/whole/") == said[1][1]
    for name in ("best.toml", "report.html"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    with Record.read(killed / "record.sqlite") as one, Record.read(whole / "record.sqlite") as two:
        rows = [{row.architecture: row.measures for row in r.evaluations()} for r in (one, two)]
        assert rows[0] == rows[1]
        assert one.metadata("front") == two.metadata("front")


def test_what_cannot_be_run_or_asked_is_named(chip, workloads, tmp_path, command):
    small = replace(chip, name="small", registers=Memory(6.0), energy=TABLES["maestro"])
    summed = {
        "sum": Workload((Layer("adds", "elementwise", (NETWORK_INPUT,) * 9, G=8, P=4, Q=4),), 128)
    }
    tight = replace(small, buffer=Memory(8.0))
    with pytest.raises(RecipeError, match=r"bytes of memory; chip 'small' has"):
        codesign(workloads, tight, tmp_path / "a", progress=silent)
    tight = replace(small, buffer=Memory(16.0), axes=(Axis("a", 400),))
    with pytest.raises(InfeasibleError, match=r"'small' cannot: layer 'adds': no mapping"):
        codesign(summed, tight, tmp_path / "b", progress=silent)
    for words, said in (
        ("--workload squeezenet --maximise accuracy", "Name the run by --supernet"),
        ("--workload squeezenet --min-accuracy 0.9", "name it by --supernet"),
        ("--workload squeezenet --supernet runs/a", "one of them"),
        ("--workload squeezenet --mapper best", "the mapper is certified or evolution"),
        ("--workload squeezenet --minimise edp,power", "received 'power'"),
        ("--supernet runs/none", "runs/none"),
    ):
        code, _, error = command("codesign", *words.split(), "--out", tmp_path / "c")
        assert code != 0
        assert said in " ".join(error.split())


def test_networks_are_named_once_and_exist():
    assert list(parse_workloads("squeezenet, mnasnet")) == ["squeezenet", "mnasnet"]
    for text, said in (
        ("squeezenet,squeezenet", "named once"),
        ("resnet", "no network is called 'resnet'"),
        (" , ", "a co-design is for networks"),
    ):
        with pytest.raises(RecipeError, match=said):
            parse_workloads(text)
