"""Times the networks of this folder on this device; needs Python 3.8 and one runtime.

    pip install onnxruntime        # or: pip install ai-edge-litert
    python run_bench.py            # writes results.json; a later start goes on where this one ended

Stop it at any moment. More threads have their own file: --threads 2 writes results-threads2.json.
Then carry results.json back: pliant device import results.json --out my-board/

Every round times all networks in a new random order, and a small anchor network between them, so
that a device that becomes slower (heat, other programs) is noticed and corrected for. Keep other
programs closed and the device on its charger. Nothing leaves this device but results.json.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import json
import os
import platform
import random
import sys
import time
from typing import Any, Callable, Dict, List, NoReturn, Optional, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
ENDINGS = {"onnxruntime": ".onnx", "litert": ".tflite"}
MODULES = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert.interpreter"}
ANCHORS_PER_ROUND = 4
Run = Callable[[], None]
Opened = Tuple[Run, str]


def open_onnxruntime(path: str, threads: int, batch: int) -> Opened:
    """A function without arguments that runs an ONNX file once, and the runtime's version."""
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else batch for size in source.shape]
    image = numpy.random.RandomState(0).rand(*shape)
    is_picture = source.type == "tensor(uint8)"
    image = (255 * image).astype("uint8") if is_picture else image.astype("float32")
    binding = session.io_binding()
    binding.bind_cpu_input(source.name, image)
    binding.bind_output(session.get_outputs()[0].name)
    return (lambda: session.run_with_iobinding(binding)), onnxruntime.__version__


def open_litert(path: str, threads: int, batch: int) -> Opened:
    """A function without arguments that runs a TFLite file once, and the runtime's version."""
    import ai_edge_litert
    import numpy
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    image = numpy.random.RandomState(0).rand(*source["shape"])
    is_picture = source["dtype"] == numpy.uint8
    image = (255 * image).astype("uint8") if is_picture else image.astype("float32")
    interpreter.set_tensor(source["index"], image)
    return interpreter.invoke, getattr(ai_edge_litert, "__version__", "unknown")


OPENERS = {"onnxruntime": open_onnxruntime, "litert": open_litert}


def find_runtime(wanted: Optional[str]) -> str:
    """The runtime that was named, or the first one that is installed."""
    names = [wanted] if wanted else list(MODULES)
    for name in names:
        if importlib.util.find_spec(MODULES[name].split(".")[0]):
            return name
    return refuse(
        "A runtime is needed, none is installed: pip install onnxruntime, or pip install "
        "ai-edge-litert."
    )


def refuse(message: str) -> NoReturn:
    """End with one sentence and the exit code of wrong input."""
    print(message, file=sys.stderr)
    sys.exit(2)


def machine_name() -> str:
    """The processor as the system calls it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []
    for key in ("model name", "Hardware", "Model"):
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(key)]
        if names:
            return names[0]
    return platform.processor() or platform.machine() or "unknown"


def switches() -> int:
    """Involuntary context switches of this process so far; 0 where the system does not count."""
    resource: Any
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return 0
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw)


def time_model(run: Run, repeats: int, samples: int) -> Dict[str, Any]:
    """Wall and CPU time per run in microseconds, and which samples were interrupted."""
    run()  # warm-up: another model has used the caches
    wall_us, cpu_us, preempted = [], [], []
    for _ in range(samples):
        before, cpu, wall = switches(), time.process_time(), time.perf_counter()
        for _ in range(repeats):
            run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        wall_us.append(1e6 * wall / repeats)
        cpu_us.append(1e6 * cpu / repeats)
        preempted.append(switches() > before)
    return {"wall_us": wall_us, "cpu_us": cpu_us, "preempted": preempted}


def repeats_of(run: Run, sample_ms: float) -> int:
    """How often a short model is run to fill one sample."""
    for _ in range(2):
        run()
    start = time.perf_counter()
    run()
    once_ms = 1e3 * (time.perf_counter() - start)
    return max(1, round(sample_ms / max(once_ms, 1e-3)))


def write(path: str, results: Dict[str, Any]) -> None:
    """Replace the results by a file that is complete at every moment."""
    try:
        with open(path + ".partial", "w", encoding="utf-8") as file:
            json.dump(results, file)
        os.replace(path + ".partial", path)
    except OSError as error:
        refuse("Results are written to a file, {0} cannot be: {1}.".format(path, error.strerror))


def is_complete(row: Any, samples: int) -> bool:
    """Whether a row of an earlier start says what it timed, and has at least so many samples."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("network"), str)
        and isinstance(row.get("round"), int)
        and all(
            isinstance(row.get(key), list) and len(row[key]) >= samples
            for key in ("wall_us", "cpu_us", "preempted")
        )
    )


def complete_rows(rows: List[Any], samples: int) -> List[Any]:
    """Rows that need not be timed again: complete ones of rounds in which the anchor was timed."""
    complete = [row for row in rows if is_complete(row, samples)]
    rounds = {row["round"] for row in complete if row["network"] == "anchor"}
    return [row for row in complete if row["round"] in rounds]


def read(path: str, header: Dict[str, Any], samples: int) -> Dict[str, Any]:
    """What an earlier start left, if it measured the same thing; else nothing."""
    empty = dict(header, rows=[])
    if not os.path.exists(path):
        return empty
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        if all(found[key] == value for key, value in header.items()):
            rows = complete_rows(found["rows"], samples)
            if len(rows) < len(found["rows"]):
                print("{0} incomplete rows are timed again".format(len(found["rows"]) - len(rows)))
            return dict(found, rows=rows)
    except OSError as error:
        refuse("Results are kept in a file, {0} cannot be read: {1}.".format(path, error.strerror))
    except (ValueError, KeyError, TypeError):
        pass
    number = 1
    while os.path.exists("{0}.old{1}".format(path, number)):
        number += 1
    aside = "{0}.old{1}".format(path, number)
    os.replace(path, aside)
    print("results of something else were moved to " + aside)
    return empty


def pin(threads: int) -> bool:
    """Keep the process on one processor where that is possible; a thread must not wander."""
    if threads > 1 or not hasattr(os, "sched_setaffinity"):
        return False
    try:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    except OSError:
        return False
    return True


def within(least: float, most: float, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader of an option: a number from `least` to `most`."""

    def read_option(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:  # NaN is not within either
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(
                "this is {0} from {1} to {2}, received {3!r}".format(what, least, most, text)
            )
        return value

    return read_option


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = os.cpu_count() or 1
    parser.add_argument("--runtime", choices=sorted(MODULES), help="the installed one by default")
    parser.add_argument("--threads", type=within(1, cores, int), default=1)
    parser.add_argument(
        "--rounds", type=within(1, 10000, int), default=10, help="more give a narrower estimate"
    )
    parser.add_argument(
        "--samples", type=within(1, 1000, int), default=5, help="timings per network and round"
    )
    parser.add_argument(
        "--sample-ms", type=within(0.001, 60000, float), default=3.0, help="of one timing"
    )
    parser.add_argument("--out", help="results.json by default, one file per number of threads")
    found = parser.parse_args()
    if found.out is None:
        ending = "" if found.threads == 1 else "-threads{0}".format(found.threads)
        found.out = os.path.join(HERE, "results{0}.json".format(ending))
    folder = os.path.dirname(os.path.abspath(found.out))
    if os.path.isdir(found.out) or not os.path.isdir(folder):
        refuse("--out is a file in a folder that exists, received {0}.".format(found.out))
    return found


def read_bench() -> Dict[str, Any]:
    """Which networks the models are."""
    path = os.path.join(HERE, "bench.json")
    try:
        with open(path, encoding="utf-8") as file:
            bench = json.load(file)
        if isinstance(bench["networks"], dict) and isinstance(bench["batch"], int):
            return dict(bench)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return refuse("{0} is missing or damaged. Unpack the whole bundle again.".format(path))


def find_models(bench: Dict[str, Any], runtime: str) -> Dict[str, str]:
    """Paths of the models by name; those that are missing are said."""
    names: List[str] = list(bench["networks"])
    paths = {name: os.path.join(HERE, "models", name + ENDINGS[runtime]) for name in names}
    models = {name: path for name, path in paths.items() if os.path.exists(path)}
    if "anchor" not in models or len(models) < 2:
        refuse(
            "The bundle has no models for {0} (models/*{1}). Use another runtime, or make the "
            "bundle again where its converter is installed.".format(runtime, ENDINGS[runtime])
        )
    missing = [name for name in names if name not in models]
    if missing:
        print("without these, whose models are missing: " + ", ".join(missing), file=sys.stderr)
    return models


def main() -> None:
    """Time all networks in rounds."""
    arguments = options()
    bench = read_bench()
    runtime = find_runtime(arguments.runtime)
    models = find_models(bench, runtime)
    is_pinned = pin(arguments.threads)
    runs: Dict[str, Run] = {}
    version = "unknown"
    for name, path in models.items():
        try:
            runs[name], version = OPENERS[runtime](path, arguments.threads, bench["batch"])
        except Exception as error:  # each runtime has errors of its own
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            refuse("{0} cannot open {1}: {2}".format(runtime, path, reason))
        print("opened {0} of {1}".format(len(runs), len(models)), end="\r", flush=True)
    header = {
        "results": 1,
        "bench": bench,
        "machine": machine_name(),
        "system": platform.platform(),
        "cores": os.cpu_count() or 1,
        "runtime": runtime,
        "runtime_version": version,
        "threads": arguments.threads,
        "pinned": is_pinned,
    }
    results = read(arguments.out, header, arguments.samples)
    write(arguments.out, results)  # before anything is timed: it may be impossible
    done = {(row["network"], row["round"]) for row in results["rows"]}
    repeats = {name: repeats_of(run, arguments.sample_ms) for name, run in runs.items()}
    gc.disable()
    for number in range(arguments.rounds):
        order = [name for name in models if name != "anchor" and (name, number) not in done]
        if not order:
            continue
        random.shuffle(order)
        step = max(1, len(order) // ANCHORS_PER_ROUND)
        for index, name in enumerate(order):
            for timed in (["anchor"] if index % step == 0 else []) + [name]:
                row = time_model(runs[timed], repeats[timed], arguments.samples)
                row.update(network=timed, round=number, runs=repeats[timed])
                results["rows"].append(row)
            write(arguments.out, results)
        print("round {0} of {1}".format(number + 1, arguments.rounds), flush=True)
    print("done: pliant device import {0} --out my-board/".format(arguments.out))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last network", file=sys.stderr)
        sys.exit(130)
