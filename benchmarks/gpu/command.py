"""Runs a command of the library, or a script, with the GPU, which it takes after the library is imported.

    python benchmarks/gpu/command.py [--prepare DATASET DATA_DIR] COMMAND ...      such as benchmark CONFIG --json
    python benchmarks/gpu/command.py SCRIPT.py ...

--prepare prepares a dataset first, unless it is prepared, without the GPU.
"""

from __future__ import annotations

import fcntl
import pathlib
import runpy
import sys

from device import taken

from scarce_jax import cli, runs  # noqa: F401  loads all that takes seconds
from scarce_jax.benchmark import benchmark  # noqa: F401


def main(argv: list[str]) -> int:
    if argv[:1] == ["--prepare"]:
        dataset, data_dir, *argv = argv[1:]
        pathlib.Path(data_dir).mkdir(parents=True, exist_ok=True)
        # Two tasks may want the same dataset at once.
        with pathlib.Path(data_dir, "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            cli.main(["prepare", dataset, "--data-dir", data_dir])
    with taken():
        if not argv[0].endswith(".py"):
            return cli.main(argv)
        sys.argv, sys.path[:0] = argv, [str(pathlib.Path(argv[0]).parent)]
        runpy.run_path(argv[0], run_name="__main__")
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
