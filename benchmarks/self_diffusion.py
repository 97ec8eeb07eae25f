"""Times self-diffusion, which makes label maps in worker processes as the `finish` of an `Infer` stage.

    python benchmarks/self_diffusion.py [--photos DIR] [--images N] [--workers N] [--full] [--out FILE]

Images of 321 x 321 (photographs of a folder, or noise) have two of 20 classes, class activation maps of 20 x 20 and
objectness of 41 x 41. The line of results has images/s over all workers for several numbers of SLIC iterations, with
the transfer of images but without the start of the workers, and the median processor time per image. It also has the
milliseconds of the superpixels and of everything on one thread of this process. The load average shows whether the
machine did other work.
"""

from __future__ import annotations

import functools
import itertools
import os
import pathlib
import statistics
import time

import cv2
import numpy as np
from common import append, arguments, rate, seconds_each
from input_pipeline import natural

from scarce_jax.cpu.diffusion import Diffusion, Status
from scarce_jax.cpu.superpixels import cielab, superpixels
from scarce_jax.cpu.workers import Workers
from scarce_jax.data.images import read_image, resize_image
from scarce_jax.provenance import environment

SIZE = (321, 321)


def blob(rng: np.random.Generator, size: int) -> np.ndarray:
    """float32 [size, size] in 0..1: a bump at a random place in the middle half."""
    y, x = rng.uniform(0.25, 0.75, 2) * size
    rows, columns = np.ogrid[:size, :size]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (0.02 * size**2)).astype(np.float32)


def example(rng: np.random.Generator, image: np.ndarray) -> dict[str, np.ndarray]:
    """The fields of one example for a `Diffusion` with 21 classes."""
    tags = np.zeros(21, np.uint8)
    tags[[8, 12]] = 1
    cam = np.zeros((20, 20, 20), np.float16)
    cam[..., 7], cam[..., 11] = blob(rng, 20), blob(rng, 20)
    objectness = np.clip(blob(rng, 41) + 0.1 * rng.normal(size=(41, 41)), 0, 1).astype(np.float16)
    return {"image": resize_image(image, SIZE), "tags": tags, "cam": cam, "objectness": objectness}


def timed(example_id: str, fields: dict, *, settings: Diffusion) -> tuple[int, float]:
    """The status of one image, and its seconds of processor time."""
    began = time.process_time()
    status = settings(example_id, fields)["status"]
    return int(status), time.process_time() - began


def throughput(examples: list[dict], settings: Diffusion, workers: int, seconds: float) -> tuple[dict, list[int]]:
    """Images/s over all workers with the processor time of one image, and the statuses."""
    finish = functools.partial(timed, settings=settings)
    rows = ((str(k), row) for k, row in enumerate(itertools.cycle(examples)))
    outcomes: list[tuple[int, float]] = []
    # The first images wait for the imports of every worker, and then come from the queue.
    ahead = 8 * workers
    with Workers(workers) as pool:
        results = pool.map_ordered(finish, rows, ahead=4 * workers)
        images = rate(lambda _: outcomes.append(next(results)[1]), seconds, ahead=ahead)
    statuses, processor = zip(*outcomes[ahead:], strict=True)
    times = {"images_per_second": round(images, 1), "cpu_ms": round(1e3 * statistics.median(processor), 1)}
    return times, list(statuses)


def main() -> None:
    parser = arguments(__doc__, "self_diffusion.jsonl")
    parser.add_argument("--photos", type=pathlib.Path, help="a folder of JPEG files, in place of noise")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--iterations", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--full", action="store_true", help="longer timings, for the results in docs/performance.md")
    options = parser.parse_args()
    before, rng = os.getloadavg()[0], np.random.default_rng(0)
    if options.photos:
        images = [read_image(path) for path in sorted(options.photos.glob("*.jpg"))[: options.images]]
    else:
        images = [natural(rng) for _ in range(options.images)]
    examples = [example(rng, image) for image in images]
    line = {"benchmark": "self_diffusion", **environment(), "cores": os.cpu_count(), "size": SIZE}
    line |= {"images": "photos" if options.photos else "drawn", "count": len(images), "workers": options.workers}
    rates, statuses = {}, []
    for iterations in options.iterations:
        settings = Diffusion(iterations=iterations)
        times, seen = throughput(examples, settings, options.workers, 15.0 if options.full else 3.0)
        rates[str(iterations)], statuses = times, statuses + seen
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
