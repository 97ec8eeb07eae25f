"""Mirrored, scaled and windowed predictions, against slow references in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax import memory
from scarce_jax.data.source import Rows
from scarce_jax.errors import InputError
from scarce_jax.evaluation import views as views_module
from scarce_jax.evaluation.native import NATIVE, bands, merge, native_canvas
from scarce_jax.evaluation.views import STRIDE, Scorer, mirror, offsets, view_rows
from scarce_jax.mesh import make_mesh
from scarce_jax.ops.crf import PARAMETERS
from scarce_jax.recipe import Views
from tests.evaluation.test_evaluate import bilinear_slowly

CLASSES = 3
KERNEL = np.random.default_rng(0).normal(size=(3, 3, 3, CLASSES)).astype(np.float32)


def scores(nets, batch, consts):
    """A convolution, so that a pixel's scores depend on its neighbours and on where a window ends."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    found = jax.lax.conv_general_dilated(batch["image"], nets, (1, 1), "SAME", dimension_numbers=dimensions)
    if "coarse" in batch:
        found += jax.nn.one_hot(batch["coarse"], CLASSES)
    return found


def transform(row, key, consts):
    return {**row, "image": row["image"].astype(jnp.float32) / 64 - 2}


def slow_probabilities(image, coarse=None, kernel=KERNEL):
    """float64 [h, w, K] of one whole image, float [h, w, 3]."""
    out = slow_logits(image, coarse, kernel)
    out = np.exp(out - out.max(-1, keepdims=True))
    return out / out.sum(-1, keepdims=True)


def slow_logits(image, coarse=None, kernel=KERNEL):
    height, width = image.shape[:2]
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    out = np.zeros((height, width, CLASSES))
    for dy in range(3):
        for dx in range(3):
            out += padded[dy : dy + height, dx : dx + width].astype(np.float64) @ kernel[dy, dx]
    if coarse is not None:
        out += np.where(coarse[..., None] == np.arange(CLASSES), 1.0, 0.0)
    return out


def slow_windows(image, coarse, window):
    """PSPNet's sliding test, window by window: what a window has beyond the image is zero, or unlabelled."""
    height, width = image.shape[:2]
    total, count = np.zeros((height, width, CLASSES)), np.zeros((height, width, 1))
    tops = {min(t, max(height - window[0], 0)) for t in range(0, height, int(np.ceil(window[0] * STRIDE)))}
    lefts = {min(t, max(width - window[1], 0)) for t in range(0, width, int(np.ceil(window[1] * STRIDE)))}
    for top in tops:
        for left in lefts:
            here = np.s_[top : top + window[0], left : left + window[1]]
            h, w = image[here].shape[:2]
            filled = np.zeros((*window, 3))
            filled[:h, :w] = image[here]
            mask = np.full(window, 255)
            mask[:h, :w] = coarse[here]
            total[here] += slow_probabilities(filled, mask)[:h, :w]
            count[here] += 1
    return total / count


def random_example(size, seed=1):
    draw = np.random.default_rng(seed)
    coarse = draw.choice([0, 1, 2, 255], size).astype(np.uint8)
    return {"image": draw.integers(0, 256, (*size, 3), np.uint8), "coarse": coarse}


def merged(views, example, size, fixed=True, devices=1):
    """The scorer's probabilities at native size, as evaluation merges them."""
    native = example["image"].shape[:2]
    row = view_rows(views, size, size if fixed else None, lambda target, canvas: Rows.sized(example, target, canvas))
    row |= {"native_height": np.int32(native[0]), "native_width": np.int32(native[1])}
    rows = {key: jnp.asarray(np.stack([value] * devices)) for key, value in row.items()}
    out = Scorer(scores, transform, views, make_mesh(jax.devices()[:devices]))(jnp.asarray(KERNEL), rows, {})
    return np.asarray(merge(out, rows, native, NATIVE))[0]


def prepared(example, size):
    """Image and coarse mask of a size as the transform leaves them."""
    row = Rows.sized(example, size, size)
    return row["image"] / 64.0 - 2, row["coarse"]


@pytest.mark.parametrize("window", [(8, 12), (7, 5), (40, 10), (64, 64)])
def test_windows_equal_the_slow_reference(window):
    example = random_example((21, 30))
    expected = slow_windows(*prepared(example, (21, 30)), window)
    np.testing.assert_allclose(merged(Views(window=window), example, (21, 30)), expected, atol=2e-5)


def test_flips_equal_the_slow_reference():
    example = random_example((21, 30))
    image, coarse = prepared(example, (21, 30))
    expected = (slow_probabilities(image, coarse) + slow_probabilities(image[:, ::-1], coarse[:, ::-1])[:, ::-1]) / 2
    np.testing.assert_allclose(merged(Views(flip=True), example, (21, 30)), expected, atol=2e-5)


def test_scales_equal_the_slow_reference():
    """Every scale is made from the native image, predicted by itself, and brought to native size."""
    example, size = random_example((40, 52)), (20, 26)
    expected = 0.0
    for target in ((10, 13), (20, 26), (30, 39)):
        expected = expected + bilinear_slowly(slow_probabilities(*prepared(example, target)), (40, 52)) / 3
    np.testing.assert_allclose(merged(Views(scales=(0.5, 1.0, 1.5)), example, size), expected, atol=2e-5)


def test_logits_are_averaged_where_asked():
    example, size = random_example((40, 52)), (20, 26)
    expected = 0.0
    for target in ((10, 13), (20, 26)):
        image, coarse = prepared(example, target)
        both = slow_logits(image, coarse) + slow_logits(image[:, ::-1], coarse[:, ::-1])[:, ::-1]
        expected = expected + bilinear_slowly(both / 2, (40, 52)) / 2
    views = Views(flip=True, scales=(0.5, 1.0), average="logits")
    np.testing.assert_allclose(merged(views, example, size), expected, atol=2e-4)


def test_all_views_together_equal_the_slow_reference():
    example, size, window = random_example((33, 41)), (20, 26), (16, 16)
    expected = 0.0
    for scale in (0.5, 2.0):
        target = round(size[0] * scale), round(size[1] * scale)
        image, coarse = prepared(example, target)
        both = slow_windows(image, coarse, window)
        both = (both + slow_windows(image[:, ::-1], coarse[:, ::-1], window)[:, ::-1]) / 2
        expected = expected + bilinear_slowly(both, (33, 41)) / 2
    views = Views(flip=True, scales=(0.5, 2.0), window=window)
    np.testing.assert_allclose(merged(views, example, size), expected, atol=2e-5)
    np.testing.assert_array_equal(merged(views, example, size, devices=2), merged(views, example, size))


def test_an_image_on_a_larger_canvas_is_mirrored_within_its_own_width():
    example = random_example((21, 30))
    assert native_canvas(21, 30) == (128, 128)
    found = merged(Views(flip=True), example, (21, 30), fixed=False)
    mirrored = {key: np.ascontiguousarray(value[:, ::-1]) for key, value in example.items()}
    np.testing.assert_allclose(merged(Views(flip=True), mirrored, (21, 30), fixed=False)[:, ::-1], found, atol=2e-5)


def test_mirroring_twice_gives_the_array_back_and_leaves_the_rest_alone():
    value = jnp.arange(2 * 3 * 5).reshape(2, 3, 5)
    width = jnp.array([5, 3])
    once = np.asarray(mirror(value, width))
    np.testing.assert_array_equal(once[0], np.asarray(value)[0, :, ::-1])
    np.testing.assert_array_equal(once[1, :, :3], np.asarray(value)[1, :, 2::-1])
    np.testing.assert_array_equal(once[1, :, 3:], np.asarray(value)[1, :, 3:])
    np.testing.assert_array_equal(mirror(mirror(value, width), width), value)
    np.testing.assert_array_equal(mirror(width, width), width)


def test_windows_cover_the_image_and_end_with_it():
    for length in range(1, 60):
        for window in (1, 2, 7, 20, 59, 80):
            starts = offsets(length, window)
            covered = np.zeros(length, int)
            for start in starts:
                covered[start : start + window] += 1
            assert covered.all() and starts == sorted(set(starts)) and starts[-1] == max(length - window, 0)


def test_a_pass_is_refused_before_it_takes_more_memory_than_there_is(monkeypatch):
    example, views = random_example((21, 30)), Views(window=(16, 16))
    expected = merged(views, example, (21, 30))
    monkeypatch.setattr(views_module, "LARGE", 0)
    np.testing.assert_array_equal(merged(views, example, (21, 30)), expected)
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    message = r"predicting 1 images at 21 x 30 in windows of 16x16 takes about .* GiB are free; lower --batch"
    with pytest.raises(InputError, match=message):
        merged(views, example, (21, 30))


def test_a_window_far_larger_than_the_images_is_refused():
    message = "window 16,9000: nearly empty on images of 21 x 30; expected at most 1024,1024, or leave it out"
    with pytest.raises(InputError, match=message):
        merged(Views(window=(16, 9000)), random_example((21, 30)), (21, 30))


def test_a_crf_on_a_photograph_is_refused_without_the_memory(monkeypatch):
    views = Views(crf=PARAMETERS["oaa"])
    assert bands(1, (128, 128), 3, views) == (128, [0])
    monkeypatch.setattr(memory, "available", lambda device: 24 * 2**30)
    message = "a CRF on 8192 x 6144 pixels with 21 classes takes about 61.3 GiB, and 24.0 GiB are free; make the image"
    with pytest.raises(InputError, match=message):
        bands(1, (6144, 8192), 21, views)
    # Without one, no more than a band is computed at a time.
    assert bands(1, (6144, 8192), 21, Views()) == (96, list(range(0, 6144, 96)))


def test_the_free_memory_of_this_machine_is_known():
    assert 2**20 < memory.available(jax.devices()[0]) < 2**45
