"""Do the shipped spaces compute, and the mapper find, what they did in another checkout?

    git worktree add ../before COMMIT
    python benchmarks/unchanged.py ../before

Outputs: for each shipped space, a supernet of random weights and the fp32 logits of its largest,
its smallest and two random networks for one batch; the largest difference over the largest logit.
New spaces have no row. Mappings: the energy-delay product of ResNet-50 on each shipped chip, summed
over its layers; above 1 would be a worse mapping than before.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from before_after import HERE, commit, run
from result import publish

IMAGES = {
    "digits": (1, 8),
    "photos": (3, 96),
    "ofa-mobilenetv3": (3, 128),
    "ofa-resnet50": (3, 128),
}
"""Channels and pixels; 3 and 32 where a space is not named."""

OUTPUTS = """
import json
import numpy as np
import torch
from pliant.networks.supernet import Supernet
from pliant.spaces.presets import PRESETS, preset
images = json.loads({images!r})
found = {{}}
for name in PRESETS:
    channels, size = images.get(name, (3, 32))
    try:
        space = preset(name, channels=channels, image_size=size, classes=10)
    except Exception:  # of a space that the other checkout does not have
        continue
    supernet = Supernet(space, mean=[0.5] * channels, std=[0.25] * channels).eval()
    generator = torch.Generator().manual_seed(0)
    for _, weight in sorted(supernet.named_parameters()):  # none is 0, so that all of it counts
        spread = 0.2 if weight.ndim == 1 else weight[0].numel() ** -0.5
        weight.data = torch.randn(weight.shape, generator=generator) * spread
        weight.data += float(weight.ndim == 1)
    batch = torch.rand(4, channels, size, size, generator=torch.Generator().manual_seed(1))
    rng = np.random.default_rng(0)
    networks = [space.largest(), space.smallest(), *(space.sample_choices(rng) for _ in range(2))]
    with torch.no_grad():
        found[name] = {{str(one): supernet(batch, one).flatten().tolist() for one in networks}}
print(json.dumps(found))
"""
MAPPINGS = """
import json
from accelerator_mapper import NETWORKS, load_chip, map_workload
from pliant.accelerator.chip import shipped_chips
# An older checkout calls it otherwise.
resnet = NETWORKS["resnet-50" if "resnet-50" in NETWORKS else "resnet50"]
found = {}
for name in shipped_chips():
    mapped = map_workload(resnet(), load_chip(name), "edp")
    found[name] = [layer.value for layer in mapped.layers]
print(json.dumps(found))
"""


def probe(checkout: Path, text: str):
    """What a script prints last, as JSON."""
    return json.loads(run(checkout, ["-c", text]).stdout.splitlines()[-1])


def output_row(name: str, before, after) -> dict[str, object]:
    """How far the logits of one space are apart; which networks have another name today."""
    common = [one for one in before if one in after]
    worst = 0.0
    for one in common:
        scale = max(map(abs, before[one])) or 1.0  # a network without a path gives zeros
        pairs = zip(before[one], after[one], strict=True)
        worst = max(worst, max(abs(a - b) for a, b in pairs) / scale)
    row = {"what": f"logits, {name}", "compared": f"{len(common)} of {len(before)}"}
    return row | {"relative_difference": worst if common else None}


def mapping_row(name: str, before, after) -> dict[str, object]:
    """The sum over layers against before, and how many layers are better or worse."""
    pairs = list(zip(before, after, strict=True))
    return {
        "what": f"ResNet-50 mapped, {name}",
        "compared": f"{len(pairs)} layers",
        "edp_over_before": sum(after) / sum(before),
        "better": sum(b < a * (1 - 1e-9) for a, b in pairs),
        "worse": sum(b > a * (1 + 1e-9) for a, b in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="the checkout to compare with")
    arguments = parser.parse_args()
    before = arguments.before.resolve()
    rows = []
    for text, row in (
        (OUTPUTS.format(images=json.dumps(IMAGES)), output_row),
        (MAPPINGS, mapping_row),
    ):
        old, new = probe(before, text), probe(HERE, text)
        rows += [row(name, old[name], new[name]) for name in old if name in new]
    publish("unchanged", rows, before=commit(before), after=commit(HERE))


if __name__ == "__main__":
    main()
