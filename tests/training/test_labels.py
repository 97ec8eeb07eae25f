"""Labels that say nothing, and splits without labels, are told before a run begins."""

import dataclasses
import json
import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from scarce_jax import methods, runs
from scarce_jax.data.budget import Budget
from scarce_jax.data.builders import prepare
from scarce_jax.data.datasets import KNOWN
from scarce_jax.errors import InputError
from scarce_jax.recipe import Artifact, Train, reads, sources
from scarce_jax.runs import evaluate, train
from tests import tiny
from tests.data import folders

NAME = "folder/labels"


def prepared(folder, again=False, **masks):
    """A data folder of three images a split, whose masks are all of one value; None writes none."""
    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    folders.write(source, images=3, fine=(), coarsely=None, splits=tuple(masks))
    content = {"classes": ["background", "cat"], "background": "background"}
    (source / "classes.json").write_text(json.dumps(content))
    for split, value in masks.items():
        for k in range(3) if value is not None else ():
            mask = np.full(folders.SIZE, value, np.uint8)
            mask[:4] = 255
            Image.fromarray(mask).save(source / split / "masks" / f"{k}.png")
    prepare(NAME, folder / "data", source, again=again)
    return folder / "data"


def config(**changes):
    stage = tiny.stage(steps=1, batch=2, eval_every=1)
    supervised = methods.by_name("supervised")
    fields = {"dataset": NAME, "segmenter": supervised.SegmenterStage(**stage), "runtime": tiny.RUNTIME, **changes}
    return supervised.Config(**fields)


@pytest.mark.parametrize(
    ("masks", "changes", "message"),
    [
        (
            {"train": 255, "val": 1},
            {},
            "segmenter: no fine mask of the 3 images of folder/labels/train .* has a labelled pixel: all are void",
        ),
        (
            {"train": 0, "val": 1},
            {"budget": Budget(fine=2)},
            "no fine mask of the 2 images .* shows another class than background, .*--budget.fine, --budget.seed or",
        ),
        ({"train": 0, "val": None}, {}, "another class than background"),
        ({"train": None, "val": 1}, {"eval_split": None}, "none of its 3 images has a fine mask"),
    ],
)
def test_training_on_labels_that_say_nothing_is_refused_before_it_begins(tmp_path, masks, changes, message):
    data = prepared(tmp_path, **masks)
    with pytest.raises(InputError, match=message):
        train(config(**changes), tmp_path / "run", data_dir=data, mesh=tiny.mesh())
    assert not (tmp_path / "run").exists()


def checked(folder, changes, **masks):
    data = prepared(folder, **masks)
    # The training masks have two classes.
    mask = np.zeros(folders.SIZE, np.uint8)
    mask[10:] = 1
    Image.fromarray(mask).save(folder / "source" / "train" / "masks" / "0.png")
    prepare(NAME, data, folder / "source", again=True)
    with pytest.raises(InputError) as caught:
        train(config(**changes), folder / "run", data_dir=data, mesh=tiny.mesh())
    assert not (folder / "run").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "changes", "parts"),
    [
        (None, {}, ["segmenter: split folder/labels/val has no fine mask", "--eval-split None to train without"]),
        (255, {}, ["split folder/labels/val has no labelled pixel in its fine masks (all are void, 255)"]),
        (
            1,
            {"eval_split": "test"},
            ["no split 'test'; it was prepared with train, val", "or --eval-split (of a"],
        ),
        (1, {"eval_split": "train"}, ["--eval-split 'train': expected another split than that of --train-split"]),
    ],
)
def test_a_split_that_cannot_be_measured_is_named_with_the_flag(tmp_path, value, changes, parts):
    message = checked(tmp_path, changes, train=0, val=value)
    assert all(part in message for part in parts), message


def test_a_run_that_measures_nothing_ends_in_a_net(tmp_path, caplog, monkeypatch):
    """And its net can be measured later, with a word if the data are others by then."""
    data = prepared(tmp_path, train=1, val=255)
    monkeypatch.setattr("scarce_jax.training.plan.check_labels", lambda stage, inputs: None)
    with caplog.at_level(logging.INFO, "scarce_jax"):
        summary = train(config(eval_split=None), tmp_path / "run", data_dir=data, mesh=tiny.mesh())
    assert summary["results"] == {} and "not measured, because --eval-split is None" in caplog.text
    image = folders.image(0)
    assert runs.load(tmp_path / "run", mesh=tiny.mesh()).predict(image).shape == folders.SIZE
    again = {"data_dir": data, "mesh": tiny.mesh()}
    with pytest.raises(InputError, match="trained with --eval-split None, so name the split to measure with --split"):
        evaluate(tmp_path / "run", **again)
    with pytest.raises(InputError, match="labels/val has no labelled pixel .*, so segmenter cannot be measured on it"):
        evaluate(tmp_path / "run", split="val", **again)
    assert "prepared again" not in caplog.text
    prepared(tmp_path, again=True, train=1, val=1)
    figures = evaluate(tmp_path / "run", split="val", **again)
    assert "dataset folder/labels was prepared again since the training, with other content" in caplog.text
    known = [value for value in figures["per_class"].values() if value is not None]
    assert figures["classes_measured"] == len(known) and figures["miou"] == pytest.approx(np.mean(known))


CONFIGS = {
    "detailer": tiny.detailer_config(compare=True, student=True),
    "auxiliary": tiny.auxiliary_config(compare=True),
    "transfer": tiny.transfer_config(compare=True),
    "decoupled": tiny.decoupled_config(compare=True),
    "three_step": tiny.three_step_config(),
}


@pytest.mark.parametrize("method", CONFIGS)
def test_every_method_can_train_without_a_split_to_measure(method):
    info = KNOWN["scenes"]
    whole = methods.recipe_of(CONFIGS[method], info)
    recipe = methods.recipe_of(dataclasses.replace(CONFIGS[method], eval_split=None), info)
    names = {stage.name for stage in recipe.stages}
    assert names <= {stage.name for stage in whole.stages}
    assert {s.name for s in whole.stages if isinstance(s, Train)} <= names
    for stage in recipe.stages:
        parts = [*sources(stage).values(), *(e.source for e in (stage.evals if isinstance(stage, Train) else ()))]
        assert all(source.split is not None for source in parts)
    for part in (*recipe.stages, *recipe.results.values()):
        assert all(artifact.stage in names for artifact in reads(part))
    for table in recipe.tables.values():
        assert all(isinstance(read, Artifact) and read.stage in names for read in table.reads.values())
    assert recipe.results and next(iter(recipe.results)) == next(iter(whole.results))
    unchanged = methods.by_name(method).recipe(CONFIGS[method], info)
    assert (whole.stages, whole.results) == (unchanged.stages, unchanged.results)


def test_a_measurement_that_chooses_the_net_needs_a_split():
    config = tiny.replaced(tiny.supervised_config(eval_every=1), "segmenter", keep_best="miou")
    with pytest.raises(InputError, match="^--segmenter.keep-best miou: expected None while --eval-split is None"):
        methods.recipe_of(dataclasses.replace(config, eval_split=None), KNOWN["scenes"])
