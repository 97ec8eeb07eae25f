"""Strong augmentation: colours change within their ranges, places do not, and CutMix mixes all arrays alike."""

import colorsys
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from scarce_jax.data.schema import IGNORE
from scarce_jax.ops.augment import Augment, augment, denormalise, normalise
from scarce_jax.ops.strong import (
    RATIO,
    Strong,
    cutmix,
    cutmix_box,
    gaussian_blur,
    strong_colours,
    strong_views,
    turn_hue,
)

SIZE = 24, 32
NOTHING = Strong(brightness=0, contrast=0, saturation=0, hue=0, grey=0, blur=0, cutmix=0)
EVERYWHERE = np.ones(SIZE, bool)
COUNT = 64


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def views(config, image, inside=EVERYWHERE):
    """COUNT draws of a uint8 image, in 0..255."""
    keys = jax.random.split(jax.random.key(3), COUNT)
    draw = jax.jit(jax.vmap(lambda key: strong_colours(normalise(image), inside, key, config)))
    return np.asarray(denormalise(draw(keys)))


def test_nothing_changes_at_zero_strength():
    image = noise(*SIZE, 3)
    np.testing.assert_allclose(views(NOTHING, image), np.broadcast_to(image, (COUNT, *image.shape)), atol=1e-3)
    unlikely = dataclasses.replace(Strong(), jitter=0, grey=0, blur=0)
    np.testing.assert_allclose(views(unlikely, image)[0], image, atol=1e-3)


def test_brightness_is_a_factor_in_its_range():
    config = dataclasses.replace(NOTHING, brightness=0.5, jitter=1)
    factors = views(config, np.full((*SIZE, 3), 100, np.uint8))[:, 0, 0, 0] / 100
    assert 0.5 <= factors.min() < 0.6 and 1.4 < factors.max() <= 1.5


def test_grey_and_jitter_have_their_probabilities():
    image = noise(*SIZE, 3)
    grey = views(dataclasses.replace(NOTHING, grey=0.25), image)
    colourless = np.ptp(grey, axis=-1).max((1, 2)) < 1e-2
    assert 0.1 < colourless.mean() < 0.4
    np.testing.assert_allclose(grey[~colourless][0], image, atol=1e-3)
    jittered = views(dataclasses.replace(Strong(), grey=0, blur=0), image)
    assert 0.65 < (np.abs(jittered - image).max((1, 2, 3)) > 0.1).mean() < 0.95


def test_the_padding_stays_the_mean_colour_and_does_not_move_the_contrast():
    image, inside = noise(*SIZE, 3), EVERYWHERE.copy()
    inside[:, 20:] = False
    draw = jax.jit(strong_colours, static_argnums=3)
    config = dataclasses.replace(NOTHING, contrast=1, jitter=1)
    results = [np.asarray(draw(normalise(image), inside, jax.random.key(1), config))]
    image[:, 20:] = 255
    results.append(np.asarray(draw(normalise(image), inside, jax.random.key(1), config)))
    np.testing.assert_array_equal(*results)
    assert not results[0][:, 20:].any() and results[0][:, :20].any()


def test_hue_turns_as_in_hsv():
    pixels = np.concatenate([noise(40, 3), [[0, 0, 0], [90, 90, 90], [255, 255, 0]]]).astype(np.float32)
    for turn in (-0.25, 0.0, 0.1, 1 / 3):
        expected = []
        for red, green, blue in pixels / 255:
            hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
            expected.append(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value))
        np.testing.assert_allclose(jax.jit(turn_hue)(pixels, turn), np.array(expected) * 255, atol=1e-2)


@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.0])
def test_blur_is_a_gaussian(sigma):
    image = noise(*SIZE, 3).astype(np.float32)
    sums, counts = (
        ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="constant", truncate=10)
        for x in (image, np.ones_like(image))
    )
    np.testing.assert_allclose(jax.jit(gaussian_blur)(image, sigma), sums / counts, atol=1e-2)


@pytest.mark.parametrize("size", [SIZE, (200, 200), (8, 160)])
def test_boxes_lie_in_the_image_and_have_their_area_and_ratio(size):
    config = Strong(cutmix=0.5)
    keys = jax.random.split(jax.random.key(0), 400)
    boxes = np.asarray(jax.jit(jax.vmap(lambda key: cutmix_box(key, size, config)))(keys))
    empty = (boxes == 0).all(1)
    assert 0.4 < empty.mean() < 0.6
    top, bottom, left, right = boxes[~empty].T
    assert (top >= 0).all() and (bottom <= size[0]).all() and (left >= 0).all() and (right <= size[1]).all()
    height, width, pixels = bottom - top, right - left, size[0] * size[1]
    assert (height * width <= 0.4 * pixels).all() and ((height + 1) * (width + 1) > 0.02 * pixels).all()
    if size[0] == size[1]:
        assert ((height + 1) / width >= RATIO).all() and ((width + 1) / height >= RATIO).all()
        assert (height * width).max() > 0.35 * pixels
        assert top.max() > 100 and left.max() > 100 and top.min() < 10


def test_cutmix_mixes_all_arrays_alike_from_the_row_before():
    image, label, confidence = (
        np.arange(3 * 4 * 5 * 3, dtype=np.float32).reshape(3, 4, 5, 3),
        np.arange(60, dtype=np.uint8).reshape(3, 4, 5),
        np.linspace(0, 1, 60, dtype=np.float32).reshape(3, 4, 5),
    )
    label[1, 2, 2] = IGNORE
    boxes = np.array([[1, 3, 2, 5], [0, 0, 0, 0], [2, 4, 0, 3]], np.int32)
    mixed = jax.jit(cutmix)((image, label, confidence), boxes)
    for result, array in zip(mixed, (image, label, confidence), strict=True):
        expected = array.copy()
        expected[0, 1:3, 2:5] = array[2, 1:3, 2:5]
        expected[2, 2:4, 0:3] = array[1, 2:4, 0:3]
        assert result.dtype == array.dtype
        np.testing.assert_array_equal(result, expected)
    assert mixed[1][2, 2, 2] == IGNORE  # What is padding in one image is padding in the mixed one.


def test_strong_views_lie_on_the_weak_one():
    row = {"image": noise(40, 40, 3), "height": np.int32(30), "width": np.int32(40)}
    weak = Augment(crop=SIZE, scale=(0.5, 1.0))
    draw, augmented = jax.jit(strong_views, static_argnums=(2, 3, 4)), jax.jit(augment, static_argnums=2)
    for number in range(2):
        key = jax.random.key(number)
        plain = draw(row, key, weak, NOTHING, 2)
        assert set(plain) == {"image", "inside", "strong", "boxes"} and plain["strong"].shape == (2, *SIZE, 3)
        expected = augmented({**row, "label": np.zeros((40, 40), np.uint8)}, key, weak)
        np.testing.assert_allclose(plain["image"], expected["image"], atol=1e-5)
        np.testing.assert_array_equal(plain["inside"], expected["label"] == 0)
        for view in plain["strong"]:
            np.testing.assert_allclose(view, plain["image"], atol=1e-4)
        changed = draw(row, key, weak, Strong(jitter=1, cutmix=1), 2)
        np.testing.assert_allclose(changed["image"], plain["image"], atol=1e-5)
        assert not jnp.array_equal(changed["strong"][0], changed["strong"][1])
        assert not jnp.array_equal(changed["boxes"][0], changed["boxes"][1])
        assert not np.asarray(changed["strong"])[:, ~np.asarray(changed["inside"])].any()
