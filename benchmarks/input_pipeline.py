"""How fast images come: from PNG and JPEG records, resident and streaming, and what augmentation costs.

    python benchmarks/input_pipeline.py [--camvid DIR] [--images N] [--workers N ...] [--full] [--out FILE]

Without --camvid (the SegNet tutorial's layout) the images are drawn: 480 x 360, with detail that makes their PNG and
JPEG files as large as photographs'. One line says, per core and in images/s: decoding one example (image and both
masks), the stream of batches on the host, and batches that were augmented on the device, streamed and resident; and
for one augmentation the time on the device and with OpenCV on one thread of the host, beside the training step of
`--config` at the same batch and crop.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pathlib
import tempfile
import time

import cv2
import jax
import numpy as np
from common import RESULTS, ROOT, append, header, seconds_each
from step_time import measure

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.builders import prepare
from scarce_jax.data.images import read_image, write_png
from scarce_jax.data.source import ExampleField, Reader, Rows, stream
from scarce_jax.ops.augment import MEAN, STD, Augment, augment
from scarce_jax.recipe import Source
from scarce_jax.training.inputs import TrainInput, make_batch

SIZE = (360, 480)
GOAL = 150
"""PNG images of CamVid's size per second and core that the pipeline should decode."""


def natural(rng: np.random.Generator) -> np.ndarray:
    """uint8 [360, 480, 3]: noise of every scale, weaker the finer it is, as in photographs."""
    image = np.zeros((*SIZE, 3), np.float32)
    for octave in range(8):
        coarse = rng.normal(size=(SIZE[0] >> octave or 1, SIZE[1] >> octave or 1, 3)).astype(np.float32)
        image += cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC) * (4.0 + 6.0 * octave)
    return np.clip(image + 110, 0, 255).astype(np.uint8)


def drawn(folder: pathlib.Path, count: int) -> None:
    """Images and masks in the SegNet tutorial's layout."""
    rng = np.random.default_rng(0)
    for name in ("train", "trainannot"):
        (folder / name).mkdir(parents=True)
    lines = []
    for k in range(count):
        write_png(folder / "train" / f"{k:04d}.png", natural(rng))
        blocks = rng.integers(0, 12, (9, 12), np.uint8)
        mask = cv2.resize(blocks, SIZE[::-1], interpolation=cv2.INTER_NEAREST)
        write_png(folder / "trainannot" / f"{k:04d}.png", mask)
        lines.append(f"train/{k:04d}.png trainannot/{k:04d}.png\n")
    (folder / "train.txt").write_text("".join(lines))


def as_jpeg(source: pathlib.Path, target: pathlib.Path, count: int) -> None:
    """The first images as JPEG files of quality 95, with the same masks."""
    (target / "train").mkdir(parents=True)
    (target / "trainannot").mkdir()
    lines = []
    for line in (source / "train.txt").read_text().splitlines()[:count]:
        image, mask = (source.joinpath(*pathlib.PurePosixPath(word).parts[-2:]) for word in line.split())
        cv2.imwrite(str(target / "train" / f"{image.stem}.jpg"), read_image(image)[..., ::-1], [1, 95])
        (target / "trainannot" / mask.name).write_bytes(mask.read_bytes())
        lines.append(f"train/{image.stem}.jpg trainannot/{mask.name}\n")
    (target / "train.txt").write_text("".join(lines))


def decoding(rows: Rows, seconds: float) -> float:
    """Images/s of one thread that reads and decodes examples."""
    rows[0]
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        rows[done % len(rows)]
        done += 1
    return done / (time.perf_counter() - began)


def streaming(rows: Rows, batch: int, threads: int, seconds: float) -> float:
    """Images/s of batches on the host; those that were made ahead of the clock are left out."""
    batches = stream(lambda k: rows[k % len(rows)], 10_000_000 // batch * batch, batch, threads=threads)
    for _ in range(6):
        next(batches)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        next(batches)
        done += batch
    return done / (time.perf_counter() - began)


def augmented(rows: Rows, config: Augment, batch: int, threads: int, resident: bool, steps: int) -> float:
    """Images/s of batches that were decoded or are resident, and were augmented on the device."""
    mesh = mesh_lib.make_mesh(jax.devices()[:1])
    source = Source(
        dataset="camvid",
        split="train",
        labels=("fine",),
        batch=batch,
        size=SIZE,
        transform=lambda row, key, consts: augment(row, key, config),
    )
    made = TrainInput(source, rows, 0, "benchmark", mesh, threads, resident)
    program = jax.jit(lambda draw, key: make_batch(mesh, source.transform, draw, key, {}))
    batches = made.batches(0, 100 * steps)
    for draw in itertools.islice(batches, 6):
        jax.block_until_ready(program(draw, made.key))
    began, pending = time.perf_counter(), None
    for draw in itertools.islice(batches, steps):
        found = program(draw, made.key)
        jax.block_until_ready(pending)
        pending = found
    jax.block_until_ready(pending)
    return batch * steps / (time.perf_counter() - began)


def on_device(rows: Rows, config: Augment, batch: int) -> float:
    """Seconds of one image's augmentation inside a batch, without transfers."""
    given = {key: np.stack([rows[k][key] for k in range(batch)]) for key in rows[0]}
    given, keys = jax.device_put((given, jax.random.split(jax.random.key(0), batch)))
    program = jax.jit(jax.vmap(lambda row, key: augment(row, key, config)))

    def work(calls: int) -> None:
        found = None
        for _ in range(calls):
            found = program(given, keys)
        jax.block_until_ready(found)

    return seconds_each(work) / batch


def on_host(rows: Rows, config: Augment) -> float:
    """Seconds of one image's rotation, scaling, crop and normalisation with OpenCV on one thread."""
    cv2.setNumThreads(1)
    row, (height, width) = rows[0], config.crop
    mean, scale = np.float32(MEAN) * 255, 1 / (255 * np.float32(STD))
    turn = cv2.getRotationMatrix2D((SIZE[1] / 2, SIZE[0] / 2), 5.0, 1.2)

    def work(calls: int) -> None:
        for _ in range(calls):
            image = cv2.warpAffine(row["image"], turn, (width, height), flags=cv2.INTER_LINEAR)
            cv2.warpAffine(row["label"], turn, (width, height), flags=cv2.INTER_NEAREST, borderValue=255)
            (image.astype(np.float32) - mean) * scale

    return seconds_each(work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=pathlib.Path, help="CamVid, in place of drawn images")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--config", type=pathlib.Path, default=ROOT / "configs/detailer_camvid_small.py")
    parser.add_argument("--stage", default="detailer")
    parser.add_argument("--full", action="store_true", help="longer timings, for a result that is kept")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "input_pipeline.jsonl")
    options = parser.parse_args()
    seconds, steps = (10.0, 100) if options.full else (2.0, 10)

    # First, so that the step has the device for itself.
    step = measure(options.config.resolve(), "train", steps, ["--stage", options.stage])
    (source,) = step["global_batch"]
    batch, crop = step["global_batch"][source], tuple(step["crop"][source])
    config = Augment(crop=crop, scale=(0.5, 2.0), rotate=10.0)
    line = {"benchmark": "input_pipeline", **header(), "cores": os.cpu_count(), "size": SIZE, "crop": crop}
    line |= {"batch": batch, "images": "camvid" if options.camvid else "drawn", "count": options.images}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        png = options.camvid
        if png is None:
            png = root / "png"
            drawn(png, options.images)
        as_jpeg(png, root / "jpeg", options.images)
        for kind, place in (("png", png), ("jpeg", root / "jpeg")):
            prepare("camvid", root / f"prepared_{kind}", source=place)
            reader = Reader("camvid", "train", str(root / f"prepared_{kind}"))
            indices = range(min(options.images, len(reader)))
            rows = Rows(reader=reader, indices=indices, labels=(ExampleField("fine"),), size=SIZE)
            found = {"one_thread": decoding(rows, seconds)}
            for threads in sorted(set(options.workers)):
                found[f"stream_{threads}"] = streaming(rows, batch, threads, seconds)
                found[f"stream_augmented_{threads}"] = augmented(rows, config, batch, threads, False, steps)
            line[kind] = {key: round(value, 1) for key, value in found.items()}
        resident = augmented(rows, config, batch, 1, True, 10 * steps)
        line["resident_augmented"] = round(resident, 1)
        device, host = on_device(rows, config, batch), on_host(rows, config)
    image = 1 / step["images_per_second_per_device"]
    line |= {
        "goal_png_per_core": GOAL,
        "augment_ms_per_image": round(1e3 * device, 4),
        "opencv_ms_per_image": round(1e3 * host, 4),
        "step": {"config": step["config"], "stage": step["stage"], "ms_per_image": round(1e3 * image, 4)},
        "augment_share_of_step": round(device / image, 5),
    }
    append(options.out, line)


if __name__ == "__main__":
    main()
