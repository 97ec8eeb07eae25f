"""Peak memory and seconds of `scarce-jax predict` for one large photograph; a JSON line per size and number of classes.

    python benchmarks/predict_memory.py [--megapixels 12 48 100] [--classes 3 21] [--net small|shipped] [--tree DIR]
                                        [--limit GIB] [--work DIR] [--out FILE] [-- PREDICT FLAGS]

A dataset of random squares is prepared and a run is trained for one step, once in --work. Each measurement is a process
of its own: memory is its largest resident set; seconds are from its start to its end, and CPU seconds those of all its
threads; both include the start and the compilation. `shipped` is configs/supervised_folder.py, a PSPNet-50 at
480 x 480; `small` is a PSPNet-18 of a quarter of the width at 96 x 96. --tree measures another checkout of the library
with the same runs. A process that takes more than --limit is ended, and the line says so.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from common import ROOT, append, arguments

SIDES = {12: (3000, 4000), 48: (6000, 8000), 50: (5792, 8688), 100: (8660, 11547)}
"""(height, width) by megapixels."""

SHORT = "--segmenter.batch 2 --segmenter.steps 1 --segmenter.eval-every 0"
TINY = (
    "--segmenter.net.backbone.depth 18 --segmenter.net.backbone.width 16 "
    "--segmenter.size 96 96 --segmenter.augment.crop 64 64"
)
NETS = {"small": f"{SHORT} {TINY}", "shipped": SHORT}
"""Flags of `train` for each net."""

GIB = 2**30


def command(tree: pathlib.Path, words: list[Any]) -> tuple[list[str], dict[str, str]]:
    """The words and the environment of a command line of a checkout."""
    return [sys.executable, "-P", "-m", "scarce_jax", *map(str, words)], {**os.environ, "PYTHONPATH": str(tree)}


def make_run(work: pathlib.Path, classes: int, net: str) -> pathlib.Path:
    """Trains a run for one step, unless it is in `work` already."""
    from PIL import Image

    run, source = work / f"{net}-{classes}", work / f"source-{classes}"
    if (run / "summary.json").exists():
        return run
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (source / split / kind).mkdir(parents=True, exist_ok=True)
        for k in range(4):
            random = np.random.default_rng((k, split == "val"))
            mask = np.kron(random.integers(0, classes, (8, 10)), np.ones((12, 12), int)).astype(np.uint8)
            image = random.integers(0, 256, (classes, 3), np.uint8)[mask]
            Image.fromarray(image).save(source / split / "images" / f"{split}{k}.png")
            Image.fromarray(mask).save(source / split / "masks" / f"{split}{k}.png")
    facts = {"classes": [f"class {k}" for k in range(classes)], "background": 0}
    (source / "classes.json").write_text(json.dumps(facts))
    dataset, data, config = f"folder/squares{classes}", work / "data", ROOT / "configs/supervised_folder.py"
    prepare = ["prepare", dataset, "--source", source, "--data-dir", data, "--again"]
    train = ["train", config, "--dataset", dataset, "--data-dir", data, "--workdir", run, *NETS[net].split()]
    for words in (prepare, train):
        argv, environment = command(ROOT, words)
        subprocess.run(argv, env=environment, check=True, stdout=sys.stderr)
    return run


def make_photograph(work: pathlib.Path, megapixels: int) -> pathlib.Path:
    """A JPEG of random squares, unless it is in `work` already."""
    from PIL import Image

    path = work / f"{megapixels}.jpg"
    if not path.exists():
        height, width = SIDES[megapixels]
        squares = np.random.default_rng(0).integers(0, 256, (-(-height // 50), -(-width // 50), 3), np.uint8)
        Image.fromarray(np.kron(squares, np.ones((50, 50, 1), np.uint8))[:height, :width]).save(path)
    return path


def measured(tree: pathlib.Path, words: list[Any], limit: float) -> dict[str, Any]:
    """Runs a command; its largest resident set, seconds and end."""
    argv, environment = command(tree, words)
    began, ended = time.perf_counter(), None
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        resident = int(pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if ended is None and resident > limit * GIB:
            process.send_signal(signal.SIGKILL)
            ended = f"ended above {limit:g} GiB"
        time.sleep(0.02)
    error = process.stderr.read().strip().splitlines()
    if ended is None and os.waitstatus_to_exitcode(status):
        ended = error[-1] if error else "failed"
    return {
        "peak_gib": round(usage.ru_maxrss * 1024 / GIB, 2),
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "ended": ended or "done",
    }


def main() -> None:
    parser: argparse.ArgumentParser = arguments(__doc__, "predict_memory.jsonl")
    parser.add_argument("--megapixels", type=int, nargs="+", choices=SIDES, default=[12, 48, 100])
    parser.add_argument("--classes", type=int, nargs="+", default=[3, 21])
    parser.add_argument("--net", choices=NETS, default="shipped")
    parser.add_argument("--tree", type=pathlib.Path, default=ROOT)
    parser.add_argument("--limit", type=float, default=14.0, help="GiB")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "predict_memory")
    parser.add_argument("flags", nargs="*", help="further flags of predict, after --")
    options = parser.parse_args()

    from scarce_jax.provenance import versions

    options.work.mkdir(parents=True, exist_ok=True)
    git = ["git", "-C", str(options.tree), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    revision = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    for classes in options.classes:
        run = make_run(options.work, classes, options.net)
        for megapixels in options.megapixels:
            out = options.work / "out"
            shutil.rmtree(out, ignore_errors=True)
            photograph = make_photograph(options.work, megapixels)
            found = measured(options.tree, ["predict", run, photograph, "--out", out, *options.flags], options.limit)
            line = {
                "benchmark": "predict_memory",
                "git_revision": revision,
                "versions": versions(),
                "device": "cpu",
                "cores": os.cpu_count(),
                "net": options.net,
                "flags": options.flags,
                "megapixels": megapixels,
                "size": SIDES[megapixels],
                "classes": classes,
                **found,
            }
            append(options.out, line)


if __name__ == "__main__":
    main()
