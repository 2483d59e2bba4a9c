"""The drawing shows every layer of every kind of block, in proportion."""

from __future__ import annotations

import re
from typing import Any

from pliant.report.drawing import drawing
from pliant.report.pages import render
from pliant.report.quantities import square
from pliant.spaces.architecture import Architecture
from pliant.spaces.block import Block
from pliant.spaces.presets import PRESETS, preset
from pliant.spaces.space import Space
from pliant.spaces.transformer_blocks import AttentionBlock


def _facts(block: Block) -> dict[str, Any]:
    return {
        "slot": block.slot,
        "type": type(block).__name__,
        "sizes": block.sizes,
        "macs": block.cost.macs,
        "parameters": block.cost.parameters,
    }


def _drawn(space: Space, architecture: Architecture) -> str:
    facts = [_facts(block) for block in space.blocks(architecture)]
    return render("drawing.html", drawing=drawing(facts))


def test_every_layer_with_weights_is_a_box() -> None:
    for name, row in PRESETS.items():
        space = preset(name, channels=3, image_size=min(224, row.largest_image), classes=10)
        for architecture in (space.smallest(), space.largest()):
            svg = _drawn(space, architecture)
            layers = [layer for layer in space.lower(architecture).layers if layer.weighted]
            widths = [
                float(width) for width in re.findall(r'<rect x="14" y="\d+" width="([\d.]+)"', svg)
            ]
            assert len(widths) == len(layers)
            widest = max(layer.G * layer.K for layer in layers)
            assert max(widths) == 286
            for width, layer in zip(widths, layers, strict=True):
                assert abs(width - max(2, 286 * layer.G * layer.K / widest)) < 0.051


def test_stages_stand_between_input_and_output(toy_space: Space) -> None:
    mobile = preset("mobile-32", channels=1, image_size=28, classes=10)
    captions = re.findall("<figcaption>(.*?)</figcaption>", _drawn(mobile, mobile.largest()))
    assert captions == ["Input", "Stage 1", "Stage 2", "Stage 3", "Output"]
    assert re.findall("<figcaption>(.*?)</figcaption>", _drawn(toy_space, toy_space.largest())) == [
        "Network"
    ]


def test_a_shortcut_is_a_bracket() -> None:
    plain = preset("plain-32", channels=1, image_size=28, classes=10)
    assert _drawn(plain, plain.largest()).count('class="shortcut"') == 3
    assert _drawn(plain, plain.smallest()).count('class="shortcut"') == 0


def test_words_follow_from_layers() -> None:
    mobile = preset("mobile-32", channels=1, image_size=28, classes=10)
    words = {one.slot: one for one in mobile.blocks(mobile.largest())}
    block = words["stage2_block1"]
    (picture,) = drawing([_facts(block)])[0].blocks
    assert picture.title == f"{square(7)} inverted residual"
    assert picture.detail == "24 → 96 → 48 · stride 2 · squeeze-and-excite"
    assert [box.kind for box in picture.boxes] == [
        "dense", "depthwise", "squeeze", "squeeze", "dense",
    ]  # fmt: skip
    (head,) = drawing([_facts(words["head"])])[0].blocks
    assert (head.title, head.detail) == ("head", "96 → 288 → 10")


def test_attention_says_its_heads() -> None:
    block = AttentionBlock(slot="stage1_attention2", size=7, channels=96, heads=2, head_size=32)
    (picture,) = drawing([_facts(block)])[0].blocks
    assert (picture.title, picture.detail) == (
        "attention block",
        "96 → 192 → 96 · 2 heads over 49 tokens",
    )
    assert [box.kind for box in picture.boxes] == ["matmul"] * 4
    assert picture.shortcut


def test_two_views_are_said_where_they_begin_and_end() -> None:
    space = preset("wide-32", channels=3, image_size=32, classes=10)
    one, two = (
        _drawn(space, architecture)
        for architecture in (space.trainable_space().largest(), space.largest())
    )
    for words in ("and mirrored", "mean of both views"):
        assert words in two
        assert words not in one


def test_an_unknown_block_is_named_and_nothing_else() -> None:
    facts = [
        {"slot": "<i>", "type": "Attention", "sizes": {"heads": 4}},
        {"slot": "stem", "type": "ConvBlock", "sizes": {"wrong": 1}},
    ]
    svg = render("drawing.html", drawing=drawing(facts))
    assert "Attention" in svg
    assert "heads 4" in svg
    assert "&lt;i&gt;" in svg
    assert "not measured" in svg
    assert drawing([]) == ()
