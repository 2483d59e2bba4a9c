"""What every runtime promises: the outputs of ONNX Runtime, threads as asked, honest refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnxruntime
import pytest

from pliant.devices.measure import collect, measure
from pliant.devices.profile import random_network_model, timed_block
from pliant.devices.runtimes import RUNTIMES, runtime_named
from pliant.devices.runtimes.runtime import Runtime, example_input
from pliant.devices.timings import Settings
from pliant.errors import RecipeError
from pliant.metrics import InferencePrecision
from pliant.networks.quantize import INTEGER_END
from pliant.spaces.block import Block

QUICK = Settings(min_rounds=2, rounds=2, samples=2, sample_us=100)


COMPILED = pytest.param("pytorch-compiled", marks=pytest.mark.slow)


@pytest.fixture(params=[name for name in RUNTIMES if name != "pytorch-compiled"] + [COMPILED])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    found = RUNTIMES[request.param]
    if not found.is_installed:
        pytest.skip(f"{found.name} is not installed: pip install 'pliant[{found.extra}]'")
    return found


def settings(runtime: Runtime, **changes: object) -> Settings:
    return dataclasses.replace(QUICK, runtime=runtime.name, **changes)


def reference(model: bytes, batch: int) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name, image = example_input(model, batch)
    found: np.ndarray = session.run([session.get_outputs()[0].name], {name: image})[0]
    return found


def models(space, precision: InferencePrecision) -> list[bytes]:
    """Two networks that read pictures, and one block of each type."""
    rng = np.random.default_rng(3)
    networks = [space.largest(), space.smallest()]
    made = [random_network_model(space.blocks(one), rng, precision) for one in networks]
    blocks: dict[type[Block], Block] = {type(one): one for one in space.blocks(networks[0])}
    return made + [timed_block(one, rng, 1, precision) for one in blocks.values()]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_outputs_are_those_of_onnx_runtime(runtime, precision, digits_space):
    if precision not in runtime.precisions:
        with pytest.raises(RecipeError, match=rf"precisions of runtime {runtime.name} are"):
            runtime.require(settings(runtime), precision)
        return
    few = models(digits_space, precision)[: None if runtime.times_blocks else 1]
    with runtime.prepared(settings(runtime)):
        for model in few:
            session = runtime.open(model, settings(runtime))
            session.run()
            expected = reference(model, 1)
            if expected.dtype == np.uint8:  # of an int8 block: kernels may round the other way
                assert INTEGER_END.encode() in model
                difference = np.abs(session.output().astype(int) - expected.astype(int))
                assert difference.max() <= 1
                assert (difference > 0).mean() < 0.1
            else:
                tolerance = 1e-5 if precision == "fp32" else 2e-2
                np.testing.assert_allclose(session.output(), expected, atol=tolerance, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_batch_is_run_at_once(runtime, digits_space):
    of = settings(runtime, batch=4)
    model = models(digits_space, "fp32")[1]
    with runtime.prepared(of):
        session = runtime.open(model, of)
        session.run()
    assert len(session.output()) == 4
    np.testing.assert_allclose(session.output(), reference(model, 4), atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_its_cpu_time_is_that_of_the_calling_thread(runtime, digits_space):
    """With one thread the latency is the thread's CPU time: no other thread may do the work."""
    model = models(digits_space, "fp32")[0]
    timings = collect({"a": model}, settings(runtime), seed=0)["a"]
    assert 0.2 * timings.wall_us.min() < timings.cpu_us.min() <= 1.1 * timings.wall_us.max()


def test_the_process_is_left_as_it_was(runtime, digits_space):
    import torch

    before = torch.get_num_threads()
    with runtime.prepared(settings(runtime, threads=2)):
        pass
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", RUNTIMES)
def test_without_its_package_the_extra_is_named(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(RecipeError, match=r"is not installed. Install it with `pip install"):
        RUNTIMES[name].require(settings(RUNTIMES[name]), "fp32")


def test_a_name_that_means_none_is_refused():
    with pytest.raises(RecipeError, match="Did you mean 'openvino'"):
        runtime_named("openvno")
    with pytest.raises(RecipeError, match="a runtime is one of"):
        measure({}, dataclasses.replace(QUICK, runtime="tensorrt"), seed=0)


def test_a_precision_that_it_lacks_is_refused_with_the_reason():
    with pytest.raises(RecipeError, match=r"are fp32, received 'int8': .* writes float operators"):
        RUNTIMES["litert"].require(settings(RUNTIMES["litert"]), "int8")


def test_levels_that_it_does_not_have_are_refused(runtime):
    if "basic" in runtime.levels:
        runtime.require(settings(runtime, optimisation="basic"), "fp32")
        return
    with pytest.raises(RecipeError, match=r"optimisation levels of runtime .* are all"):
        runtime.require(settings(runtime, optimisation="basic"), "fp32")
