"""Measuring images of several sizes, each counted once, against a slow reference."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.data.figures import summarise
from scarce_jax.data.source import ExampleField, Rows
from scarce_jax.evaluation import native
from scarce_jax.evaluation.evaluate import MaskEvaluation, choose_labels
from scarce_jax.evaluation.native import native_canvas
from scarce_jax.mesh import make_mesh
from scarce_jax.ops.augment import normalise
from scarce_jax.ops.crf import CRF, dense_crf
from scarce_jax.recipe import PLAIN, Eval, Source, Views

CLASSES = 4
SHAPES = [(30, 40), (130, 20), (33, 40), (1, 1), (40, 30), (64, 64), (30, 40), (140, 9), (57, 3)]
SIZE = (24, 32)


def fake_rows(shapes, size=SIZE, seed=0):
    """Rows of a reader that holds random examples of these (height, width)."""

    def example(k):
        draw = np.random.default_rng((seed, k))
        fine = draw.integers(0, CLASSES, shapes[k], np.uint8)
        coarse = np.where(draw.random(shapes[k]) < 0.5, draw.integers(0, CLASSES, shapes[k], np.uint8), 255)
        image = draw.integers(0, 256, (*shapes[k], 3), np.uint8)
        fine[draw.random(shapes[k]) < 0.1] = 255
        return {"image": image, "fine": fine, "coarse": coarse.astype(np.uint8), "id": str(k)}

    ids, sizes = [str(k) for k in range(len(shapes))], np.array(shapes, np.int32)
    reader = types.SimpleNamespace(read=example, ids=ids, sizes=sizes, dataset="fake")
    coarse, fine = ExampleField("coarse"), ExampleField("fine")
    return Rows(reader=reader, indices=range(len(shapes)), fields=(coarse,), labels=(fine,), size=size)


def scores(nets, batch, consts):
    """Something that depends on every pixel's colour and its place."""
    image = batch["image"]
    place = jnp.arange(image.shape[2], dtype=jnp.float32) / image.shape[2]
    return jnp.stack(
        [image[..., 0], image[..., 1] * 0.8, image[..., 2] * nets, jnp.broadcast_to(place, image.shape[:3])], -1
    )


def transform(row, key, consts):
    return {**row, "image": normalise(row["image"])}


def measurement(rows, *, predict=scores, composite=False, batch=2, devices=8, views=PLAIN):
    mesh = make_mesh(jax.devices()[:devices])
    source = Source(dataset="fake", split="val", batch=batch, transform=transform)
    evaluation = Eval(name="toy", predict=predict, source=source, composite=composite, views=views)
    return MaskEvaluation(rows, evaluation, classes=CLASSES, mesh=mesh, threads=2)


NETS = np.float32(1.25)


def bilinear_slowly(scores, size):
    """[h, w, K] at another size, with half-pixel centres."""
    (h, w), (height, width) = scores.shape[:2], size

    def axis(new, old):
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, old - 1), (at - low)[:, None]

    y0, y1, fy = axis(height, h)
    x0, x1, fx = axis(width, w)
    fy = fy[:, None]
    top = scores[y0][:, x0] * (1 - fx) + scores[y0][:, x1] * fx
    bottom = scores[y1][:, x0] * (1 - fx) + scores[y1][:, x1] * fx
    return top * (1 - fy) + bottom * fy


def slowly(rows, composite, predict=True):
    """The confusion matrix at native size, image by image, in numpy."""
    counts = np.zeros((CLASSES, CLASSES + 1), np.int64)
    doubtful = 0
    for k in range(len(rows)):
        example = rows.example(k)
        shape = example["image"].shape[:2]
        if predict:
            row = rows[k]
            batch = {"image": normalise(jnp.asarray(row["image"]))[None]}
            values = np.asarray(scores(NETS, batch, {}), np.float64)[0]
            values = bilinear_slowly(values, shape)
            labels = values.argmax(-1)
            ordered = np.sort(values, -1)
            doubtful += (ordered[..., -1] - ordered[..., -2] < 1e-4).sum()
        else:
            labels = np.full(shape, 255)
        if composite:
            labels = np.where(example["coarse"] != 255, example["coarse"], labels)
        for truth, label in zip(example["label"].reshape(-1), labels.reshape(-1), strict=True):
            if truth != 255:
                counts[truth, label if label < CLASSES else CLASSES] += 1
    return counts, doubtful


@pytest.mark.parametrize("composite", [False, True])
def test_every_image_counts_once_at_its_own_size(composite):
    rows = fake_rows(SHAPES)
    native, at_size = measurement(rows, composite=composite)(NETS, {})
    expected, doubtful = slowly(rows, composite)
    assert native.sum() == expected.sum() == sum((rows.example(k)["label"] != 255).sum() for k in range(len(rows)))
    np.testing.assert_array_equal(native.sum(1), expected.sum(1))
    # Only where two scores tie to rounding may the two differ.
    assert np.abs(native - expected).sum() <= 2 * doubtful and doubtful < 0.002 * native.sum()
    assert at_size.sum() == sum((rows[k]["label"] != 255).sum() for k in range(len(rows)))


def test_native_size_without_a_source_size():
    rows = fake_rows(SHAPES, size=None)
    native, at_size = measurement(rows)(NETS, {})
    expected, doubtful = slowly_native(rows)
    assert np.abs(native - expected).sum() <= 2 * doubtful
    np.testing.assert_array_equal(native.sum(1), expected.sum(1))


def slowly_native(rows):
    counts, doubtful = np.zeros((CLASSES, CLASSES + 1), np.int64), 0
    for k in range(len(rows)):
        example = rows.example(k)
        height, width = example["image"].shape[:2]
        canvas = np.zeros((*native_canvas(height, width), 3), np.uint8)
        canvas[:height, :width] = example["image"]
        values = np.asarray(scores(NETS, {"image": normalise(jnp.asarray(canvas))[None]}, {}))[0, :height, :width]
        ordered = np.sort(values, -1)
        doubtful += (ordered[..., -1] - ordered[..., -2] < 1e-4).sum()
        counted = example["label"] != 255
        np.add.at(counts, (example["label"][counted], values.argmax(-1)[counted]), 1)
    return counts, doubtful


def test_a_coarse_mask_as_a_prediction_misses_where_it_says_nothing():
    rows = fake_rows(SHAPES)
    native, _ = measurement(rows, predict=None, composite=True)({}, {})
    expected, _ = slowly(rows, True, predict=False)
    np.testing.assert_array_equal(native, expected)
    assert native[:, CLASSES].sum() > 0


def test_the_toy_of_the_coarse_mask_scores_a_half():
    shape = types.SimpleNamespace(
        read=lambda k: {
            "image": np.zeros((1, 4, 3), np.uint8), "fine": np.array([[0, 0, 1, 1]], np.uint8),
            "coarse": np.array([[0, 255, 1, 255]], np.uint8), "id": "toy",
        }, ids=["toy"], sizes=np.array([[1, 4]]), dataset="fake",
    )  # fmt: skip
    rows = Rows(reader=shape, indices=[0], fields=(ExampleField("coarse"),), labels=(ExampleField("fine"),), size=None)
    native, _ = measurement(rows, predict=None, composite=True)({}, {})
    figures = summarise(native, [f"c{k}" for k in range(CLASSES)])
    assert figures["per_class"] == {"c0": 0.5, "c1": 0.5, "c2": None, "c3": None} and figures["miou"] == 0.5


def test_a_crf_refines_at_native_size():
    crf = CRF(bilateral_sigma=8, colour_sigma=30, bilateral_weight=4, iterations=3)
    rows = fake_rows([(30, 40), (33, 57), (30, 40)])
    native, at_size = measurement(rows, views=Views(crf=crf), devices=2, batch=1)(NETS, {})
    expected, doubtful, changed = np.zeros_like(native), 0, 0
    for k in range(len(rows)):
        example = rows.example(k)
        shape = example["image"].shape[:2]
        row = {"image": normalise(jnp.asarray(rows[k]["image"]))[None]}
        before = bilinear_slowly(np.asarray(jax.nn.softmax(scores(NETS, row, {})))[0], shape)
        after = np.asarray(dense_crf(before[None], example["image"][None], crf))[0]
        ordered = np.sort(after, -1)
        doubtful += (ordered[..., -1] - ordered[..., -2] < 1e-3).sum()
        changed += (after.argmax(-1) != before.argmax(-1)).sum()
        counted = example["label"] != 255
        np.add.at(expected, (example["label"][counted], after.argmax(-1)[counted]), 1)
    np.testing.assert_array_equal(native.sum(1), expected.sum(1))
    assert np.abs(native - expected).sum() <= 2 * doubtful and doubtful < 0.01 * native.sum() < changed
    # The same masks at the source's size, not the unrefined ones.
    assert at_size.sum() == sum((rows[k]["label"] != 255).sum() for k in range(len(rows)))
    assert (at_size != measurement(rows)(NETS, {})[1]).any()


@pytest.mark.parametrize("composite", [False, True])
def test_counts_do_not_depend_on_the_bands_of_large_images(monkeypatch, composite):
    rows = fake_rows([(270, 150), (40, 30)])
    expected = measurement(rows, devices=1, composite=composite)(NETS, {})
    monkeypatch.setattr(native, "BAND_BYTES", 4 * 2 * 100 * 256 * CLASSES)
    assert native.bands(2, (384, 256), CLASSES, PLAIN) == (96, [0, 96, 192, 288])
    np.testing.assert_array_equal(measurement(rows, devices=1, composite=composite)(NETS, {}), expected)


def test_counts_do_not_depend_on_devices_or_batch():
    rows = fake_rows(SHAPES)
    expected = measurement(rows, devices=1, batch=1)(NETS, {})
    for devices, batch in ((1, 4), (8, 1)):
        np.testing.assert_array_equal(measurement(rows, devices=devices, batch=batch)(NETS, {}), expected)


def test_the_composite_is_the_coarse_mask_wherever_that_says_something():
    draw = np.random.default_rng(1)
    shape = (3, 20, 20)
    overlay = np.where(draw.random(shape) < 0.6, draw.integers(0, CLASSES, shape), 255).astype(np.uint8)
    values = jnp.asarray(draw.normal(size=(*shape, CLASSES)), jnp.float32)
    plain = np.asarray(choose_labels(values, None, shape))
    np.testing.assert_array_equal(plain, np.asarray(values).argmax(-1))
    composite = np.asarray(choose_labels(values, jnp.asarray(overlay), shape))
    np.testing.assert_array_equal(composite, np.where(overlay != 255, overlay, plain))
    np.testing.assert_array_equal(np.asarray(choose_labels(None, jnp.asarray(overlay), shape)), overlay)
    assert (np.asarray(choose_labels(None, None, shape)) == 255).all()


def test_the_composite_never_loses_a_true_positive():
    rows = fake_rows(SHAPES)
    coarse, _ = measurement(rows, predict=None, composite=True)({}, {})
    composite, _ = measurement(rows, composite=True)(NETS, {})
    assert (np.diag(composite) >= np.diag(coarse)).all() and np.trace(composite) > np.trace(coarse)


def test_an_image_alone_and_among_others_gives_the_same_counts():
    rows = fake_rows(SHAPES)
    together, _ = measurement(rows)(NETS, {})
    alone = 0
    for k in range(len(SHAPES)):
        single = dataclasses.replace(rows, indices=[k])
        alone = alone + measurement(single, devices=1, batch=1)(NETS, {})[0]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("views", [Views(), Views(flip=True, scales=(0.5, 1.0, 1.5), window=(16, 16))])
def test_fifty_sizes_compile_few_programs(views, caplog):
    draw = np.random.default_rng(2)
    shapes = [tuple(draw.integers(1, 256, 2)) for _ in range(50)]
    assert len(set(shapes)) > 45
    measured, canvases = measurement(fake_rows(shapes), views=views), {native_canvas(*shape) for shape in shapes}
    with jax.log_compiles():
        for _ in range(2):
            measured(NETS, {})
    compiled = [record.getMessage().split()[1] for record in caplog.records if record.msg.startswith("Compiling")]
    # The nets, which take long to compile, are one program; bringing scores to native size is one per canvas.
    assert len(compiled) == 1 + len(canvases) <= 5, compiled


def test_a_canvas_holds_its_image_and_depends_on_it_alone():
    for shape in [(1, 1), (128, 128), (129, 128), (500, 1), (513, 1024), (1080, 1920)]:
        canvas = native_canvas(*shape)
        for c, s in zip(canvas, shape, strict=True):
            assert c >= s and c % 128 == 0 and c <= max(128, 1.5 * s, s + 128)
    assert len({native_canvas(n, 1)[0] for n in range(1, 4097)}) == 10
