"""Times the training steps and predictions of several configs; one JSON line each.

    python benchmarks/step_time.py [CONFIG ...] [--full] [--modes train infer] [--steps N] [--out FILE]

Every line is a record of `scarce-jax benchmark`, which runs in a process of its own, so that the peak memory is that of
one config. Without --full, every stage is shrunk to 2 images of 64 x 64, which takes seconds on any machine.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

from common import ROOT, append, arguments

CONFIGS = ["configs/detailer_cityscapes.py", "configs/detailer_camvid.py", "configs/detailer_scenes.py"]
SMALL = {"batch": "2", "size": "64 64", "augment.crop": "64 64", "eval-batch": "2"}


def small(config: pathlib.Path) -> list[str]:
    """Flags that shrink every stage of a config."""
    from scarce_jax.cli.common import load_config
    from scarce_jax.methods.common import SegmenterStage

    stages = [name for name, value in vars(load_config(config)).items() if isinstance(value, SegmenterStage)]
    return [word for stage in stages for key, value in SMALL.items() for word in (f"--{stage}.{key}", *value.split())]


def measure(config: pathlib.Path, mode: str, steps: int, flags: list[str], timeout: float | None = None) -> dict:
    """One record of the command `benchmark`.

    Raises:
      subprocess.CalledProcessError, subprocess.TimeoutExpired: the command failed, or took more than `timeout` seconds.
    """
    argv = [sys.executable, "-m", "scarce_jax", "benchmark", str(config), "--mode", mode, "--steps", str(steps)]
    done = subprocess.run(
        [*argv, "--json", *flags], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=timeout
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = arguments(__doc__, "step_time.jsonl")
    parser.add_argument("configs", nargs="*", type=pathlib.Path, default=[ROOT / name for name in CONFIGS])
    parser.add_argument("--full", action="store_true", help="the configs' own sizes, for a GPU")
    parser.add_argument("--modes", nargs="+", choices=("train", "infer"), default=["train"])
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    failed = []
    for config in options.configs:
        flags = [] if options.full else small(config)
        for mode in options.modes:
            own = [] if options.full or mode == "train" else ["--batch", "2"]
            try:
                line = measure(config.resolve(), mode, options.steps, [*flags, *own])
            except subprocess.CalledProcessError as error:
                failed.append(f"{config} {mode}: exit status {error.returncode}")
                continue
            append(options.out, {"small": not options.full, **line})
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
