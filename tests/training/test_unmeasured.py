"""Results that measure masks of a split without masks."""

import dataclasses
import logging

import pytest

from scarce_jax import methods
from scarce_jax.data.budget import Budget
from scarce_jax.data.builders import load_info, prepare
from scarce_jax.errors import InputError
from scarce_jax.methods.inputs import unaugmented
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


def run_recipe(data, folder, recipe):
    return run(
        recipe,
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
        recipe = Recipe(stages=(), results={"masks": measured(labels=("fine",))})
        summary = run_recipe(data, tmp_path / "run", recipe)
    assert summary["results"] == {}
    assert "not measured, because split val has no fine mask: masks" in caplog.text


def test_a_measurement_that_chooses_the_net_is_refused_before_training(data, tmp_path):
    config = dataclasses.replace(tiny.supervised_config(), dataset=DATASET, target="tags", budget=Budget())
    recipe = methods.by_name("supervised").recipe(config, load_info(DATASET, data))
    choosing = dataclasses.replace(measured(labels=("fine",)), every=1, keep_best="miou")
    (stage,) = (dataclasses.replace(stage, evals=(choosing,)) for stage in recipe.stages)
    with pytest.raises(InputError, match="segmenter: split imagenet/mine/val has no fine mask, so nothing"):
        run_recipe(data, tmp_path / "run", dataclasses.replace(recipe, stages=(stage,)))
    assert not (tmp_path / "run").exists()
