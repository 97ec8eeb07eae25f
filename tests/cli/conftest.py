"""One tiny run of each shipped method, trained through the command line and shared by every test of it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable

import pytest

from scarce_jax.cli import main
from tests import tiny

CONFIGS = tiny.ROOT / "configs"


def shrunk(*stages: str, steps: int = 2) -> list[str]:
    """Overrides that make the training stages of a shipped config tiny."""
    flags = {
        "steps": steps, "batch": 8, "size": "32 32", "augment.crop": "32 32", "net": "tiny", "eval-every": 0,
        "eval-batch": 1,
    }  # fmt: skip
    return [word for s in stages for name, value in flags.items() for word in (f"--{s}.{name}", *str(value).split())]


@dataclasses.dataclass(frozen=True)
class Finished:
    """What a command left: exit status and streams."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def command(capfd):
    """Runs one command in this process."""

    def run(*argv: object) -> Finished:
        capfd.readouterr()
        status = main([str(word) for word in argv])
        return Finished(status, *capfd.readouterr())

    return run


@pytest.fixture
def refused(command):
    """Runs a command that must answer with one clear message and exit 1; gives the message."""

    def run(*argv: object, status: int = 1, holds: Iterable[str] = ()) -> str:
        found = command(*argv)
        assert found.status == status, found
        assert found.out == ""
        assert "Traceback" not in found.err
        messages = [line for line in found.err.splitlines() if line.startswith("scarce-jax: ")]
        assert len(messages) == 1, found.err
        message = found.err[found.err.index("scarce-jax: ") :]
        for part in holds:
            assert part in message, message
        return message

    return run


def train(run: pathlib.Path, data: pathlib.Path, config: str, *flags: object) -> pathlib.Path:
    """Trains a shipped config with overrides; gives the run folder."""
    argv = ["train", CONFIGS / config, "--workdir", run, "--data-dir", data, "--budget.fine", 8, *flags]
    argv += ["--runtime.log-every", 1, "--runtime.workers", 1]
    assert main([str(word) for word in argv]) == 0
    return run


@pytest.fixture(scope="session")
def detailer_run(tmp_path_factory, tiny_data) -> pathlib.Path:
    """configs/detailer_scenes_students.py, which is detailer_scenes.py with students, with --compare, shrunk."""
    flags = [*shrunk("detailer", "classifier", "student"), "--student.images", 4, "--compare"]
    return train(tmp_path_factory.mktemp("runs") / "detailer", tiny_data, "detailer_scenes_students.py", *flags)


@pytest.fixture(scope="session")
def supervised_run(tmp_path_factory, tiny_data) -> pathlib.Path:
    """configs/supervised_scenes.py, shrunk."""
    return train(
        tmp_path_factory.mktemp("runs") / "supervised", tiny_data, "supervised_scenes.py", *shrunk("segmenter")
    )
