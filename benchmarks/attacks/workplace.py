"""The folder that the attacks work in: tiny data, a config of every method, and what unbroken commands leave."""

from __future__ import annotations

import functools
import os
import pathlib
import time
from typing import Any

from common import append

from attacks.forks import Attempt, Blow, attempt, in_child

METHODS = {
    "supervised": "eval_every=2",
    "detailer": "compare=True, student=True, eval_every=4",
    "auxiliary": "compare=True",
    "transfer": "compare=True",
    "decoupled": "compare=True, reestimate=1",
    "three_step": "",
}
"""Arguments of the config of every method in `tests.tiny`: all stages of each."""

CONFIG = """from tests import tiny

runtime = tiny.Runtime(checkpoint_every=2, log_every=1, workers=2)
config = tiny.{method}_config({arguments}{comma}runtime=runtime)
"""

PART = 4
"""Images of a part of records, in place of 64: there are 12 training images."""


class Workplace:
    """A folder with prepared `scenes` of few images, configs, and finished runs that are made when asked for.

    Attributes:
      folder: the folder.
      data: the data folder.
      until: time at which no further attempt should start, as `time.monotonic` counts.
    """

    def __init__(self, folder: pathlib.Path, out: pathlib.Path, seed: int, minutes: float | None):
        self.folder, self.data, self.seed, self._out = (
            folder.absolute(),
            folder.absolute() / "data",
            seed,
            out.absolute(),
        )
        self._began = time.monotonic()
        self.until = self._began + 60 * minutes if minutes else float("inf")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(self.folder / "cache")
        self.folder.mkdir(parents=True, exist_ok=True)
        # A command without --workdir makes a folder here.
        os.chdir(self.folder)
        _shrink()
        if not self.data.exists():
            self.run("prepare", "scenes", "--data-dir", str(self.data))

    def run(self, *argv: str) -> Attempt:
        """Runs a command unbroken; raises RuntimeError if its status is not 0."""
        done = attempt(argv, self.folder, self.folder / "log.txt")
        if done.status:
            raise RuntimeError(f"scarce-jax {' '.join(argv)}: status {done.status}\n{done.text[-3000:]}")
        return done

    def attempt(self, argv: list[str], root: pathlib.Path, blow: Blow) -> Attempt:
        """Runs a command that may be killed; see `forks.attempt`."""
        return attempt(argv, root, self.folder / "log.txt", blow)

    def config(self, method: str) -> str:
        """The path of a config file of a method."""
        path, arguments = self.folder / f"{method}.py", METHODS[method]
        path.write_text(CONFIG.format(method=method, arguments=arguments, comma=", " if arguments else ""))
        return str(path)

    def train(self, config: str, run: pathlib.Path, *flags: str) -> list[str]:
        """The command that trains a config in a folder."""
        return ["train", config, "--workdir", str(run), "--data-dir", str(self.data), *flags]

    def finished(self, method: str) -> pathlib.Path:
        """The folder of a finished run of a method."""
        run = self.folder / "finished" / method
        if not (run / "summary.json").exists():
            self.run(*self.train(self.config(method), run))
        return run

    def images(self) -> pathlib.Path:
        """A folder with the images of the validation split."""
        folder = self.folder / "images"
        if not folder.exists():
            in_child(_write_images, self.data, folder)
        return folder

    def append(self, line: dict[str, Any]) -> None:
        """Appends a line of results, with the seconds since the attack began, the seed, versions and revision."""
        elapsed = round(time.monotonic() - self._began)
        append(self._out, {**line, "elapsed": elapsed, "seed": self.seed, **_made_with()})

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.until


@functools.cache
def _made_with() -> dict[str, Any]:
    from scarce_jax.provenance import git_revision, versions

    return {"git_revision": git_revision(), "versions": versions(), "cores": os.cpu_count()}


def _shrink() -> None:
    """Few images, and short parts of records, in all processes that are forked from now on."""
    import scarce_jax.cli.train
    import scarce_jax.runs
    import scarce_jax.sweep  # noqa: F401  imported once for all children
    from scarce_jax.data.builders.scenes import Scenes
    from scarce_jax.training import infer
    from tests import tiny

    Scenes.SIZES, infer.PART = tiny.SIZES, PART


def _write_images(data: pathlib.Path, folder: pathlib.Path) -> None:
    """The images of the validation split as files."""
    from scarce_jax.data.images import encode_png
    from scarce_jax.data.source import ExampleField, Reader, Rows

    reader = Reader("scenes", "val", str(data))
    rows = Rows(reader=reader, indices=range(len(reader)), labels=(ExampleField("fine"),), size=None)
    folder.mkdir()
    for k in range(len(rows)):
        (folder / f"{k}.png").write_bytes(encode_png(rows.example(k)["image"]))
