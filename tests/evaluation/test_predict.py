"""A predictor: an image alone and in a mixed batch gives the same bits, and few programs serve many sizes."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.evaluation import native
from scarce_jax.evaluation.predict import Predictor
from scarce_jax.mesh import make_mesh
from scarce_jax.ops.augment import normalise
from scarce_jax.ops.crf import CRF, dense_crf
from scarce_jax.recipe import PLAIN, Eval, Source, Views

CLASSES = ("sky", "road", "tree")
SHAPES = [(30, 40), (130, 20), (33, 41), (1, 1), (40, 30), (140, 9), (57, 3)]


class Variables:
    variables = {"params": {}, "batch_stats": {}}


def predictor(*, size=(24, 32), needs_coarse=False, composite=False, predict=True, devices=8, batch=2, views=PLAIN):
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 3, len(CLASSES))), jnp.float32)

    def scores(nets, batch, consts):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(batch["image"], kernel, (1, 1), "SAME", dimension_numbers=dimensions)

    def transform(row, key, consts):
        return {**row, "image": normalise(row["image"])}

    fields = ("coarse",) if needs_coarse else ()
    source = Source(dataset="toy", split="val", fields=fields, batch=batch, size=size, transform=transform)
    evaluation = Eval(name="toy", predict=scores if predict else None, source=source, composite=composite, views=views)
    palette = ((0, 0, 0), (1, 1, 1), (2, 2, 2))
    info = DatasetInfo(name="toy", classes=CLASSES, palette=palette, background=None, splits={})
    mesh = make_mesh(jax.devices()[:devices])
    return Predictor("toy", evaluation, nets={}, consts={}, info=info, config=None, without_coarse=["other"], mesh=mesh)


def images(seed=0):
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]


def test_an_image_alone_and_in_a_mixed_batch_gives_the_same_bits():
    pictures, alone = images(), predictor(devices=1, batch=1)
    mixed = predictor()
    rows = [mixed.row(image, None) for image in pictures]
    streamed = list(mixed.stream(lambda k: (rows[k], f"image {k}"), len(rows), 2))
    assert all(payload == f"image {k}" for k, payload, _ in streamed)
    predictions = {k: prediction for k, _, prediction in streamed}
    assert sorted(predictions) == list(range(len(pictures)))
    for k, image in enumerate(pictures):
        labels = alone.predict(image)
        assert labels.shape == image.shape[:2] and labels.dtype == np.uint8
        np.testing.assert_array_equal(predictions[k].labels, labels)
        np.testing.assert_array_equal(predictions[k].labels, mixed.predict(image))
        ((_, _, one),) = alone.stream(lambda _, row=rows[k]: (row, None), 1, 1)
        np.testing.assert_array_equal(predictions[k].confidence, one.confidence)
    assert len(np.unique(np.concatenate([p.labels.reshape(-1) for p in predictions.values()]))) == len(CLASSES)


def test_images_of_many_canvases_are_each_loaded_once_and_all_predicted():
    applied, alone = predictor(devices=2, batch=1), predictor(devices=1, batch=1)
    # More canvases than may wait for a second image.
    shapes = [(20, 100 + 128 * k) for k in range(4)] + [(140 + 120 * k, 20) for k in range(6)]
    draw = np.random.default_rng(6)
    pictures = [draw.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    loads = []

    def load(k):
        loads.append(k)
        return applied.row(pictures[k], None), None

    predictions = {k: prediction for k, _, prediction in applied.stream(load, len(pictures), 2)}
    assert sorted(loads) == sorted(predictions) == list(range(len(pictures)))
    for k, picture in enumerate(pictures):
        np.testing.assert_array_equal(predictions[k].labels, alone.predict(picture))


def test_a_load_that_fails_ends_the_stream():
    applied = predictor(devices=1, batch=1)

    def load(k):
        if k == 3:
            raise InputError("image 3: cannot be read")
        return applied.row(np.zeros((5, 6, 3), np.uint8), None), None

    with pytest.raises(InputError, match="image 3"):
        list(applied.stream(load, 50, 2))


@pytest.mark.parametrize("views", [Views(), Views(flip=True, scales=(0.5, 2.0), window=(16, 16))])
def test_fifty_sizes_compile_few_programs(views, caplog):
    applied = predictor(views=views)
    draw = np.random.default_rng(3)
    with jax.log_compiles():
        for _ in range(50):
            applied.predict(draw.integers(0, 256, (*draw.integers(1, 256, 2), 3), np.uint8))
    compiled = [record.getMessage().split()[1] for record in caplog.records if record.msg.startswith("Compiling")]
    # The net once, and bringing its scores to native size once for each canvas.
    assert len(compiled) == len(set(compiled)) + 3 == 5, compiled


def test_views_are_averaged():
    applied, plain = predictor(views=Views(flip=True)), predictor()
    # Of the source's size, so that nothing is resized after the probabilities are averaged.
    image = np.random.default_rng(5).integers(0, 256, (24, 32, 3), np.uint8)
    both = (plain.probabilities(image) + plain.probabilities(image[:, ::-1])[:, ::-1]) / 2
    np.testing.assert_allclose(applied.probabilities(image), both, atol=1e-5)
    assert np.abs(applied.probabilities(image) - plain.probabilities(image)).max() > 0.1
    np.testing.assert_allclose(applied.probabilities(image).sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(applied.probabilities(image).argmax(-1), applied.predict(image))


def test_probabilities_of_averaged_logits_sum_to_one():
    image = np.random.default_rng(5).integers(0, 256, (24, 32, 3), np.uint8)
    logits, plain = predictor(views=Views(flip=True, average="logits")), predictor()
    views = [np.log(plain.probabilities(image)), np.log(plain.probabilities(image[:, ::-1])[:, ::-1])]
    expected = np.exp(sum(views) / 2)
    np.testing.assert_allclose(
        logits.probabilities(image), expected / expected.sum(-1, keepdims=True), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_a_crf_refines_the_probabilities_of_the_image_alone(average):
    crf = CRF(bilateral_sigma=8, colour_sigma=30, bilateral_weight=4)
    applied, plain = (
        predictor(size=None, views=views, devices=1) for views in (Views(crf=crf, average=average), PLAIN)
    )
    image = np.random.default_rng(5).integers(0, 256, (30, 40, 3), np.uint8)
    before = plain.probabilities(image)
    # On the image itself; the predictor has it on a larger canvas.
    expected = np.asarray(dense_crf(before[None], image[None], crf))[0]
    predictions = applied.probabilities(image)
    np.testing.assert_allclose(predictions, expected, atol=1e-4)
    assert (expected.argmax(-1) != before.argmax(-1)).mean() > 0.03
    np.testing.assert_array_equal(predictions.argmax(-1), applied.predict(image))


@pytest.mark.parametrize("size", [(24, 32), None])
def test_probabilities_sum_to_one_and_their_largest_is_the_prediction(size):
    applied = predictor(size=size)
    for image in images(1)[:4]:
        predictions = applied.probabilities(image)
        assert predictions.shape == (*image.shape[:2], len(CLASSES)) and predictions.dtype == np.float32
        np.testing.assert_allclose(predictions.sum(-1), 1, atol=1e-5)
        np.testing.assert_array_equal(predictions.argmax(-1), applied.predict(image))


def test_a_composite_keeps_the_coarse_labels_with_full_confidence():
    applied, plain = predictor(needs_coarse=True, composite=True), predictor()
    draw = np.random.default_rng(4)
    for image in images(2)[:3]:
        shape = image.shape[:2]
        coarse = np.where(draw.random(shape) < 0.5, draw.integers(0, 3, shape), 255).astype(np.uint8)
        np.testing.assert_array_equal(
            applied.predict(image, coarse), np.where(coarse != 255, coarse, plain.predict(image))
        )
        row = applied.row(image, coarse)
        ((_, _, predictions),) = applied.stream(lambda _, row=row: (row, None), 1, 1)
        assert (predictions.confidence[coarse != 255] == 255).all()
        np.testing.assert_allclose(applied.probabilities(image, coarse).sum(-1), 1, atol=1e-5)


def test_a_coarse_mask_alone_predicts_nothing_elsewhere():
    applied = predictor(needs_coarse=True, composite=True, predict=False)
    coarse = np.array([[0, 255, 2]], np.uint8)
    image = np.zeros((1, 3, 3), np.uint8)
    np.testing.assert_array_equal(applied.predict(image, coarse), coarse)
    np.testing.assert_array_equal(applied.probabilities(image, coarse)[0], [[1, 0, 0], [0, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize("views", [PLAIN, Views(flip=True, scales=(0.5, 1.0))])
def test_a_large_image_is_predicted_in_bands_with_the_same_bits(monkeypatch, views):
    image = np.random.default_rng(7).integers(0, 256, (270, 150, 3), np.uint8)
    coarse = np.where(image[..., 0] < 100, image[..., 1] % 3, 255).astype(np.uint8)

    def predicted():
        applied = predictor(views=views, devices=2, batch=1, needs_coarse=True, composite=True)
        row = applied.row(image, coarse)
        ((_, _, prediction),) = applied.stream(lambda _: (row, None), 1, 1)
        number = len(applied.dispatch({key: np.stack([value] * 2) for key, value in row.items()}, (384, 256)))
        return number, prediction.labels, prediction.confidence, applied.probabilities(image, coarse)

    whole = predicted()
    monkeypatch.setattr(native, "BAND_BYTES", 4 * 100 * 256 * len(CLASSES))
    bands = predicted()
    assert (whole[0], bands[0]) == (1, 4)
    for one, other in zip(whole[1:], bands[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stream_passes_over_rows_of_none():
    applied = predictor(devices=1, batch=2)
    pictures = images()
    loaded = [(None, "unreadable") if k == 2 else (applied.row(image, None), k) for k, image in enumerate(pictures)]
    streamed = {k: (payload, prediction) for k, payload, prediction in applied.stream(loaded.__getitem__, 7, 0, 1)}
    assert sorted(streamed) == list(range(7)) and streamed[2] == ("unreadable", None)
    for k in {*range(7)} - {2}:
        np.testing.assert_array_equal(streamed[k][1].labels, applied.predict(pictures[k]))


def test_what_is_no_array_of_pixels_is_refused():
    applied = predictor(devices=1)
    for wrong, found in (
        ("photo.jpg", "found the path 'photo.jpg', .*read the file first"),
        (pathlib.Path("photo.jpg"), "found the path 'photo.jpg'"),
        ([[[0, 0, 0]]], "found a list"),
        (None, "found a NoneType"),
        (np.zeros((0, 5, 3), np.uint8), r"found uint8 \[0, 5, 3\], which is empty"),
    ):
        for call in (applied.predict, applied.probabilities):
            with pytest.raises(InputError, match=f"^image: {found}"):
                call(wrong)
    applied = predictor(devices=1, needs_coarse=True)
    with pytest.raises(InputError, match="^coarse mask: found a list"):
        applied.predict(np.zeros((5, 6, 3), np.uint8), [[0]])


def test_what_does_not_fit_is_refused():
    applied, image = predictor(needs_coarse=True), np.zeros((5, 6, 3), np.uint8)
    for wrong, message in (
        (None, "needs a coarse mask with every image, and none is given; results that do not: other"),
        (np.zeros((6, 5), np.uint8), r"found uint8 \[6, 5\], expected uint8 \[5, 6\]"),
        (np.zeros((5, 6), np.int64), r"found int64 \[5, 6\]"),
        (np.full((5, 6), 3, np.uint8), "id 3 is no class; expected 0..2, or 255"),
    ):
        with pytest.raises(InputError, match=message):
            applied.predict(image, wrong)
    for wrong in (image[..., 0], image.astype(np.float32), np.zeros((5, 6, 4), np.uint8)):
        with pytest.raises(InputError, match=r"expected uint8 \[H, W, 3\]"):
            applied.predict(wrong, np.zeros((5, 6), np.uint8))
