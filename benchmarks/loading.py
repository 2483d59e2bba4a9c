"""How fast are photographs decoded, how soon are they open again, and does training wait for them?

    python benchmarks/loading.py [--data ../shared/data/clothing]

* decoding to 128 pixels on one and two cores, at reduced scale (as it is done) and at full scale;
  the photographs as they are, and some of them enlarged to 12 megapixels as phones write them;
* loading the whole data set: the first time, and from the cache;
* training steps of the space `photos` at 128 pixels, random crops and colours: the share that is
  spent on images, and the share outside forward, backward and optimizer.

CPU time stands beside wall time, as the cores may be shared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from result import publish

from pliant.data import Augmentation, load
from pliant.data import pictures as pictures_module
from pliant.data.cache import CACHE_VARIABLE
from pliant.data.decoding import Decoding, decode_picture, fit_picture, open_picture
from pliant.data.folders import path_pictures
from pliant.networks.supernet import Supernet
from pliant.progress import silent
from pliant.spaces.presets import preset
from pliant.training import loop
from pliant.training.allocator import keep_freed_memory
from pliant.training.sandwich import Sandwich
from pliant.training.schedule import TrainingRecipe

SIZE = 128
LARGE = (3000, 4000)


def decode_fully(content, decoding):
    """As `decode_picture`, but JPEG files at their full size."""
    with open_picture(content) as picture:
        picture.load()
        return fit_picture(picture, decoding).transpose(2, 0, 1)


def decoding_row(paths, name, cores, scale):
    """Rate of decoding these files."""
    os.sched_setaffinity(0, set(sorted(ALL_CORES)[:cores]))
    pictures_module.decode_picture = decode_picture if scale == "reduced" else decode_fully
    pictures = path_pictures(paths)
    started, cpu_started = time.perf_counter(), time.process_time()
    for _ in pictures.decode(Decoding(3, SIZE), silent):
        pass
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    pictures_module.decode_picture = decode_picture
    os.sched_setaffinity(0, ALL_CORES)
    return {
        "what": f"decode {name} to {SIZE} pixels, {scale} scale",
        "cores": cores,
        "images_per_second": len(paths) / seconds,
        "cpu_ms_per_image": 1000 * cpu_seconds / len(paths),
    }


def enlarged(paths, folder):
    """Copies of photographs with 12 megapixels."""
    found = []
    for index, path in enumerate(paths):
        with Image.open(path) as picture:
            large = picture.convert("RGB").resize(LARGE, Image.Resampling.BICUBIC)
        found.append(Path(folder) / f"{index}.jpg")
        large.save(found[-1], quality=92)
    return found


def loading_rows(source):
    """The whole data set, the first time and again."""
    rows = []
    for what in ("load, decoded into the cache", "load again, from the cache"):
        started = time.perf_counter()
        data = load(source, seed=0, image_size=SIZE)
        seconds = time.perf_counter() - started
        count = len(data.train) + len(data.validation) + len(data.test)
        rows.append(
            {
                "what": what,
                "images": count,
                "seconds": seconds,
                "images_per_second": count / seconds,
            }
        )
    return data, rows


def training_row(data, batch, steps):
    """Steps of the photograph space on cached images."""
    space = preset("photos", channels=3, image_size=SIZE, classes=len(data.classes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = Supernet(space, mean=data.mean, std=data.std)
    seconds, overheads, whole = [], [], []
    batches = loop._Batches.__call__

    def timed(self, *arguments):
        started = time.perf_counter()
        found = batches(self, *arguments)
        seconds.append(time.perf_counter() - started)
        return found

    def on_step(log):
        overheads.append(log.overhead)
        whole.append(log.images_per_second)

    loop._Batches.__call__ = timed
    split = data.train.subset(torch.arange(batch * steps).numpy())
    loop.train(
        supernet,
        split,
        Augmentation(flip=True, min_crop_area=0.35, colour_jitter=0.2),
        TrainingRecipe(epochs=1, batch_size=batch),
        Sandwich(space),
        accelerator=loop.make_accelerator("fp32", "cpu"),
        on_step=on_step,
        report_every=max(1, steps // 2),
    )
    loop._Batches.__call__ = batches
    rate = whole[-1]
    return {
        "what": f"training step, {batch} images of {SIZE} pixels",
        "images_per_second": rate,
        "seconds": batch / rate,
        "seconds_for_images": statistics.median(seconds[1:]),
        "share_of_step": statistics.median(seconds[1:]) * rate / batch,
        "share_outside_passes": overheads[-1],
    }


ALL_CORES = os.sched_getaffinity(0)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clothing"))
    parser.add_argument("--photographs", type=int, default=600, help="Decoded for each rate.")
    parser.add_argument("--large", type=int, default=24, help="Photographs of 12 megapixels.")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    keep_freed_memory()
    paths = sorted(arguments.data.rglob("*.jpg"))[: arguments.photographs]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = folder
        large = enlarged(paths[: arguments.large], folder)
        for files, name in ((paths, "photographs"), (large, "photographs of 12 megapixels")):
            for scale in ("reduced", "full"):
                cores = sorted({1, len(ALL_CORES)})
                rows += [decoding_row(files, name, count, scale) for count in cores]
        data, loaded = loading_rows(arguments.data)
        rows += loaded
        rows.append(training_row(data, arguments.batch, arguments.steps))
        publish("loading", rows, data=data.name, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
