"""Network, hardware and mapping together, over the supernet of a finished run."""

from __future__ import annotations

import pytest

from pliant import Record, Run
from pliant.accelerator.chip import load_chip
from pliant.errors import InfeasibleError, RecipeError, RunConflictError
from pliant.progress import silent
from pliant.runs.codesign import CodesignOptions
from pliant.runs.codesign_supernet import STAGE, codesign_supernet
from pliant.runs.session import Session
from pliant.search.codesign_front import FrontObjectives

OPTIONS = CodesignOptions(designs=4, networks=10, seed=1)


@pytest.fixture
def session(copied):
    with Run.reopen(copied) as run:
        yield Session(run, progress=silent)


def test_the_network_of_the_best_design_is_validated(session, tmp_path):
    chip, out = load_chip("nvdla-256"), tmp_path / "designs"
    result = codesign_supernet(session, chip, out, OPTIONS, floor=0.2, progress=silent)
    assert [stage.name for stage in result.stages][2:] == [
        "best sizes",
        "best hardware",
        "random hardware",
        STAGE,
    ]
    found = result.searched
    network = session.run.space.parse(found.network)
    assert found.top1 == session.validate(network).top1 >= 0.2
    assert result.best.network == found.network
    assert result.best.proven
    # The search goes on from the best hardware of one network, and may keep that network.
    assert result.best.edp <= result.stages[3].best.edp
    assert "% on all validation images" in (out / "report.html").read_text("utf-8")
    again = codesign_supernet(session, chip, out, OPTIONS, floor=0.2, progress=silent)
    assert again == result


def test_an_accuracy_that_no_network_reaches_is_answered_with_the_range(session, tmp_path):
    chip = load_chip("nvdla-256")
    with pytest.raises(InfeasibleError, match=r"accuracies reach from .*% to .*%\. Lower"):
        codesign_supernet(session, chip, tmp_path, OPTIONS, floor=1.0, progress=silent)
    with pytest.raises(RecipeError, match="above 0 and at most 1, received 90"):
        codesign_supernet(session, chip, tmp_path, OPTIONS, floor=90, progress=silent)


def test_a_front_of_accuracy_and_costs_is_in_the_record_and_on_the_page(copied, tmp_path, command):
    out = tmp_path / "designs"
    words = ["codesign", "--supernet", copied, "--within", "nvdla-256", "--designs", 12]
    words += ["--networks", 4, "--min-accuracy", 0.2, "--out", out]
    code, said, error = command(*words, "--minimise", "edp,area", "--maximise", "accuracy")
    assert code == 0, error
    assert "designs on the front of edp, area, accuracy" in said
    assert "Designs that no other one beats" in (out / "report.html").read_text("utf-8")
    with Record.read(out / "record.sqlite") as record:
        front = record.metadata("front")
    assert {"edp", "area", "accuracy", "network", "vector"} == set(front[0])
    for one in front:
        assert one["accuracy"] >= 0.2
        assert not any(
            other["edp"] < one["edp"]
            and other["area"] < one["area"]
            and other["accuracy"] > one["accuracy"]
            for other in front
        )


def test_a_run_that_was_not_trained_is_refused(tiny, tmp_path):
    with Run.create(str(tiny), folder=tmp_path / "run") as run:
        session = Session(run, progress=silent)
        with pytest.raises(RunConflictError, match=r"has no weights\. Run pliant run on it first"):
            codesign_supernet(session, load_chip("eyeriss"), tmp_path, OPTIONS, progress=silent)


@pytest.mark.parametrize(
    ("minimise", "maximise", "said"),
    [
        (("edp", "power"), (), "received 'power'"),
        (("edp",), ("edp",), "accuracy, which is maximised; received 'edp'"),
        (("area",), (), "two metrics or more"),
        (("edp", "edp"), (), "each named once"),
    ],
)
def test_objectives_of_a_front_are_known_ones(minimise, maximise, said):
    with pytest.raises(RecipeError, match=said):
        FrontObjectives(minimise, maximise)
