"""Times the input pipeline: PNG and JPEG records, streaming and resident, and augmentation.

    python benchmarks/input_pipeline.py [--camvid DIR] [--images N] [--workers N ...] [--full] [--out FILE]

--camvid DIR has the layout of the SegNet tutorial. Without it, the images are noise of 480 x 360 pixels with so much
detail that their PNG and JPEG files are as large as those of photographs. The line of results has, in images/s:
decoding examples (image and both masks) on one thread, batches on the host, and batches that are augmented on the
device, streamed and resident. It also has the time to augment one image, on the device and with OpenCV on one thread,
and the time of the training step of `--config` at the same batch and crop.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator

import cv2
import jax
import numpy as np
from common import ROOT, append, arguments, dispatches, rate, seconds_each

from scarce_jax import mesh as mesh_lib
from scarce_jax.benchmark.timing import pace
from scarce_jax.data.builders import prepare
from scarce_jax.data.images import encode_png, read_image
from scarce_jax.data.source import ExampleField, Reader, Rows, stream
from scarce_jax.ops.augment import MEAN, STD, Augment, augment
from scarce_jax.provenance import environment
from scarce_jax.recipe import Source
from scarce_jax.training.batches import TrainInput, make_batch

SIZE = (360, 480)


def measure(config: pathlib.Path, steps: int, flags: list[str]) -> dict:
    """The record of `scarce-jax benchmark` of a config's train step, in a process of its own."""
    argv = [sys.executable, "-m", "scarce_jax", "benchmark", str(config), "--steps", str(steps), "--json", *flags]
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def natural(rng: np.random.Generator) -> np.ndarray:
    """uint8 [360, 480, 3]: noise of every scale; as in photographs, finer scales are weaker."""
    image = np.zeros((*SIZE, 3), np.float32)
    for octave in range(8):
        coarse = rng.normal(size=(SIZE[0] >> octave or 1, SIZE[1] >> octave or 1, 3)).astype(np.float32)
        image += cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC) * (4.0 + 6.0 * octave)
    return np.clip(image + 110, 0, 255).astype(np.uint8)


def write_layout(folder: pathlib.Path, files: Iterable[tuple[str, bytes, bytes]]) -> pathlib.Path:
    """Writes (name, image file, mask file) of each example in the SegNet tutorial's layout; returns the folder."""
    for name in ("train", "trainannot"):
        (folder / name).mkdir(parents=True)
    lines = []
    for name, image, mask in files:
        mask_name = f"{pathlib.Path(name).stem}.png"
        (folder / "train" / name).write_bytes(image)
        (folder / "trainannot" / mask_name).write_bytes(mask)
        lines.append(f"train/{name} trainannot/{mask_name}\n")
    (folder / "train.txt").write_text("".join(lines))
    return folder


def drawn(count: int) -> Iterator[tuple[str, bytes, bytes]]:
    """PNG files of noise, with masks of random blocks."""
    rng = np.random.default_rng(0)
    for k in range(count):
        image, blocks = natural(rng), rng.integers(0, 12, (9, 12), np.uint8)
        mask = cv2.resize(blocks, SIZE[::-1], interpolation=cv2.INTER_NEAREST)
        yield f"{k:04d}.png", encode_png(image), encode_png(mask)


def as_jpeg(source: pathlib.Path, count: int) -> Iterator[tuple[str, bytes, bytes]]:
    """The first images of a folder as JPEG files of quality 95, with the same masks."""
    for line in (source / "train.txt").read_text().splitlines()[:count]:
        image, mask = (source.joinpath(*pathlib.PurePosixPath(word).parts[-2:]) for word in line.split())
        encoded = cv2.imencode(".jpg", read_image(image)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        yield f"{image.stem}.jpg", encoded.tobytes(), mask.read_bytes()


def streaming(rows: Rows, batch: int, threads: int, seconds: float) -> float:
    """Images/s of batches on the host, without the batches that are read ahead."""
    batches = stream(lambda k: rows[k % len(rows)], 10_000_000 // batch * batch, batch, threads=threads)
    return batch * rate(lambda _: next(batches), seconds, ahead=6)


def augmented(rows: Rows, config: Augment, batch: int, threads: int, resident: bool, steps: int) -> float:
    """Images/s of batches that are streamed or resident, and augmented on the device."""
    mesh = mesh_lib.make_mesh(jax.devices()[:1])
    source = Source(
        dataset="camvid",
        split="train",
        labels=("fine",),
        batch=batch,
        size=SIZE,
        transform=lambda row, key, consts: augment(row, key, config),
    )
    train_input = TrainInput(source, rows, 0, "benchmark", mesh, threads, resident)
    program = jax.jit(lambda draw, key: make_batch(mesh, source.transform, draw, key, {}))
    batches = train_input.batches(0, 100 * steps)
    return batch * steps / sum(pace(lambda: program(next(batches), train_input.key), steps))


def on_device(rows: Rows, config: Augment, batch: int) -> float:
    """Seconds to augment one image of a batch, without transfers."""
    stacked = {key: np.stack([rows[k][key] for k in range(batch)]) for key in rows[0]}
    values = jax.device_put((stacked, jax.random.split(jax.random.key(0), batch)))
    program = jax.jit(jax.vmap(lambda row, key: augment(row, key, config)))
    return seconds_each(dispatches(program, *values)) / batch


def on_host(rows: Rows, config: Augment) -> float:
    """Seconds to rotate, scale, crop and normalise one image with OpenCV on one thread."""
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
    parser = arguments(__doc__, "input_pipeline.jsonl")
    parser.add_argument("--camvid", type=pathlib.Path, help="CamVid, in place of noise")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--config", type=pathlib.Path, default=ROOT / "configs/detailer_camvid_small.py")
    parser.add_argument("--stage", default="detailer")
    parser.add_argument("--full", action="store_true", help="longer timings, for the results in docs/performance.md")
    options = parser.parse_args()
    seconds, steps = (10.0, 100) if options.full else (2.0, 10)

    # The step comes first, while it has the device for itself.
    step = measure(options.config.resolve(), steps, ["--stage", options.stage])
    (source,) = step["global_batch"]
    batch, crop = step["global_batch"][source], tuple(step["crop"][source])
    config = Augment(crop=crop, scale=(0.5, 2.0), rotate=10.0)
    line = {"benchmark": "input_pipeline", **environment(), "cores": os.cpu_count(), "size": SIZE, "crop": crop}
    line |= {"batch": batch, "images": "camvid" if options.camvid else "drawn", "count": options.images}
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        png = options.camvid or write_layout(root / "png", drawn(options.images))
        jpeg = write_layout(root / "jpeg", as_jpeg(png, options.images))
        for kind, folder in (("png", png), ("jpeg", jpeg)):
            prepare("camvid", root / f"prepared_{kind}", source=folder)
            reader = Reader("camvid", "train", str(root / f"prepared_{kind}"))
            indices = range(min(options.images, len(reader)))
            rows = Rows(reader=reader, indices=indices, labels=(ExampleField("fine"),), size=SIZE)
            rates = {"one_thread": rate(lambda k, rows=rows: rows[k % len(rows)], seconds)}
            for threads in sorted(set(options.workers)):
                rates[f"stream_{threads}"] = streaming(rows, batch, threads, seconds)
                rates[f"stream_augmented_{threads}"] = augmented(rows, config, batch, threads, False, steps)
            line[kind] = {key: round(value, 1) for key, value in rates.items()}
        resident = augmented(rows, config, batch, 1, True, 10 * steps)
        line["resident_augmented"] = round(resident, 1)
        device, host = on_device(rows, config, batch), on_host(rows, config)
    image = 1 / step["images_per_second_per_device"]
    line |= {
        "augment_ms_per_image": round(1e3 * device, 4),
        "opencv_ms_per_image": round(1e3 * host, 4),
        "step": {"config": step["config"], "stage": step["stage"], "ms_per_image": round(1e3 * image, 4)},
        "augment_share_of_step": round(device / image, 5),
    }
    append(options.out, line)


if __name__ == "__main__":
    main()
