"""How well do latency predictors do on public latencies, with few and with many samples?

    python benchmarks/latency_predictors.py [--seeds 12] [--only-table]

Devices are the columns of `../shared/data/latency`: NAS-Bench-201 (Spearman rank correlation and
mean absolute percentage error on all other trainable cells; dead cells and cells without any
convolution or pooling are left out, as their latency is that of an empty network) and
Once-for-All's MobileNetV3. `fpga` is an exact sum of operation counts, not a measurement; the
others are measurements. The baseline counts the four operations of a cell, as written or without
dead edges, whichever fits its samples better, with non-negative costs.

What a fit sees are its samples only: rungs, graphs and columns are selected by cross-validation on
them. The rules of the ladder were written with these tables at hand, however.

A search has 100 random networks of a device measured, and looks for the highest accuracy (cells) or
the most MACs (MobileNetV3) within a limit: the latency that 30 or 60 % of all networks have at
most. The table stands in for the device.

A line of `work/latency-predictors.jsonl` is one fit; a killed run resumes from there.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from pathlib import Path

import numpy as np
from result import publish
from scipy.optimize import nnls
from scipy.stats import kendalltau, spearmanr

from pliant.devices.ladder import DeviceRows, fit, layer_counts, networks_to_measure
from pliant.devices.regression import fit_boosted_trees
from pliant.devices.transfer import fit_transfer
from pliant.spaces.cell import OPERATIONS, CellSpace
from pliant.spaces.presets import preset

ROOT = Path(__file__).parent
DATA = ROOT.parent.parent / "shared" / "data"
LINES = ROOT / "work" / "latency-predictors.jsonl"
CELLS = CellSpace("nas-bench-201", channels=3, image_size=32, classes=10)
MOBILE = preset("ofa-mobilenetv3", channels=3, image_size=224, classes=1000)
LIMITS = (0.3, 0.6)
SHORTLIST = 8
CONFIDENCE = 0.95


class Table:
    """The networks of a file, their latencies by device, and what a search maximises."""

    def __init__(self, space, networks, latency_ms, worth):
        self.space, self.networks, self.latency_ms, self.worth = space, networks, latency_ms, worth
        self.searchable = np.flatnonzero(~np.isnan(worth))

    def some(self, rows):
        """The networks of rows."""
        return [self.networks[row] for row in rows]


def read(file):
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def latencies(rows, keep):
    names = [name for name in rows[0] if name.endswith("_ms")]
    return {
        name.removesuffix("_ms"): np.array([float(rows[k][name]) for k in keep]) for name in names
    }


def cells():
    rows = read(DATA / "latency" / "nas_bench_201_devices.csv")
    networks = [CELLS.parse(row["arch"]) for row in rows]
    works = set(OPERATIONS) - {"none", "skip_connect"}
    keep = [
        k
        for k, one in enumerate(networks)
        if works & set(CELLS.operations(CELLS.prune_dead_edges(one)))
    ]
    accuracy = {
        r["arch"]: float(r["cifar10_test_pct"]) for r in read(DATA / "nas_bench_201_cifar10.csv")
    }
    worth = np.array([accuracy.get(rows[k]["arch"], math.nan) for k in keep])
    return Table(CELLS, [networks[k] for k in keep], latencies(rows, keep), worth)


def mobile():
    rows = read(DATA / "latency" / "once_for_all_gpus.csv")
    networks = [MOBILE.architecture(options(row)) for row in rows]
    worth = np.array([float(MOBILE.cost(one).macs) for one in networks])
    return Table(MOBILE, networks, latencies(rows, range(len(rows))), worth)


def options(row):
    kernels, expansions, depths = (
        [int(part) for part in row[name].split("-")]
        for name in ("kernel_sizes", "expand_ratios", "depths")
    )
    found = {"r": int(row["resolution"])}
    for stage in range(5):
        found[f"{stage + 1}d"] = depths[stage]
        for block in range(4):
            found[f"{stage + 1}.{block + 1}k"] = kernels[4 * stage + block]
            found[f"{stage + 1}.{block + 1}e"] = expansions[4 * stage + block]
    return found


def baseline_ms(table, sampled, measured):
    """Non-negative costs of the four operations, as written or pruned, by the error of the fit."""
    best = None
    for prune in (False, True):
        columns = operation_counts(table, prune)
        costs = nnls(columns[sampled] / measured[:, None], np.ones(len(sampled)))[0]
        error = np.abs(columns[sampled] @ costs / measured - 1).mean()
        if best is None or error < best[0]:
            best = (error, columns @ costs)
    return best[1]


def operation_counts(table, prune, known={}):  # noqa: B006
    if prune not in known:
        counts = []
        for one in table.networks:
            names = CELLS.operations(CELLS.prune_dead_edges(one) if prune else one)
            counts.append([1.0, *(names.count(name) for name in OPERATIONS[1:])])
        known[prune] = np.array(counts)
    return known[prune]


def scores(predicted, measured):
    ratio = predicted / measured
    return {
        "spearman": float(spearmanr(predicted, measured).statistic),
        "kendall": float(kendalltau(predicted, measured).statistic),
        "mape_percent": float(100 * np.abs(ratio - 1).mean()),
        "within_10_percent": float((np.abs(ratio - 1) <= 0.1).mean()),
    }


def one_fit(table, device, samples, seed, how):
    """The scores of one predictor, its interval, and the searches with it."""
    latency = table.latency_ms[device]
    order = np.random.default_rng(seed).permutation(len(latency))
    sampled = order[:samples]
    if how == "chosen":
        pool = table.some(order[:1000])
        places = dict(zip(pool, order[:1000], strict=True))
        picked = networks_to_measure(table.space, samples, np.random.default_rng(seed), pool)
        sampled = np.array([places[one] for one in picked])
    sources = known_devices(table, device) if how == "transfer" else {}
    started = time.process_time()
    rows = DeviceRows(table.some(sampled), latency[sampled].tolist(), sources=sources)
    predictor = fit(rows, table.space)
    seconds = time.process_time() - started
    others = np.setdiff1d(np.arange(len(latency)), sampled)
    predicted = predictor.predict_ms(table.networks)
    found = {"rung": predictor.rung, "fit_seconds": seconds}
    found |= scores(predicted[others], latency[others])
    if table.space is CELLS:
        plain = baseline_ms(table, sampled, latency[sampled])
        found |= {f"plain_{k}": v for k, v in scores(plain[others], latency[others]).items()}
    if samples >= 100:
        factor = predictor.interval.factor(0.9)
        errors = np.abs(np.log(latency[others] / predicted[others]))
        found |= {"coverage": float((errors <= math.log(factor)).mean()), "factor": factor}
    if samples == 100:
        searches = [search(table, latency, predicted, predictor, q, sampled) for q in LIMITS]
        found["searches"] = searches
    return found


def search(table, latency, predicted, predictor, quantile, sampled):
    """Which networks searches choose within a limit, and whether they are over it when measured."""
    limit = float(np.quantile(latency, quantile))
    rows = np.setdiff1d(table.searchable, sampled)
    rows = rows[np.argsort(-table.worth[rows], kind="stable")]

    def within(factor):
        return [row for row in rows if predicted[row] * factor <= limit]

    factor = max(1.0, predictor.interval.upper_factor(CONFIDENCE))
    shortlist = within(factor)[:SHORTLIST]
    errors = np.log(latency[shortlist] / predicted[shortlist]).tolist()
    again = max(1.0, predictor.interval.recalibrated(errors).upper_factor(CONFIDENCE))
    fresh = [row for row in within(again) if row not in shortlist]
    held = [row for row in shortlist if latency[row] <= limit]
    chosen = {
        "prediction": within(1.0)[:1],
        "confidence": shortlist[:1],
        "recalibrated": fresh[:1],
        "measured": held[:1],
    }
    best = max(table.worth[row] for row in rows if latency[row] <= limit)
    return {
        name: {"over": bool(latency[row] > limit), "worth_share": float(table.worth[row] / best)}
        for name, picked in chosen.items()
        for row in picked
    }


def known_devices(table, device, known={}):  # noqa: B006
    """Predictors of the other measured devices, from 300 networks each."""
    for name, latency in table.latency_ms.items():
        if name not in known and name != "fpga":
            rows = np.random.default_rng(99).permutation(len(latency))[:300]
            known[name] = fit(DeviceRows(table.some(rows), latency[rows].tolist()), table.space)
    return {name: one.predict_ms for name, one in known.items() if name != device}


def transfer_only(table, device, samples, seed):
    """The scores of known devices alone, which a fit keeps only where they win."""
    latency = table.latency_ms[device]
    sampled = np.random.default_rng(seed).permutation(len(latency))[:samples]
    others = np.setdiff1d(np.arange(len(latency)), sampled)
    known = known_devices(table, device).values()
    columns = np.log(np.stack([predict(table.networks) for predict in known], axis=1))
    predict = fit_transfer(columns[sampled], latency[sampled])
    return {"rung": "transfer", **scores(predict(columns[others]), latency[others])}


def ceiling(table, device, samples, seed):
    """What boosted trees reach from most of the table, with all counts and all choices."""
    counts = [one(table.networks) for one in layer_counts(table.space).values()]
    columns = np.hstack([*counts, table.space.features(table.networks)])
    latency = table.latency_ms[device]
    order = np.random.default_rng(seed).permutation(len(latency))
    sampled, others = order[:samples], order[samples:]
    predict = fit_boosted_trees(columns[sampled], np.log(latency[sampled]))
    found = scores(np.exp(predict(columns[others])), latency[others])
    residual = np.log(latency) - predict(columns)
    residual -= residual.mean()
    near = float((residual[:-1] * residual[1:]).mean() / residual.var())
    return {**found, "rung": "boosted trees", "residual_autocorrelation_in_row_order": near}


def jobs(tables, seeds):
    for name, table in tables.items():
        for device in table.latency_ms:
            for seed in range(5):
                yield name, device, 10, seed, "random"
                yield name, device, 10, seed, "chosen"
            for seed in range(seeds):
                yield name, device, 100, seed, "random"
    for device in tables["cells"].latency_ms:
        if device != "fpga":
            for seed in range(3):
                yield "cells", device, 10, seed, "transfer"
                yield "cells", device, 10, seed, "transfer only"
                yield "cells", device, 900, seed, "random"
            yield "cells", device, 10_000, 0, "ceiling"
    for device in tables["mobile"].latency_ms:
        yield "mobile", device, 4_000, 0, "ceiling"


def run(tables, seeds):
    LINES.parent.mkdir(exist_ok=True)
    known = known_lines()
    with LINES.open("a", encoding="utf-8") as lines:
        for key in jobs(tables, seeds):
            if key in known:
                continue
            name, device, samples, seed, how = key
            if how == "ceiling":
                found = ceiling(tables[name], device, samples, seed)
            elif how == "transfer only":
                found = transfer_only(tables[name], device, samples, seed)
            else:
                found = one_fit(tables[name], device, samples, seed, how)
            print(*key, found["rung"], f"{found['spearman']:.4f}", flush=True)
            lines.write(json.dumps({"key": key, **found}) + "\n")
            lines.flush()


def known_lines():
    if not LINES.exists():
        return {}
    lines = LINES.read_text(encoding="utf-8").splitlines()
    # A run that was killed may have left half a line at the end.
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {tuple(row["key"]): row for row in rows}


def summary(known):
    """A row per device, number of samples and way to choose them: means over seeds."""
    groups = {}
    for (name, device, samples, _, how), row in known.items():
        groups.setdefault((name, device, samples, how), []).append(row)
    rows = []
    for (name, device, samples, how), found in groups.items():
        row = {"space": name, "device": device, "samples": samples, "chosen": how}
        row["seeds"] = len(found)
        for column in (
            "spearman",
            "plain_spearman",
            "kendall",
            "mape_percent",
            "plain_mape_percent",
            "within_10_percent",
            "coverage",
            "factor",
            "residual_autocorrelation_in_row_order",
        ):
            if column in found[0]:
                row[column] = float(np.mean([one[column] for one in found]))
        rungs = [one["rung"] for one in found]
        row["usual_rung"] = max(sorted(set(rungs)), key=rungs.count)
        rows.append(row)
    return sorted(
        rows, key=lambda row: (row["space"], row["chosen"], row["samples"], row["device"])
    )


def means(rows):
    """Mean Spearman over the five measured devices of the cells."""
    found = {}
    for row in rows:
        if row["space"] == "cells" and row["device"] != "fpga":
            found.setdefault(f"{row['samples']} {row['chosen']}", []).append(row["spearman"])
    return {name: float(np.mean(values)) for name, values in found.items()}


def over_limit(known):
    """By space and way to choose: the share of networks over their limit, of how many searches."""
    found = {}
    for (name, device, *_), row in known.items():
        if device != "fpga":
            for one in row.get("searches", ()):
                for way, result in one.items():
                    found.setdefault(f"{name}, {way}", []).append(result)
    return {
        way: {
            "searches": len(results),
            "over_percent": 100 * float(np.mean([one["over"] for one in results])),
            "worth_of_best_possible": float(np.mean([one["worth_share"] for one in results])),
        }
        for way, results in found.items()
    }


def speed():
    """CPU seconds to predict 100,000 networks, the first time and again."""
    found = {}
    for name, size in (("mobile-32", 32), ("photos", 160)):
        space = preset(name, channels=3, image_size=size, classes=10)
        rng = np.random.default_rng(0)
        networks = [space.sample_choices(rng) for _ in range(100_000)]
        macs = np.array([space.cost(one).macs for one in networks[:100]])
        bent = (1 + macs / macs.mean()) * np.exp(0.2 * np.sin(8 * macs / macs.max()))
        for samples in (20, 100):
            rows = DeviceRows(networks[:samples], bent[:samples].tolist())
            predictor = fit(rows, space)
            seconds = []
            for _ in range(2):
                started = time.process_time()
                predictor.predict_ms(networks)
                seconds.append(time.process_time() - started)
            found[f"{name}, {predictor.rung}"] = seconds
    return found


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--seeds", type=int, default=12, help="fits from 100 samples per device")
    arguments.add_argument("--only-table", action="store_true")
    given = arguments.parse_args()
    if not given.only_table:
        run({"cells": cells(), "mobile": mobile()}, given.seeds)
    known = known_lines()
    rows = summary(known)
    publish(
        "latency_predictors",
        rows,
        mean_spearman_of_measured_cells=means(rows),
        searches_at_confidence=CONFIDENCE,
        over_limit=over_limit(known),
        seconds_for_100000_networks=speed(),
    )


if __name__ == "__main__":
    main()
