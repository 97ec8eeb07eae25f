"""How fast label maps come from self-diffusion, in worker processes as the `finish` of an `Infer` stage runs them.

    python benchmarks/self_diffusion.py [--photos DIR] [--images N] [--workers N] [--full] [--out FILE]

Images of 321 x 321 (photographs of a folder, or drawn), two present classes of 20, maps of 20 x 20 and objectness of
41 x 41. One line says images/s over the workers, sending included and starting the workers not, for several numbers of
SLIC iterations, with the median processor time of an image; and in this process, on one thread, milliseconds of
superpixels alone and of everything. The load average tells whether the machine was doing other work.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import pathlib
import statistics
import time

import cv2
import numpy as np
from common import RESULTS, append, header, seconds_each
from input_pipeline import natural

from scarce_jax.cpu.diffusion import Diffusion, Status
from scarce_jax.cpu.superpixels import cielab, superpixels
from scarce_jax.cpu.workers import map_ordered
from scarce_jax.data.images import read_image, resize_image

SIZE = (321, 321)
GOAL = 10
"""Images/s of two workers on two cores. The paper needs a second an image."""


def blob(rng: np.random.Generator, size: int) -> np.ndarray:
    """float32 [size, size] in 0..1: a bump somewhere in the middle half."""
    y, x = rng.uniform(0.25, 0.75, 2) * size
    rows, columns = np.ogrid[:size, :size]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (0.02 * size**2)).astype(np.float32)


def example(rng: np.random.Generator, image: np.ndarray) -> dict[str, np.ndarray]:
    """The fields that a `Diffusion` takes, with 21 classes."""
    tags = np.zeros(21, np.uint8)
    tags[[8, 12]] = 1
    cam = np.zeros((20, 20, 20), np.float16)
    cam[..., 7], cam[..., 11] = blob(rng, 20), blob(rng, 20)
    objectness = np.clip(blob(rng, 41) + 0.1 * rng.normal(size=(41, 41)), 0, 1).astype(np.float16)
    return {"image": resize_image(image, SIZE), "tags": tags, "cam": cam, "objectness": objectness}


def timed(example_id: str, fields: dict, *, settings: Diffusion) -> tuple[int, float]:
    """Status of one image, and the seconds of processor time that it took."""
    began = time.process_time()
    status = settings(example_id, fields)["status"]
    return int(status), time.process_time() - began


def throughput(examples: list[dict], settings: Diffusion, workers: int, seconds: float) -> tuple[dict, list[int]]:
    """Images/s over the workers and processor time of one, and the statuses that were seen."""
    finish = functools.partial(timed, settings=settings)
    items = ((str(k), row) for k, row in enumerate(itertools.cycle(examples)))
    results = map_ordered(finish, items, workers, ahead=4 * workers)
    # Until every process has imported what it needs, and what was made ahead of the clock is out.
    for _ in range(8 * workers):
        next(results)
    seen, began = [], time.perf_counter()
    while time.perf_counter() - began < seconds:
        seen.append(next(results)[1])
    taken = time.perf_counter() - began
    results.close()
    statuses, processor = zip(*seen, strict=True)
    rate = {"images_per_second": round(len(seen) / taken, 1), "cpu_ms": round(1e3 * statistics.median(processor), 1)}
    return rate, list(statuses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=pathlib.Path, help="a folder of JPEG files, in place of drawn images")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--iterations", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--full", action="store_true", help="longer timings, for a result that is kept")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "self_diffusion.jsonl")
    options = parser.parse_args()
    before, rng = os.getloadavg()[0], np.random.default_rng(0)
    if options.photos:
        images = [read_image(path) for path in sorted(options.photos.glob("*.jpg"))[: options.images]]
    else:
        images = [natural(rng) for _ in range(options.images)]
    examples = [example(rng, image) for image in images]
    line = {"benchmark": "self_diffusion", **header(), "cores": os.cpu_count(), "size": SIZE, "goal": GOAL}
    line |= {"images": "photos" if options.photos else "drawn", "count": len(images), "workers": options.workers}
    rates, statuses = {}, []
    for iterations in options.iterations:
        settings = Diffusion(iterations=iterations)
        rate, seen = throughput(examples, settings, options.workers, 15.0 if options.full else 3.0)
        rates[str(iterations)], statuses = rate, statuses + seen
    line |= {"iterations": Diffusion().iterations, "by_iterations": rates}
    line["status"] = {status.name.lower(): statuses.count(status) for status in Status if status in statuses}

    cv2.setNumThreads(1)
    settings, labs = Diffusion(), [cielab(row["image"]) for row in examples]
    slic = {key: getattr(settings, key) for key in ("segments", "compactness", "iterations")}

    def segment(calls: int) -> None:
        for k in range(calls):
            superpixels(labs[k % len(labs)], **slic)

    def everything(calls: int) -> None:
        for k in range(calls):
            settings("", examples[k % len(examples)])

    for name, work in (("superpixels", segment), ("everything", everything)):
        line[f"{name}_ms"] = round(1e3 * seconds_each(work, shortest=2.0 if options.full else 0.2), 1)
    append(options.out, {**line, "load_average": [round(before, 2), round(os.getloadavg()[0], 2)]})


if __name__ == "__main__":
    main()
