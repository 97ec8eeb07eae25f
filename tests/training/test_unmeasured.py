"""Results that measure masks of a split without masks."""

import logging

import pytest

from scarce_jax.data.budget import Budget
from scarce_jax.data.builders import load_info, prepare
from scarce_jax.methods.common import unaugmented
from scarce_jax.recipe import Eval, Recipe, Source
from scarce_jax.training.run import run
from tests import tiny
from tests.data.tagged_files import write_tree

DATASET = "imagenet/mine"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset whose images have tags and no masks."""
    folder = tmp_path_factory.mktemp("unmeasured")
    prepare(DATASET, folder / "data", write_tree(folder / "source"))
    return folder / "data"


def empty_run(data, folder, **evaluations):
    return run(
        Recipe(stages=(), results=evaluations),
        load_info(DATASET, data),
        run_dir=folder,
        data_dir=str(data),
        header={"method": "none"},
        seed=0,
        budget=Budget(),
        train_split="train",
        runtime=tiny.RUNTIME,
        mesh=tiny.mesh(1),
    )


def measured(**fields):
    source = Source(dataset=DATASET, split="val", batch=2, size=(16, 16), transform=unaugmented, **fields)
    return Eval(name="masks", predict=None, source=source)


def test_they_are_left_out_and_told(data, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "scarce_jax"):
        summary = empty_run(data, tmp_path / "run", masks=measured(labels=("fine",)))
    assert summary["results"] == {}
    assert "not measured, because split val has no fine mask: masks" in caplog.text
