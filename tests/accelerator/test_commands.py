"""The commands and the report: what an architect reads about a small network."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from pliant.accelerator.chip import load_chip
from pliant.accelerator.explain import explanation, tiles
from pliant.accelerator.mapper.optimal import optimal_mapping
from pliant.accelerator.mapping_store import forget
from pliant.cli.accelerator import app, compile_notice
from pliant.errors import RecipeError
from pliant.workload import Layer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, (8, 3, 3, 3), np.zeros(216, dtype=np.float32)),
        helper.make_tensor("v", TensorProto.FLOAT, (8, 10), np.zeros(80, dtype=np.float32)),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "<b>stem</b>", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["a"], ["m"], "mean"),
        helper.make_node("Flatten", ["m"], ["f"], "flat"),
        helper.make_node("MatMul", ["f", "v"], ["y"], "head"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_names_chips_and_sources() -> None:
    text = run("list")
    assert "eyeriss" in text
    assert "JSSC" in text


def test_map_prints_nests_and_proofs_and_writes_one_offline_page(
    model: Path, tmp_path: Path
) -> None:
    page = tmp_path / "map.html"
    cache = tmp_path / "cache"
    text = run(
        "map",
        str(model),
        "--chip",
        "nvdla-256",
        "--size",
        "batch=2",
        "--report",
        str(page),
        "--cache",
        str(cache),
    )
    assert text.count("Proven best of") == 3
    assert text.count("register") >= 3
    assert "3 layers, 3 shapes on nvdla-256" in text
    assert [file.name for file in cache.iterdir()] == ["mappings.sqlite"]
    content = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;stem&lt;/b&gt;" in content
    assert "<summary>1. <b>" not in content
    assert 'src="http' not in content
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_a_gap_is_told_and_not_called_proven(model: Path) -> None:
    forget()
    text = run("map", str(model), "--size", "batch=3", "--gap", "2%", "--threads", "2")
    assert text.count("Within 2 % of the best, as asked for") == 3
    assert "every mapping within 2 % of the best" in text
    assert "proven" not in text.lower()
    for wrong in ("100%", "-1%", "few"):
        refused = CliRunner().invoke(app, ["map", str(model), "--gap", wrong])
        assert refused.exit_code == 2
        assert "a gap is a share" in refused.output


def test_explain_says_in_words_what_bounds_a_layer(model: Path) -> None:
    text = run("explain", str(model), "--layer", "3", "--size", "batch=1")
    assert "head (matmul)" in text
    assert "is the bottleneck" in text
    assert "█" in text
    assert "Proven best" in text
    assert "Not modelled: fill and drain of a systolic array" in text


def test_a_silent_start_says_that_it_compiles(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pliant.cli.accelerator.COMPILE_NOTICE_S", 0.0)
    said = threading.Event()
    monkeypatch.setattr("typer.echo", lambda text, err: (sys.stderr.write(text), said.set()))
    with compile_notice():
        assert said.wait(60)
    assert "compiled" in capsys.readouterr().err
    monkeypatch.setattr("pliant.cli.accelerator.COMPILE_NOTICE_S", 60.0)
    with compile_notice():
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--layer", "9", "--size", "batch=1"), "from 1 to 3"),
        (("--layer", "1", "--size", "batch"), "name=number"),
        (("--layer", "1", "--size", "batch=1", "--chip", "eyeris"), "Did you mean 'eyeriss'"),
    ],
)
def test_mistakes_are_answered(model: Path, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        run("explain", str(model), *arguments)


def test_tiles_are_those_of_the_mapping() -> None:
    layer, chip = (
        Layer("c", "conv", ("image",), K=16, C=8, P=14, Q=14, R=3, S=3),
        load_chip("eyeriss"),
    )
    best = optimal_mapping(layer, chip)
    held = {(tile.tensor, tile.level): tile.words for tile in tiles(best)}
    assert held["W", "dram"] == 16 * 8 * 9
    assert held["I", "dram"] == 8 * 16 * 16
    assert held["O", "register"] == np.prod([best.mapping.register[d] for d in (0, 1, 2, 4, 5)])
    assert best.layer.name in explanation(best, chip)


def test_the_package_needs_no_torch() -> None:
    code = (
        "import sys, pliant.accelerator.chip_target, pliant.workload.onnx_reader\n"
        "import pliant.report.mapping_page\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=240).returncode == 0
