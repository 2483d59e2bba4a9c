"""How to have the same result again: seed, data, versions and machine of a run."""

from __future__ import annotations

from pliant.report.quantities import format_timestamp, significant, square
from pliant.report.summary import Summary

_NAMES = {
    "cpu": "Processor",
    "os": "System",
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
}


def metadata(summary: Summary) -> list[tuple[str, str]]:
    """Names and values, the machine's last."""
    space, data = summary.space, summary.data
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    channels = f"{space.channels} channel{'' if space.channels == 1 else 's'}"
    rows = [
        ("Pliant", summary.pliant),
        ("Seed", str(summary.seed)),
        ("Created", format_timestamp(summary.created)),
        ("Data", data.name),
        ("Images", ", ".join(f"{significant(number)} {of}" for of, number in splits.items())),
        ("Space", space.name),
        ("Input", f"{square(space.image_size)} pixels, {channels}"),
        ("Networks in the space", significant(space.size)),
        ("Target", summary.target.name),
    ]
    for key, value in summary.machine.items():
        rows.append((_NAMES.get(key, key.replace("_", " ").capitalize()), str(value)))
    return rows
