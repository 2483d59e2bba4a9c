"""Does the predicted memory agree with that of a fresh process?

    python benchmarks/peak_memory.py

Twenty random networks of four spaces run in a fresh process each, with ONNX Runtime. Predicted are
the weights, the arena of the activations and the graph (`pliant.devices.resident_memory`); compared
is the highest resident memory beyond that of an empty model.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from pliant.devices.measure import empty_model
from pliant.devices.profile import random_network_model
from pliant.devices.resident_memory import measure_resident_memory, resident_memory_bytes
from pliant.spaces.presets import preset
from pliant.workload import onnx_workload

# Space, channels, image size, images per run: enough that activations count beside the weights.
CASES = (
    ("mobile-32", 3, 32, 32),
    ("ofa-mobilenetv3", 3, 224, 4),
    ("photos", 3, 160, 8),
    ("micro", 3, 96, 16),
)
NETWORKS = 5
WITHIN = 0.10
RESULTS = Path(__file__).parent / "results" / "peak_memory.json"


def main():
    rng = np.random.default_rng(2)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(empty_model())
        empty = measure_resident_memory(path).peak_bytes
        print("| network | batch | weights | alive at once | predicted | resident | difference |")
        print("|---|---|---|---|---|---|---|")
        for name, channels, size, batch in CASES:
            space = preset(name, channels=channels, image_size=size, classes=10)
            for _ in range(NETWORKS):
                architecture = space.sample_choices(rng)
                path.write_bytes(random_network_model(space.blocks(architecture), rng))
                workload = onnx_workload(path, sizes={"N": batch})
                predicted = resident_memory_bytes(workload)
                resident = measure_resident_memory(path, batch).peak_bytes - empty
                row = {
                    "space": name,
                    "architecture": str(architecture),
                    "batch": batch,
                    "weights_bytes": workload.parameter_bytes,
                    "alive_bytes": workload.peak_activation_bytes,
                    "predicted_bytes": predicted,
                    "resident_bytes": resident,
                    "difference": predicted / resident - 1,
                }
                rows.append(row)
                sizes = [
                    row[f"{one}_bytes"] for one in ("weights", "alive", "predicted", "resident")
                ]
                texts = " | ".join(f"{one / 1e6:.1f} MB" for one in sizes)
                print(f"| {name} | {batch} | {texts} | {row['difference']:+.1%} |", flush=True)
    differences = [abs(row["difference"]) for row in rows]
    worst, mean = max(differences), sum(differences) / len(differences)
    within = sum(one <= WITHIN for one in differences)
    print(f"mean {mean:.1%}, largest {worst:.1%}, {within} of {len(rows)} within {WITHIN:.0%}")
    report = {"mean": mean, "largest": worst, "within_10_percent": within, "rows": rows}
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    return int(worst > WITHIN)


if __name__ == "__main__":
    sys.exit(main())
