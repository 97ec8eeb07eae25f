"""`benchmark --target` and `train --dry-run --target`: flags and what is printed, with this machine as the target."""

import jax
import pytest

from scarce_jax.benchmark import targets
from tests.cli.conftest import CONFIGS, shrunk


@pytest.fixture
def at_hand(monkeypatch):
    """Compiles for this machine in place of the target."""
    monkeypatch.setattr(targets, "devices", lambda gpu, count: jax.devices()[:count])
    monkeypatch.setattr(targets, "without_devices", lambda: None)


def test_the_command_prints_a_record(command, at_hand, tmp_path):
    argv = [CONFIGS / "detailer_scenes.py", *shrunk("detailer", "classifier"), "--budget.fine", 8]
    done = command("benchmark", *argv, "--data-dir", tmp_path, "--target", "h100", "--json")
    assert done.status == 0, done.err
    assert done.json["stages"][0]["stage"] == "detailer" and done.json["dtype"] == "bfloat16"
    assert "compiled for 1 x NVIDIA H100 80GB HBM3; nothing ran" in done.out and "3,000 GB/s (90%" in done.out
    done = command("train", *argv, "--data-dir", tmp_path, "--dry-run", "--target", "4090")
    assert "detailer: batch 8 at 32 x 32 takes" in done.out and "fits h100" in done.out


def test_a_methods_own_target_is_another_flag(command, at_hand, tmp_path):
    argv = ["benchmark", CONFIGS / "supervised_scenes.py", *shrunk("segmenter"), "--data-dir", tmp_path, "--json"]
    argv = [*argv, "--target", "masks", "--target", "a100"]
    assert command(*argv).json["target"] == "a100"


def test_flags_that_need_a_target_are_refused(refused):
    refused("benchmark", CONFIGS / "detailer_scenes.py", "--largest-batch", holds=["--largest-batch", "--target"])
    refused("train", CONFIGS / "detailer_scenes.py", "--target", "h100", holds=["--target", "--dry-run"])
    refused("benchmark", CONFIGS / "detailer_scenes.py", "--target", "h1000", holds=["h1000", "did you mean"])


@pytest.mark.parametrize(
    ("flags", "holds"),
    [(["--target", "h100", "--steps", 3], "--steps 3: --target times no step"), (["--native", 9, 9], "--native: the")],
)
def test_flags_that_would_do_nothing_are_usage_errors(flags, holds, refused):
    refused("benchmark", CONFIGS / "detailer_scenes.py", *flags, status=2, holds=[holds])


def test_a_target_without_a_name(command):
    done = command("benchmark", CONFIGS / "detailer_scenes.py", "--target")
    assert done.status == 2 and "Missing value for argument '--gpu'" in done.err
