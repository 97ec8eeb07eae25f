"""Runs every benchmark for a GPU host in one call of under ten minutes.

    python benchmarks/gpu_session.py [--out DIR] [--minutes M] [--torch-python PYTHON] [--tiny]

Each task has a process of its own, which gets the remaining time; the most important task comes first. The tasks are
the ResNet-101 detailer of configs/detailer_cityscapes.py at 340 x 340 in bfloat16 (200 steps on random images), larger
batches, the comparison with PyTorch (which fails at once if --torch-python does not have it), prediction at 1024 x
2048, the small net with one and with 20 steps per dispatch, deterministic kernels, and the input pipeline.
DIR/session.json has the status, seconds and record of every task, and is written after each, so that a session that is
cut short keeps its results. DIR/*.jsonl hold the lines of the scripts. --tiny runs the same tasks at sizes for a CPU,
to test that they run.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

from common import ROOT

DETAILER, SMALL_NET = "configs/detailer_cityscapes.py", "configs/detailer_camvid_small.py"
TINY = [
    "--detailer.batch", "2", "--detailer.size", "32", "32", "--detailer.augment.crop", "32", "32", "--detailer.net",
    "tiny",
]  # fmt: skip


def tasks(out: pathlib.Path, torch_python: str, tiny: bool) -> dict[str, list[str]]:
    """Name -> command line of each task, the most important first."""

    def benchmark(config: str, steps: int, *flags: str) -> list[str]:
        words = [sys.executable, "-m", "scarce_jax", "benchmark", config, "--json"]
        return [*words, "--steps", str(3 if tiny else steps), *flags, *(TINY if tiny else [])]

    def script(name: str, *flags: str) -> list[str]:
        words = [sys.executable, f"benchmarks/{name}.py", "--out", str(out / f"{name}.jsonl"), *flags]
        return words if tiny else [*words, "--full"]

    native = ("64", "96") if tiny else ("1024", "2048")
    batches = ("4",) if tiny else ("16", "32")
    return {
        "detailer": benchmark(DETAILER, 200),
        **{f"detailer_batch_{n}": benchmark(DETAILER, 50, "--batch", n) for n in batches},
        "vs_torch": script("vs_torch", "--torch-python", torch_python),
        "predict": benchmark(DETAILER, 20, "--mode", "infer", "--native", *native, *(["--batch", "2"] * tiny)),
        "small_net": benchmark(SMALL_NET, 200),
        "small_net_20_steps_at_once": benchmark(SMALL_NET, 20, "--runtime.steps-per-dispatch", "20"),
        "detailer_deterministic": benchmark(DETAILER, 50, "--runtime.deterministic"),
        "input_pipeline": script("input_pipeline", *(["--images", "6"] * tiny)),
    }


def run(words: list[str], limit: float) -> dict[str, Any]:
    """Runs a command, and returns its status, seconds, the JSON object that ends its output, and its last errors."""
    began = time.perf_counter()
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=limit)
        status, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        status, out, err = None, "", (error.stderr or b"").decode(errors="replace") + f"\nstopped after {limit:.0f} s"
    outcome = {"command": words, "status": status, "seconds": round(time.perf_counter() - began, 1)}
    lines = out.strip().splitlines()
    record = json.loads(lines[-1]) if status == 0 and lines else None
    return {**outcome, "record": record, "errors": err[-2000:] if record is None else ""}


def device() -> str | None:
    """The GPUs by nvidia-smi, None without it."""
    if shutil.which("nvidia-smi") is None:
        return None
    fields = "name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit"
    query = subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv"], capture_output=True, text=True)
    return query.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu_session"))
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", nargs="+", help="names of tasks")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    end = time.perf_counter() + 60 * options.minutes
    session: dict[str, Any] = {"tiny": options.tiny, "device": device(), "tasks": {}}
    planned = tasks(out, options.torch_python, options.tiny)
    if options.only:
        planned = {name: planned[name] for name in options.only}
    for name, words in planned.items():
        left = end - time.perf_counter()
        if left < 10:
            outcome: dict[str, Any] = {"status": None, "errors": "no time was left"}
        else:
            outcome = run(words, left)
        session["tasks"][name] = outcome
        (out / "session.json").write_text(json.dumps(session, indent=1) + "\n")
        record = outcome.get("record") or {}
        figure = record.get("images_per_second", record.get("torch_over_jax", record.get("png")))
        print(f"{name}: status {outcome['status']}, {outcome.get('seconds', 0)} s, {figure}", flush=True)
    sys.exit(any(outcome["status"] != 0 for outcome in session["tasks"].values()))


if __name__ == "__main__":
    main()
