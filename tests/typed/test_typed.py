"""Public names have types, for those who check theirs."""

import importlib.util
import subprocess
import sys

import pytest

import scarce_jax
from tests import tiny


@pytest.mark.skipif(not importlib.util.find_spec("mypy"), reason="mypy is not installed")
def test_a_strict_program_sees_the_types_of_the_public_names():
    found = subprocess.run([sys.executable, "-m", "mypy"], cwd=tiny.ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_program_uses_every_public_name():
    program = (tiny.ROOT / "tests/typed/program.py").read_text()
    assert all(f"{name}(" in program or f"{name} as" in program for name in scarce_jax.__all__)
