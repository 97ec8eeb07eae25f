"""Times the start of a run, up to its first step, on 100 and on 100,000 tiny images.

    python benchmarks/startup.py [--counts 100 100000] [--repeats N] [--resident] [--out FILE]

Every start has a process and a run folder of its own; an earlier one has compiled the step. `seconds` is the time from
the call of `scarce_jax.train` until the first step is logged: the dataset is opened, the label budget drawn, config and
manifest written, the initial values drawn, and the compiled step loaded. The result is the median of the repeats. With
--resident, all images are decoded before the first step; otherwise they stream, as images do that do not fit in memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from common import ROOT, append, arguments

from scarce_jax.data.builders import SegmentationBuilder, prepare
from scarce_jax.data.builders.files import Example
from scarce_jax.data.datasets import SCENES
from scarce_jax.data.images import encode_png
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.provenance import environment

SIDE = 16
DATASET = "startup:TinyImages"


class TinyImages(SegmentationBuilder):
    """`COUNT` images of 16 x 16, each with one class in front of the background."""

    VERSION = tfds.core.Version("1.0.0")
    COUNT = 100

    def describe(self) -> DatasetInfo:
        return dataclasses.replace(SCENES, name="tiny_images", splits={})

    def split_examples(self):
        return {"train": self._draw("train", self.COUNT), "val": self._draw("val", 4)}

    def _draw(self, split: str, count: int):
        rng = np.random.default_rng(0)
        image = encode_png(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
        for k in range(count):
            fine = np.zeros((SIDE, SIDE), np.uint8)
            fine[4:12, 4:12] = 1 + k % (len(SCENES.classes) - 1)
            yield Example(id=f"{split}_{k:06d}", image=image, fine=fine, simulate=False)


def start(data: str, workdir: pathlib.Path, resident: bool) -> float:
    """Seconds from the call of `train` until the first step is logged."""
    import scarce_jax
    from scarce_jax.cli.common import load_config
    from scarce_jax.ops.augment import Augment
    from scarce_jax.training import loop

    config = load_config(ROOT / "configs" / "supervised_scenes.py")
    segmenter = dataclasses.replace(
        config.segmenter, steps=1, batch=2, size=(32, 32), augment=Augment(crop=(32, 32)), eval_every=0
    )
    runtime = dataclasses.replace(config.runtime, log_every=1, workers=1, resident=resident)
    config = dataclasses.replace(config, dataset=DATASET, segmenter=segmenter, runtime=runtime)
    logged: list[float] = []
    write = loop.MetricsLog.write

    def timed(*values: Any) -> None:
        write(*values)
        logged.append(time.perf_counter())

    loop.MetricsLog.write = timed
    began = time.perf_counter()
    scarce_jax.train(config, workdir, data_dir=data)
    return logged[0] - began


def main() -> None:
    parser = arguments(__doc__, "startup.jsonl")
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--resident", action="store_true")
    parser.add_argument("--start", nargs=2, metavar=("DATA", "WORKDIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start:
        data, workdir = options.start
        print(json.dumps(start(data, pathlib.Path(workdir), options.resident)))
        return
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for count in options.counts:
            TinyImages.COUNT = count
            sys.modules["startup"] = sys.modules["__main__"]
            prepare(DATASET, root / str(count))
            command = [sys.executable, __file__, *(["--resident"] if options.resident else []), "--start"]
            times = []
            # The first start compiles, and is not counted.
            for repeat in range(options.repeats + 1):
                words = [*command, str(root / str(count)), str(root / f"run_{count}_{repeat}")]
                run = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
                times.append(json.loads(run.stdout.splitlines()[-1]))
            seconds[str(count)] = round(statistics.median(times[1:]), 2)
    line = {"benchmark": "startup", **environment(), "size": [SIDE, SIDE]}
    append(options.out, {**line, "resident": options.resident, "seconds": seconds})


if __name__ == "__main__":
    main()
