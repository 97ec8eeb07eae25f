"""Inference passes over several views of each image, against slow references in numpy."""

import collections
import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.data.records import Records
from scarce_jax.data.source import Rows
from scarce_jax.mesh import make_mesh
from scarce_jax.recipe import Infer, Recipe, Source, ViewMean, Views
from scarce_jax.training.fingerprint import describe
from scarce_jax.training.infer import infer
from scarce_jax.training.session import Session
from scarce_jax.training.signals import StopSignal
from tests import tiny
from tests.evaluation.test_evaluate import bilinear_slowly

SIZE = (20, 26)
SHAPES = [(33, 41), (40, 52), (20, 26), (18, 60), (25, 31)]
CLASSES = 3


def scaled(row, key, consts):
    return {**row, "image": row["image"].astype(jnp.float32) / 64 - 2}


def predict(nets, batch, consts):
    """Maps that depend on the place, so that a view that is not mirrored back shows."""
    image = batch["image"]  # [B, h, w, 3]
    slope = jnp.linspace(0.0, 1.0, image.shape[2])[:, None]
    return {"logits": image * slope, "cam": image[..., :2] * slope, "scores": (image * slope).mean((1, 2))}


def slow_predict(image):
    slope = np.linspace(0.0, 1.0, image.shape[1])[:, None]
    values = (image / 64.0 - 2) * slope
    return {"logits": values, "cam": values[..., :2], "scores": values.mean((0, 1))}


def slow_softmax(logits):
    values = np.exp(logits - logits.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


def slowly(image, views, softmaxed):
    """The means over the views of one image, uint8 [H, W, 3]."""
    predictions = []
    for scale in views.scales:
        size = round(SIZE[0] * scale), round(SIZE[1] * scale)
        scaled_image = Rows.sized({"image": image}, size, size)["image"]
        predictions.append(slow_predict(scaled_image))
        if views.flip:
            mirrored = slow_predict(scaled_image[:, ::-1])
            predictions.append({name: x[:, ::-1] if x.ndim == 3 else x for name, x in mirrored.items()})
    first = predictions[0]["cam"].shape[:2]
    means = {"scores": np.mean([prediction["scores"] for prediction in predictions], 0)}
    for name in ("logits", "cam"):
        maps = [prediction[name] for prediction in predictions]
        if name == "logits" and softmaxed:
            maps = [slow_softmax(logits) for logits in maps]
        means[name] = np.mean([bilinear_slowly(x, first) for x in maps], 0)
    return means


def source(size=SIZE):
    return Source(dataset="fake", split="train", batch=2, size=size, transform=scaled)


def stage(views, combine):
    return Infer(name="pass", nets={}, predict=predict, source=source(), views=views, combine=combine)


def images_and_rows():
    """Images of several sizes, their rows, and how often each was read."""
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]
    reads = collections.Counter()

    def read(k):
        reads[k] += 1
        return {"image": images[k], "id": str(k)}

    ids = [str(k) for k in range(len(images))]
    reader = types.SimpleNamespace(read=read, ids=ids, sizes=np.array(SHAPES, np.int32), dataset="fake")
    return images, Rows(reader=reader, indices=range(len(images)), size=SIZE), reads


def carry_out(stage, rows, folder, devices=2):
    runtime, mesh = dataclasses.replace(tiny.RUNTIME, workers=2), make_mesh(jax.devices()[:devices])
    session = Session(Recipe(stages=(stage,), results={}), (), folder, None, mesh, runtime)
    infer(session, stage, rows, StopSignal())
    return Records(folder / "pass/records")


@pytest.mark.parametrize("softmaxed", [False, True])
@pytest.mark.parametrize(
    "views", [Views(flip=True), Views(scales=(1.0, 1.5)), Views(flip=True, scales=(0.5, 1.0, 2.0))]
)
def test_the_mean_over_views_equals_the_slow_reference(tmp_path, views, softmaxed):
    maps = ("cam",) if softmaxed else ("cam", "logits")
    combine = ViewMean(maps=maps, softmaxed=("logits",) if softmaxed else (), vectors=("scores",))
    images, rows, reads = images_and_rows()
    records = carry_out(stage(views, combine), rows, tmp_path)
    # One image is decoded once, whatever the number of its views.
    assert set(reads.values()) == {1} and len(reads) == len(images)
    for k, image in enumerate(images):
        entry, expected = records.read(str(k)), slowly(image, views, softmaxed)
        for name, values in expected.items():
            assert entry[name].dtype == np.float32
            np.testing.assert_allclose(entry[name], values, atol=1e-4, err_msg=name)


def test_fields_without_a_mean_are_those_of_the_first_view(tmp_path):
    images, rows, _ = images_and_rows()
    records = carry_out(stage(Views(flip=True), ViewMean(maps=("cam",))), rows, tmp_path)
    for k, image in enumerate(images):
        first = slow_predict(Rows.sized({"image": image}, SIZE, SIZE)["image"])
        np.testing.assert_allclose(records.read(str(k))["logits"], first["logits"], atol=1e-4)


def test_views_and_their_combination_are_part_of_the_description():
    combine = ViewMean(maps=("cam",))
    stages = [
        stage(Views(), None),
        stage(Views(flip=True), combine),
        stage(Views(flip=True, scales=(1.0, 2.0)), combine),
        stage(Views(flip=True), ViewMean(softmaxed=("logits",))),
    ]
    facts = {"versions": {"fake": "1"}, "roles": {}, "fingerprints": {}, "origins": {}}
    descriptions = [describe(stage, steps=None, seed=0, **facts) for stage in stages]
    assert all(a != b for k, a in enumerate(descriptions) for b in descriptions[:k])
    assert stages[1] == stage(Views(flip=True), ViewMean(maps=("cam",)))


@pytest.mark.parametrize(
    ("views", "combine", "size", "message"),
    [
        (Views(flip=True), None, SIZE, "several views need `combine`"),
        (Views(flip=True), ViewMean(), None, "a source with a size"),
        (Views(window=(8, 8)), ViewMean(), SIZE, "a window or a CRF, which are for results only"),
    ],
)
def test_views_that_a_pass_cannot_have_are_refused(views, combine, size, message):
    with pytest.raises(ValueError, match=message):
        Infer(name="pass", nets={}, predict=predict, source=source(size), views=views, combine=combine)
