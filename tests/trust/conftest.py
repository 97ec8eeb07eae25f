"""One finished run that has every kind of file: nets, records, means, and what describes them."""

import functools
import shutil

import pytest

from scarce_jax import runs
from tests import tiny

CONFIG = tiny.auxiliary_config(steps=2)

train = functools.partial(runs.train, CONFIG, mesh=tiny.mesh())


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_data):
    folder = tmp_path_factory.mktemp("trust") / "run"
    with tiny.little_optimised():
        train(folder, data_dir=tiny_data)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, to damage."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def data(tiny_data, tmp_path):
    """A copy of the prepared dataset, to damage."""
    return shutil.copytree(tiny_data, tmp_path / "data")
