"""A run that searches while it trains: from a limit on a chip to a delivered network."""

from __future__ import annotations

import pytest

from pliant import Run, run_all
from pliant.errors import InfeasibleError, RecipeError, RunConflictError
from pliant.metrics import Cost, Measured
from pliant.progress import silent
from pliant.report.summary import read_summary_file
from pliant.runs.session import Session
from pliant.runs.specialize import named_network, specialize
from pliant.spaces.mobile import MobileFrame
from pliant.spaces.proxyless import ProxylessSpace, ProxylessStage


def tiny_proxyless(channels, image_size, classes):
    stages = [ProxylessStage(8, 2, kernels=(3,), expansions=(1, 2))]
    frame = MobileFrame(stem=8, stem_stride=1, activation="relu6", expand=16, hidden=0)
    return ProxylessSpace(
        "tiny-proxyless",
        stages,
        frame,
        channels=channels,
        image_size=image_size,
        classes=classes,
    )


def changes(limits=("macs=22k",), **others):
    return {
        "space": tiny_proxyless,
        "train__strategy": "proxyless",
        "train__epochs": 6,
        "target__name": "nvdla-256",
        "limits": list(limits),
    } | others


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("proxyless") / "run"
    with Run.create(str(tiny), folder=folder, **changes()) as run:
        return folder, run_all(run, progress=silent)


def test_the_network_is_found_trained_and_delivered_within_the_limit(finished):
    folder, result = finished
    [found] = result.found.shortlist
    assert result.delivered.architecture == found.architecture
    assert found.predicted.macs <= 22_000
    assert (folder / "best" / "model.onnx").is_file()
    assert result.delivered.test.top1 > 0.3


def test_the_report_has_the_probabilities_of_every_block(finished):
    folder, result = finished
    search = read_summary_file(folder / "summary.json").training.architecture
    assert search.operations == {
        "stage1_block1": ("13", "23"),
        "stage1_block2": ("left out", "13", "23"),
    }
    chosen = result.delivered.architecture.mapping
    assert search.chosen["stage1_block1"] == str(chosen["1.1o"])
    for step in search.steps:
        for slot, names in search.operations.items():
            assert len(step.probabilities[slot]) == len(names)
            assert sum(step.probabilities[slot]) == pytest.approx(1, abs=1e-3)
        assert step.expected["macs"] > 0
    page = (folder / "report.html").read_text("utf-8")
    assert "The search between operations" in page


def test_it_goes_on_where_it_was_done(finished):
    folder, result = finished
    with Run.reopen(folder, space=tiny_proxyless) as run:
        again = run_all(run, progress=silent)
    assert again.delivered.architecture == result.delivered.architecture


def test_limits_below_and_above_all_networks_are_refused_with_the_range(tmp_path, tiny):
    for limit, said in (("macs=1k", "Raise macs"), ("macs=1M", "Lower a limit")):
        with (
            Run.create(str(tiny), folder=tmp_path / limit, **changes([limit])) as run,
            pytest.raises(InfeasibleError, match=rf"macs reaches .* to .*{said}"),
        ):
            run_all(run, progress=silent)


def test_a_space_of_shared_weights_is_refused_before_anything_is_measured(tmp_path, tiny):
    mixed = changes(space="digits", target__name="this-cpu")
    with Run.create(str(tiny), folder=tmp_path / "run", **mixed) as run:
        with pytest.raises(RecipeError, match="Use a space such as proxyless-32"):
            run_all(run, progress=silent)
        assert not (tmp_path / "run" / "device.json").exists()


def test_a_limit_at_the_end_of_the_range_is_met(tmp_path, tiny):
    space = tiny_proxyless(1, 8, 10)
    least = int(space.cost(space.smallest()).metric("macs"))
    with Run.create(str(tiny), folder=tmp_path / "run", **changes([f"macs={least}"])) as run:
        assert run_all(run, progress=silent).delivered.predicted.macs == least


def test_a_floor_of_the_accuracy_alone_leaves_nothing_to_search(tmp_path, tiny):
    with (
        Run.create(str(tiny), folder=tmp_path / "run", **changes(["accuracy=90%"])) as run,
        pytest.raises(InfeasibleError, match=r"received accuracy=90%\. .* MACs .* reach"),
    ):
        run_all(run, progress=silent)


def test_a_finished_run_deploys_its_network_and_no_other(finished):
    folder, result = finished
    chosen = result.delivered.architecture
    with Run.reopen(folder, space=tiny_proxyless) as run:
        named = named_network(Session(run, limits=(), progress=silent), chosen)
        assert named.architecture == chosen
        int8 = Session(run, precision="int8", progress=silent)
        assert specialize(int8).architecture == chosen
        wide = Session(run, limits=["macs=1M"], progress=silent)
        assert specialize(wide).architecture == chosen
        less = f"macs={run.space.cost(chosen).macs - 1}"
        narrow = Session(run, limits=[less], progress=silent)
        with pytest.raises(InfeasibleError, match=rf"and no other.*has macs=.*{less} was asked"):
            specialize(narrow)


def test_limits_and_target_are_those_with_which_the_search_began(finished):
    folder, _ = finished
    for other, said in ((["macs=21k"], "limits"), (["macs=22k", "latency_ms=5"], "limits")):
        with (
            Run.reopen(folder, space=tiny_proxyless, limits=other) as run,
            pytest.raises(RunConflictError, match=rf"the {said} with which it began: macs=22k"),
        ):
            run_all(run, progress=silent)


def test_the_report_compares_with_no_search_that_never_ran(finished):
    folder, _ = finished
    page = (folder / "report.html").read_text("utf-8")
    assert "random search" not in page
    assert "its probability at the end of the search" in page
    assert "At the end of the search the expected MACs" in page
    assert len(read_summary_file(folder / "summary.json").training.architecture.steps) > 2


def test_the_higher_of_both_measurements_counts(finished):
    class Device:
        name, can_measure = "device", True

        def measure(self, models):
            found = Measured(Cost(latency_ms=3.0, macs=5), spread=Cost())
            return dict.fromkeys(models, found)

        def measure_file(self, path):
            assert path.read_bytes()
            return Measured(Cost(latency_ms=4.0, macs=4), spread=Cost())

    folder, result = finished
    with Run.reopen(folder, space=tiny_proxyless) as run:
        session = Session(run)
        session.__dict__["target"] = Device()
        found = session._measure_untrained(result.delivered.architecture)
    assert found == Cost(latency_ms=4.0, macs=5)


def test_the_losses_of_weights_and_architecture_are_told_apart(finished):
    folder, _ = finished
    curve = read_summary_file(folder / "summary.json").training.curve
    names = {step.phase: set() for step in curve}
    for step in curve:
        names[step.phase] |= set(step.losses)
    weights = {"weights"}
    assert names["warm-up"] == names["train"] == weights
    assert names["search"] == weights | {"architecture with costs"}
