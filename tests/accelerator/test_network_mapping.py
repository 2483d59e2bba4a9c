"""Networks are mapped layer by layer, equal layers once, results kept on disk."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pliant.accelerator.chip import Chip, load_chip
from pliant.accelerator.explain import proof
from pliant.accelerator.mapping_store import forget, result_key
from pliant.accelerator.network_mapping import map_workload, network_bound
from pliant.errors import DamagedFileError, EncodingError, RecipeError
from pliant.workload import NETWORK_INPUT, Layer, Workload
from pliant.workload.onnx_reader import onnx_workload


def weight(name: str, *shape: int) -> Any:
    return helper.make_tensor(
        name, TensorProto.FLOAT, shape, np.zeros(int(np.prod(shape)), dtype=np.float32)
    )


def save(
    path: Path, nodes: list[Any], weights: list[Any], shape: list[Any], out: list[Any]
) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path


def residual_net(path: Path, batch: Any = 1, extra: str = "Relu") -> Path:
    """Convolution with BatchNorm, depthwise and grouped convolution, addition, pooling, Gemm."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w0"], ["a"], "stem", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a", "s", "s", "s", "s"], ["b"], "norm"),
        node("Relu", ["b"], ["c"], "act"),
        node("Conv", ["c", "w1"], ["d"], "depthwise", group=8, pads=[1, 1, 1, 1]),
        node(
            "Conv", ["d", "w2", "s"], ["e"], "grouped", group=2, dilations=[2, 2], pads=[2, 2, 2, 2]
        ),
        node(extra, ["e"], ["e2"], "extra"),
        node("Add", ["e2", "c"], ["f"], "sum"),
        node("MaxPool", ["f"], ["g"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["g"], ["h"], "mean"),
        node("Flatten", ["h"], ["i"], "flat"),
        node("Gemm", ["i", "w3", "b3"], ["y"], "classifier", transB=1),
    ]
    weights = [
        weight("w0", 8, 3, 3, 3),
        weight("s", 8),
        weight("w1", 8, 1, 3, 3),
        weight("w2", 8, 4, 3, 3),
        weight("w3", 10, 8),
        weight("b3", 10),
    ]
    return save(path, nodes, weights, [batch, 3, 16, 16], [batch, 10])


def test_an_onnx_file_becomes_the_layers_one_would_write_by_hand(tmp_path: Path) -> None:
    workload = onnx_workload(residual_net(tmp_path / "net.onnx"))
    assert workload.layers == (
        Layer("stem", "conv", (NETWORK_INPUT,), K=8, C=3, P=8, Q=8, R=3, S=3, strides=(2, 2)),
        Layer("depthwise", "conv", ("stem",), G=8, P=8, Q=8, R=3, S=3, bias=False),
        Layer(
            "grouped", "conv", ("depthwise",), G=2, K=4, C=4, P=8, Q=8, R=3, S=3, dilations=(2, 2)
        ),
        Layer("sum", "elementwise", ("grouped", "stem"), G=8, P=8, Q=8),
        Layer("pool", "pool", ("sum",), G=8, P=4, Q=4, R=2, S=2, strides=(2, 2)),
        Layer("mean", "pool", ("pool",), G=8, R=4, S=4),
        Layer("classifier", "matmul", ("mean",), K=10, C=8),
    )
    assert workload.input_elements == 3 * 16 * 16


def test_open_sizes_unknown_operators_and_broken_files_are_named(tmp_path: Path) -> None:
    open_batch = residual_net(tmp_path / "open.onnx", batch="batch")
    with pytest.raises(EncodingError, match="'batch' is open"):
        onnx_workload(open_batch)
    assert onnx_workload(open_batch, sizes={"batch": 4}).layers[0].N == 4
    odd = residual_net(tmp_path / "odd.onnx", extra="Det")
    with pytest.raises(EncodingError, match=r"'Det' \(node 'extra'\) has no cost"):
        onnx_workload(odd)
    assert len(onnx_workload(odd, skip={"Det"}).layers) == 7
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(DamagedFileError, match="no valid ONNX model"):
        onnx_workload(tmp_path / "text.onnx")
    with pytest.raises(DamagedFileError, match="cannot be read"):
        onnx_workload(tmp_path / "absent.onnx")


def test_matrix_products_of_attention_are_groups(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"], "query"),
        helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "t"], ["y"], "scores"),
    ]
    layers = onnx_workload(
        save(tmp_path / "a.onnx", nodes, [weight("w", 16, 16)], [2, 5, 16], [2, 5, 5])
    ).layers
    assert layers[0] == Layer("query", "matmul", (NETWORK_INPUT,), N=10, K=16, C=16, bias=False)
    assert layers[1] == Layer(
        "scores", "matmul", ("query", NETWORK_INPUT), N=5, G=2, K=5, C=16, bias=False, stored=0
    )


def test_equal_layers_are_mapped_once_and_totals_add_up(tmp_path: Path) -> None:
    first = Layer("first", "conv", (NETWORK_INPUT,), K=16, C=8, P=14, Q=14, R=3, S=3)
    workload = Workload(
        (
            first,
            replace(first, name="second", inputs=("first",)),
            Layer("add", "elementwise", ("first", "second"), G=16, P=14, Q=14),
        ),
        100,
    )
    chip = load_chip("nvdla-256")
    mapped = map_workload(workload, chip, cache=tmp_path / "cache")
    assert mapped.distinct == 2
    assert mapped.proven
    assert mapped.energy == sum(layer.cost.energy for layer in mapped.layers)
    cost = mapped.cost()
    assert cost.latency_ms == pytest.approx(mapped.cycles / 1e6)
    assert cost.energy_uj == pytest.approx(mapped.energy * 1e-6)
    assert cost.macs == workload.macs
    chip = load_chip("eyeriss")
    ratios = map_workload(workload, chip)
    assert ratios.cost().energy_uj == pytest.approx(ratios.energy * 2e-6), "a MAC is 2 pJ"
    unknown = replace(chip, energy=replace(chip.energy, mac_picojoules=None))
    assert map_workload(workload, unknown).cost().energy_uj is None


def forgetful_workload(folder: Path) -> tuple[Workload, Chip, Any]:
    """A workload of one layer, mapped into a folder; the memory of the process is empty."""
    layer = Layer("a", "conv", (NETWORK_INPUT,), K=16, C=8, P=14, Q=14, R=3, S=3)
    workload, chip = Workload((layer,), 100), load_chip("nvdla-256")
    forget()
    made = map_workload(workload, chip, cache=folder)
    forget()
    return workload, chip, made


def test_the_cache_answers_and_damage_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload, chip, made = forgetful_workload(tmp_path)
    (file,) = tmp_path.iterdir()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("mapped again")

    with monkeypatch.context() as patched:
        patched.setattr("pliant.accelerator.network_mapping.optimal_mapping", refuse)
        assert map_workload(workload, chip, cache=tmp_path).layers == made.layers
        # A slower clock is costed again, not mapped again; so is a loop that the layer has not.
        slow = replace(chip, clock_mhz=1.0, axes=(replace(chip.axes[0], loops="CN"), chip.axes[1]))
        assert map_workload(workload, slow).latency_ms == pytest.approx(1000 * made.latency_ms)
        forget()
        with sqlite3.connect(file) as rows:
            rows.execute("UPDATE mappings SET content = replace(content, '\"value\": ', '')")
        rows.close()
        with pytest.raises(AssertionError, match="mapped again"):
            map_workload(workload, chip, cache=tmp_path)
    for damage in (b"{", file.read_bytes()[:1000]):
        file.write_bytes(damage)
        forget()
        mapped = map_workload(workload, chip, cache=tmp_path)
        assert mapped.layers[0].mapping == made.layers[0].mapping
        forget()
        with monkeypatch.context() as patched:
            patched.setattr("pliant.accelerator.network_mapping.optimal_mapping", refuse)
            assert map_workload(workload, chip, cache=tmp_path).layers == mapped.layers


def test_a_result_within_a_gap_answers_who_allows_it() -> None:
    chip = load_chip("eyeriss")
    layer = Layer("a", "conv", (NETWORK_INPUT,), K=96, C=48, P=27, Q=27, R=5, S=5)
    workload = Workload((layer,), 100)
    forget()
    near = map_workload(workload, chip, gap=0.05).layers[0]
    assert not near.certificate.proven
    assert near.certificate.complete
    assert "Within 5 % of the best" in proof(near)
    assert map_workload(workload, chip, gap=0.1).layers[0].certificate == near.certificate
    made = map_workload(workload, chip).layers[0]
    assert made.certificate.proven
    assert made.value <= near.value <= made.value / 0.95
    # A proven result answers every gap.
    assert map_workload(workload, chip, gap=0.05).layers[0] == made
    for gap in (-0.1, 1.0, float("nan")):
        with pytest.raises(RecipeError, match="gap is a share"):
            map_workload(workload, chip, gap=gap)


def test_threads_and_a_bound_before_mapping() -> None:
    layers = [
        Layer(f"layer{n}", "conv", (NETWORK_INPUT,), K=k, C=16, P=14, Q=14, R=3, S=3)
        for n, k in enumerate((8, 12, 16, 8))
    ]
    workload = Workload(tuple(layers), 100)
    for name in ("eyeriss", "edge-tpu-like"):
        chip = load_chip(name)
        bound = network_bound(workload, chip)
        for objective in ("energy", "latency", "edp"):
            forget()
            one = map_workload(workload, chip, objective)
            forget()
            two = map_workload(workload, chip, objective, threads=2)
            assert [best.mapping for best in one.layers] == [best.mapping for best in two.layers]
            assert tuple(best.layer for best in two.layers) == workload.layers
            assert 0 < bound.energy <= one.energy
            assert 0 < bound.cycles <= one.cycles
            assert bound.edp <= one.energy * one.cycles
    with pytest.raises(RecipeError, match="threads are at least 1"):
        map_workload(workload, chip, threads=0)


def test_results_are_told_apart_by_numbers_not_by_names() -> None:
    layer = Layer("a", "conv", (NETWORK_INPUT,), K=16, C=8)
    chip = load_chip("nvdla-256")
    same: Chip = replace(chip, name="other", source="", clock_mhz=1.0)
    key = result_key(layer, chip, "edp")
    assert key == result_key(replace(layer, name="b"), same, (1.0, 1.0))
    slower = replace(chip, dram_bandwidth_bytes_per_cycle=1.0)
    fewer = replace(chip, axes=(replace(chip.axes[0], size=16), chip.axes[1]))
    for other in (slower, fewer):
        assert key != result_key(layer, other, "edp")
    assert key != result_key(layer, chip, "energy")
    window = replace(layer, P=4, R=3)
    strided = replace(window, strides=(2, 2))
    assert result_key(window, chip, "edp") != result_key(strided, chip, "edp")
    # One output row or one kernel row: the step is never taken.
    assert key == result_key(replace(layer, strides=(2, 2)), chip, "edp")
