"""Predicted against measured latency on 40 random networks that no coefficient was fitted on.

python benchmarks/latency.py [--preset mobile-32]

They are measured after the profile, in another order and with other weights. The baseline is linear
regression on MACs, fitted on the same networks as the table. The drift is the relative change of
the anchor network's latency between the two measurements.
"""

from __future__ import annotations

import argparse

import numpy as np
from result import publish
from scipy.stats import spearmanr

from pliant.devices.measure import Settings, anchor_model
from pliant.devices.measured_target import MeasuredTarget
from pliant.devices.profile import measure_networks, profile_device, random_network_model
from pliant.spaces.presets import preset

IMAGES = {
    "digits": (1, 8),
    "mobile-32": (3, 32),
    "plain-32": (3, 32),
    "wide-32": (3, 32),
    "ofa-mobilenetv3": (3, 224),
    "ofa-resnet50": (3, 224),
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=IMAGES, action="append")
    parser.add_argument("--networks", type=int, default=40)
    arguments = parser.parse_args()
    settings, rows = Settings(), []
    for name in arguments.preset or ("digits", "mobile-32", "plain-32"):
        channels, size = IMAGES[name]
        space = preset(name, channels=channels, image_size=size, classes=10)
        profile = profile_device(space, settings, seed=0)
        target = MeasuredTarget(profile, space)
        rng = np.random.default_rng(99)
        unseen = list(dict.fromkeys(space.sample_choices(rng) for _ in range(arguments.networks)))
        models = {str(one): random_network_model(space.blocks(one), rng) for one in unseen} | {
            "anchor": anchor_model()
        }
        found = measure_networks(models, settings, seed=1)
        measured = np.array([found[str(one)].latency_ms for one in unseen])
        predicted = np.array([cost.latency_ms for cost in target.predict(unseen)])
        off = np.abs(predicted / measured - 1)
        anchor = found.pop("anchor")
        rows.append(
            {
                "preset": name,
                "networks": len(unseen),
                "blocks": len(profile.blocks),
                "rung": target.predictor.rung,
                "mape_percent": float(100 * off.mean()),
                "spearman": float(spearmanr(predicted, measured).statistic),
                "within_5_percent": float((off <= 0.05).mean()),
                "within_10_percent": float((off <= 0.10).mean()),
                "worst_percent": float(100 * off.max()),
                "fastest_ms": float(measured.min()),
                "slowest_ms": float(measured.max()),
                "cross_validated_mape_percent": target.predictor.mape_percent,
                "macs_spearman": float(
                    spearmanr([space.cost(one).macs for one in unseen], measured).statistic
                ),
                "split_half_error": float(
                    np.median([one.split_half_error for one in found.values()])
                ),
                "anchor_drift": anchor.latency_ms * 1e3 / profile.anchor_us - 1,
                "preempted_share": float(np.mean([one.preempted_share for one in found.values()])),
            }
        )
    publish("-".join(["latency", *(arguments.preset or ())]), rows)


if __name__ == "__main__":
    main()
