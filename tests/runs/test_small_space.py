"""A space of so few networks that no predictor can be fitted takes the way of every run."""

from __future__ import annotations

from pliant import Run
from pliant.runs.session import Session
from pliant.runs.specialize import specialize
from pliant.runs.workflow import run_all
from pliant.spaces.convolutional_blocks import ConvBlock
from pliant.spaces.input_output_blocks import Head, Preprocess
from pliant.spaces.space import Choice, Space
from pliant.targets import Arithmetic


class Three(Space):
    """Three widths, nothing else."""

    choices = (Choice("1w", (8, 12, 16), "width"),)

    def layout(self, architecture):
        size, width = self.image_size, architecture["1w"]
        return (
            Preprocess(slot="preprocess", size=size, channels=self.channels, resolution=size),
            ConvBlock(slot="stem", size=size, inputs=self.channels, outputs=width, pool=2),
            Head(slot="head", size=size // 2, inputs=width, classes=self.classes),
        )


def three(channels, image_size, classes):
    return Three("three", channels=channels, image_size=image_size, classes=classes)


def test_all_networks_are_evaluated_and_one_is_delivered(tiny, tmp_path):
    parts = {"space": three, "limits": ["parameters=1k"]}
    with Run.create(str(tiny), folder=tmp_path / "run", train__epochs=1, **parts) as run:
        target = Arithmetic(run.space)
        result = run_all(run, target=target)
        assert len(result.found.history) == 3
        assert result.summary.predictor is None
        assert result.summary.ranking == ()
        assert (run.folder / "report.html").is_file()
        other = Session(run, target=target, limits=["parameters=300"])
        assert specialize(other).outcome.known_cost.metric("parameters") <= 300
