"""Images of any proportions on a canvas of fixed size: in rows, in measurements, in predictions and in records."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.data.images import fitted, resize_label
from scarce_jax.data.records import Records
from scarce_jax.data.schema import IGNORE, DatasetInfo
from scarce_jax.data.source import ExampleField, Rows
from scarce_jax.errors import InputError
from scarce_jax.evaluation.evaluate import MaskEvaluation
from scarce_jax.evaluation.predict import Predictor
from scarce_jax.mesh import make_mesh
from scarce_jax.methods.inputs import unaugmented
from scarce_jax.ops.augment import Augment, augment
from scarce_jax.ops.resize import resize_dynamic
from scarce_jax.recipe import PLAIN, Eval, Infer, Recipe, Source, ViewMean, Views
from scarce_jax.training.infer import infer
from scarce_jax.training.session import Session
from scarce_jax.training.signals import StopSignal
from tests import tiny

CLASSES = ("ground", "disc")
SHAPES = [(30, 60), (60, 45), (41, 23), (64, 64)]
CANVAS = (72, 72)


def example(k):
    """An image that is dark in a disc, and its mask, which is void in the bottom row."""
    height, width = SHAPES[k]
    y, x = np.mgrid[:height, :width]
    disc = (y - height / 2 + 0.5) ** 2 + (x - width / 2 + 0.5) ** 2 <= (0.4 * min(height, width)) ** 2
    fine = disc.astype(np.uint8)
    fine[-1] = IGNORE
    image = np.where(disc[..., None], (40, 80, 20), (200, 180, 220)).astype(np.uint8)
    return {"image": image, "fine": fine, "coarse": disc.astype(np.uint8), "id": str(k)}


def fake_rows(fit, size=CANVAS, shapes=SHAPES):
    ids = [str(k) for k in range(len(shapes))]
    index = {name: k for k, name in enumerate(ids)}
    reader = types.SimpleNamespace(read=example, ids=ids, index=index, sizes=np.array(shapes, np.int32), dataset="fake")
    coarse, fine = ExampleField("coarse"), ExampleField("fine")
    return Rows(reader=reader, indices=range(len(shapes)), fields=(coarse,), labels=(fine,), size=size, fit=fit)


def coarse_scores(nets, batch, consts):
    """The coarse mask as scores; in the padding, where it is void, large ones of the disc."""
    return jnp.where(
        (batch["coarse"] == IGNORE)[..., None], jnp.array([0.0, 9.0]), jax.nn.one_hot(batch["coarse"], len(CLASSES))
    )


def source(fit, size=CANVAS, **changes):
    return Source(dataset="fake", split="val", batch=2, size=size, fit=fit, transform=unaugmented, **changes)


def extent(mask):
    """Height and width of the part that is of class 1."""
    rows, columns = np.nonzero(mask == 1)
    return np.ptp(rows) + 1, np.ptp(columns) + 1


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Programs that are little optimised."""
    with tiny.little_optimised():
        yield


@pytest.mark.parametrize("native", [(375, 500), (500, 375), (1, 700), (513, 513), (1000, 3), (2000, 1500)])
def test_a_fitted_size_keeps_the_proportions_and_fits(native):
    size = (513, 513)
    assert fitted(native, size, "stretch") == size
    for fit in ("pad", "native"):
        height, width = fitted(native, size, fit)
        assert 1 <= height <= 513 and 1 <= width <= 513
        assert abs(height * native[1] - width * native[0]) <= 0.5 * max(native) or 1 in (height, width)
    assert max(fitted(native, size, "pad")) == 513
    if max(native) <= 513:
        assert fitted(native, size, "native") == native
    else:
        assert fitted(native, size, "native") == fitted(native, size, "pad")


@pytest.mark.parametrize("fit", ["pad", "native"])
def test_rows_keep_the_proportions_of_objects_and_padding_is_void(fit):
    rows = fake_rows(fit)
    for k, native in enumerate(SHAPES):
        row = rows[k]
        height, width = int(row["height"]), int(row["width"])
        assert (height, width) == fitted(native, CANVAS, fit) and row["image"].shape == (*CANVAS, 3)
        tall, wide = extent(row["coarse"])
        assert abs(tall - wide) <= 2
        for name in ("label", "coarse"):
            outside = row[name].copy()
            outside[:height, :width] = IGNORE
            assert (outside == IGNORE).all()
        if fit == "native":
            np.testing.assert_array_equal(row["image"][:height, :width], example(k)["image"])
            np.testing.assert_array_equal(row["label"][:height, :width], example(k)["fine"])
    tall, wide = extent(fake_rows("stretch")[0]["coarse"])
    assert tall > 1.8 * wide


def test_padding_is_the_mean_colour_in_training_and_in_prediction():
    rows = fake_rows("pad")
    cut = jax.jit(functools.partial(augment, config=Augment(crop=(90, 90), scale=(1.0, 1.0), rotate=0.0, flip=0.0)))
    plain = jax.jit(lambda row: unaugmented(row, None, {}))
    for k in range(len(SHAPES)):
        row = {key: jnp.asarray(value) for key, value in rows[k].items()}
        height, width = int(row["height"]), int(row["width"])
        image = np.array(plain(row)["image"])
        assert np.abs(image[:height, :width]).min() > 0
        image[:height, :width] = 0
        assert not image.any()
        cropped = cut(row, jax.random.key(k))
        np.testing.assert_array_equal(~np.asarray(cropped["image"]).any(-1), np.asarray(cropped["coarse"]) == IGNORE)
        assert (cropped["coarse"] != IGNORE).sum() == height * width
        assert extent(cropped["coarse"]) == extent(row["coarse"])


@pytest.mark.parametrize("views", [PLAIN, Views(flip=True), Views(scales=(0.5, 1.0), flip=True)])
@pytest.mark.parametrize("fit", ["pad", "native"])
def test_a_mask_through_the_fit_and_back_is_the_mask(fit, views):
    rows = fake_rows(fit)
    evaluation = Eval(name="toy", predict=coarse_scores, source=source(fit), views=views)
    measure = MaskEvaluation(rows, evaluation, classes=2, mesh=make_mesh(jax.devices()[:2]), threads=2)
    at_native, at_size = measure(np.float32(0), {})
    # Padding counts at neither size.
    assert at_native.sum() == sum(np.sum(example(k)["fine"] != IGNORE) for k in range(len(SHAPES)))
    assert at_size.sum() == sum(np.sum(rows[k]["label"] != IGNORE) for k in range(len(SHAPES)))
    wrong = at_native.sum() - np.trace(at_native)
    if fit == "native" and views.scales == (1.0,):
        assert wrong == 0 and at_size.sum() == np.trace(at_size)
    else:
        # Pixels at the edges of the discs, whose circumferences are 490 pixels together.
        assert wrong < 150


def predictor(fit, size, scores=coarse_scores, fields=("coarse",), views=PLAIN, **changes):
    evaluation = Eval(name="toy", predict=scores, source=source(fit, size, fields=fields, **changes), views=views)
    info = DatasetInfo(name="toy", classes=CLASSES, palette=((0, 0, 0), (1, 1, 1)), background=0, splits={})
    mesh = make_mesh(jax.devices()[:1])
    return Predictor("toy", evaluation, nets={}, consts={}, info=info, config=None, without_coarse=[], mesh=mesh)


def convolved(nets, batch, consts):
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(5, 5, 3, 2)), jnp.float32)
    return jax.lax.conv_general_dilated(
        batch["image"], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_a_native_image_is_predicted_as_if_it_were_alone():
    """Padding is what convolutions take for the world beyond an image."""
    fixed = predictor("native", CANVAS, convolved, ())
    for k, native in enumerate(SHAPES):
        alone = predictor("stretch", native, convolved, ())
        image = example(k)["image"]
        np.testing.assert_allclose(fixed.probabilities(image), alone.probabilities(image), atol=1e-5)
        np.testing.assert_array_equal(fixed.predict(image), alone.predict(image))
    assert fixed.scorer.compiled._cache_size() == 1


@pytest.mark.parametrize("fit", ["pad", "native"])
def test_a_prediction_has_the_size_of_an_image_that_does_not_fit(fit):
    applied = predictor(fit, (24, 32))
    for k, native in enumerate(SHAPES):
        labels = applied.predict(example(k)["image"], example(k)["coarse"])
        assert labels.shape == native
        assert np.sum(labels != example(k)["coarse"]) < 0.06 * labels.size


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_probabilities_are_interpolated_where_asked(interpolation):
    """Not logits, whose interpolation moves the edges of what is sure."""
    image, coarse = (example(1)[name] for name in ("image", "coarse"))
    sharp = predictor("stretch", (15, 12), sharp_scores, interpolation=interpolation)
    probabilities = sharp.probabilities(image, coarse)
    small = np.asarray(jax.nn.softmax(sharp_scores(None, {"coarse": resize_label(coarse, (15, 12))[None]}, None)))[0]
    expected = resize_dynamic(small, 15, 12, 60, 45, (60, 45), bicubic=interpolation == "bicubic")
    expected = np.maximum(expected, 0) / np.maximum(expected, 0).sum(-1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(sharp.predict(image, coarse), probabilities.argmax(-1))
    by_logits = predictor("stretch", (15, 12), sharp_scores).predict(image, coarse)
    # A pixel of the grid is sure of the disc by a logit of 9, and of the ground by one of 1.
    assert (by_logits == 1).sum() > (probabilities.argmax(-1) == 1).sum() + 20
    flipped = predictor("stretch", (15, 12), sharp_scores, interpolation=interpolation, views=Views(flip=True))
    np.testing.assert_allclose(flipped.probabilities(image, coarse), expected, atol=1e-5)


def sharp_scores(nets, batch, consts):
    return jnp.where((batch["coarse"] == 1)[..., None], jnp.array([0.0, 9.0]), jnp.array([1.0, 0.0]))


def test_records_cover_the_image_without_the_padding(tmp_path):
    def predict(nets, batch, consts):
        return {"mask": batch["coarse"], "scores": batch["image"].mean((1, 2))}

    rows, masks = fake_rows("pad"), {}
    stage = Infer(name="pass", nets={}, predict=predict, source=source("pad", fields=("coarse",)))
    session = Session(
        Recipe(stages=(stage,), results={}), (), tmp_path, None, make_mesh(jax.devices()[:1]), tiny.RUNTIME
    )
    infer(session, stage, rows, StopSignal())
    records = Records(tmp_path / "pass/records")
    for k, native in enumerate(SHAPES):
        entry = records.read(str(k))
        masks[k] = entry["mask"]
        assert entry["mask"].shape == fitted(native, CANVAS, "pad") and entry["scores"].shape == (3,)
        assert (entry["mask"] != IGNORE).all()
        # Joined to a row of another size and fit, it lies where the image lies.
        row = Rows.sized({"image": example(k)["image"], "mask": entry["mask"]}, native, (80, 80))
        assert np.sum(row["mask"][: native[0], : native[1]] != example(k)["coarse"]) < 0.04 * native[0] * native[1]


def test_views_of_padded_images_are_not_combined():
    plain = Infer(name="pass", nets={}, predict=coarse_scores, source=source("stretch"), combine=ViewMean())
    message = "stage pass: combines views of its images, whose fit is 'native'; expected 'stretch'"
    with pytest.raises(InputError, match=message):
        dataclasses.replace(plain, source=source("native"))
