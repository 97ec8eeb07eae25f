"""Combinatorial cropping: every subset alike, windows around it, the mask of figure and ground."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.data.order import Order
from scarce_jax.ops.augment import normalise
from scarce_jax.ops.combinatorial import Combinatorial, SubsetDraws, choose_subset, crop_subset

CLASSES = 5
CONFIG = Combinatorial(crop=(16, 16), flip=0.0)


def example(height=24, width=32):
    """Three labels, two of them far apart, and some void; the image's pixels say where they are."""
    label = np.zeros((height, width), np.uint8)
    label[2:6, 3:9], label[15:21, 20:24], label[10:12, 28:31] = 1, 3, 4
    label[0], label[9, 10:14] = 255, 255
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 8, columns * 8, label % 250], -1).astype(np.uint8)
    return {"image": jnp.asarray(image), "label": jnp.asarray(label)}


@functools.partial(jax.jit, static_argnames="config")
def crop(row, keys, config):
    return jax.vmap(lambda key: crop_subset(row, key, config, CLASSES, 0))(keys)


def draw(row, count=4, config=CONFIG, seed=0):
    return jax.tree.map(np.asarray, crop(row, jax.random.split(jax.random.key(seed), count), config))


def test_every_subset_of_the_labels_is_drawn_alike():
    def choose(*labels, positions):
        present = np.zeros(40, bool)
        present[list(labels)] = True
        return [tuple(np.flatnonzero(one).tolist()) for one in np.asarray(chosen(np.float32(positions), present))]

    chosen = jax.jit(jax.vmap(choose_subset, in_axes=(0, None)))
    counts = collections.Counter(choose(1, 3, 4, positions=(np.arange(2800) + 0.5) / 2800))
    assert counts == dict.fromkeys([(1,), (3,), (4,), (1, 3), (1, 4), (3, 4), (1, 3, 4)], 400)
    edges = np.linspace(0, 1 - 2**-23, 2800)
    assert set(choose(positions=edges)) == {()}
    of_forty = choose(*range(40), positions=edges)
    assert (of_forty[0], of_forty[-1]) == ((0,), tuple(range(20)))


def test_windows_enclose_the_subset_and_nothing_else_is_foreground():
    row = example()
    windows = draw(row, 200)
    assert windows["image"].shape == (200, 16, 16, 3) and windows["image"].dtype == np.float32
    assert windows["label"].dtype == np.uint8 and windows["subset"].dtype == bool
    truth = np.asarray(row["label"])
    for image, label, subset in zip(windows["image"], windows["label"], windows["subset"], strict=True):
        pixels = np.asarray(image) * np.array([0.229, 0.224, 0.225]) + np.array([0.485, 0.456, 0.406])
        y, x = pixels[:, 0, 0] * 255 / 8, pixels[0, :, 1] * 255 / 8
        step = y[1] - y[0], x[1] - x[0]
        figure = np.isin(truth, np.flatnonzero(subset))
        rows, columns = np.flatnonzero(figure.any(1)), np.flatnonzero(figure.any(0))
        # Window edges are half a step beyond the outermost pixels' centres.
        assert y[0] - step[0] / 2 <= rows[0] - 0.5 + 1e-2 and y[-1] + step[0] / 2 >= rows[-1] + 0.5 - 1e-2
        assert x[0] - step[1] / 2 <= columns[0] - 0.5 + 1e-2 and x[-1] + step[1] / 2 >= columns[-1] + 0.5 - 1e-2
        at = truth[np.floor(y + 0.5 + 1e-3).astype(int).clip(0, 23)][
            :, np.floor(x + 0.5 + 1e-3).astype(int).clip(0, 31)
        ]
        expected = np.where(at == 255, 255, np.isin(at, np.flatnonzero(subset)))
        # Rounding differs where a pixel's centre lies between two others.
        assert (label == expected).mean() > 0.9 and set(np.unique(label)) <= {0, 1, 255}
    assert (windows["label"] == 255).any() and all((label == 1).any() for label in windows["label"])


def test_windows_grow_as_far_as_the_image_and_are_mirrored():
    row = example()
    whole = draw(row, 4, Combinatorial(crop=(24, 32), enlarge=(50.0, 50.0), flip=0.0))
    np.testing.assert_allclose(whole["image"], np.stack([normalise(row["image"])] * 4), atol=1e-5)
    for label, subset in zip(whole["label"], whole["subset"], strict=True):
        truth = np.asarray(row["label"])
        np.testing.assert_array_equal(label, np.where(truth == 255, 255, np.isin(truth, np.flatnonzero(subset))))
    mirrored = draw(row, 4, Combinatorial(crop=(24, 32), enlarge=(50.0, 50.0), flip=1.0))
    for name in ("image", "label"):
        np.testing.assert_array_equal(mirrored[name], np.asarray(whole[name])[:, :, ::-1])


def positions(window):
    """Source rows [h] and columns [w] of a window, right where it lies in the image."""
    pixels = (window * np.array([0.229, 0.224, 0.225]) + np.array([0.485, 0.456, 0.406])) * 255 / 8
    inside = window.any(-1)
    y, x = (np.nanmedian(np.where(inside, pixels[..., k], np.nan), axis=1 - k) for k in (0, 1))
    return y, x


@pytest.mark.filterwarnings("ignore:All-NaN")
def test_windows_beyond_the_image_keep_their_proportions_and_are_padded_with_void():
    row = example()
    config = Combinatorial(crop=(16, 16), enlarge=(2.0, 3.0), beyond=True, flip=0.0)
    windows = draw(row, 100, config)
    truth, padded = np.asarray(row["label"]), 0
    for image, label, subset in zip(windows["image"], windows["label"], windows["subset"], strict=True):
        y, x = positions(image)
        # The colours at the edge of the image are those of the edge, so the outer ones do not tell the step.
        down, right = np.nanmedian(np.diff(y)), np.nanmedian(np.diff(x))
        np.testing.assert_allclose(down, right, rtol=0.02)
        figure = np.isin(truth, np.flatnonzero(subset))
        side = max(np.ptp(np.flatnonzero(figure.any(axis))) + 1 for axis in (0, 1))
        assert 1.9 < down * 16 / side < 3.1
        # The subset is never cut.
        assert np.unique(label[label != 255]).tolist() == [0, 1] or side * down < 2
        outside = ~image.any(-1)
        assert (label[outside] == 255).all()
        padded += outside.any()
    assert padded > 50


def test_a_part_of_the_resized_window_is_cut_at_a_random_place():
    row = example()
    whole = draw(row, 64, Combinatorial(crop=(24, 32), enlarge=(50.0, 50.0), flip=0.0))
    config = Combinatorial(crop=(20, 30), resized=(24, 32), enlarge=(50.0, 50.0), flip=0.0)
    parts, starts = draw(row, 64, config), set()
    np.testing.assert_array_equal(parts["subset"], whole["subset"])
    for image, label, all_of_it, mask in zip(
        parts["image"], parts["label"], whole["image"], whole["label"], strict=True
    ):
        at = [
            (top, left)
            for top in range(5)
            for left in range(3)
            if np.allclose(image, all_of_it[top : top + 20, left : left + 30], atol=1e-4)
        ]
        assert len(at) == 1
        ((top, left),) = at
        np.testing.assert_array_equal(label, mask[top : top + 20, left : left + 30])
        starts.add((top, left))
    assert {top for top, _ in starts} == set(range(5)) and {left for _, left in starts} == set(range(3))


def test_equal_keys_give_equal_windows_and_the_canvas_beyond_the_image_is_not_seen():
    row = example()
    windows = draw(row, seed=3)
    jax.tree.map(np.testing.assert_array_equal, windows, draw(row, seed=3))
    other = draw(row, seed=4)
    assert not (windows["image"] == other["image"]).all()
    padded = {
        "image": jnp.pad(row["image"], ((0, 8), (0, 16), (0, 0)), constant_values=255),
        "label": jnp.pad(row["label"], ((0, 8), (0, 16)), constant_values=255),
        "height": jnp.int32(24),
        "width": jnp.int32(32),
        "tags": jnp.arange(5),
    }
    padded_windows = draw(padded, seed=3)
    assert set(padded_windows) == {"image", "label", "subset", "tags"}
    for name in windows:
        np.testing.assert_allclose(padded_windows[name], windows[name], atol=1e-5)


def test_an_image_without_labels_is_background():
    row = {**example(), "label": jnp.zeros((24, 32), jnp.uint8)}
    windows = draw(row, 4, Combinatorial(crop=(24, 32), enlarge=(50.0, 50.0), flip=0.0))
    assert not windows["subset"].any() and not windows["label"].any()
    np.testing.assert_allclose(windows["image"][0], normalise(row["image"]), atol=1e-5)


def test_an_epoch_holds_each_subset_n_p_times():
    # The paper's N_t without the N_s images themselves: 200, 600, 1400 and 3000 of images with 1 to 4 labels.
    tags = np.array([[0, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 1], [0] * 5], np.uint8)
    weights = SubsetDraws(200)(tags)
    assert weights.tolist() == [200, 600, 1400, 3000, 0]
    order = Order(len(tags), 0, weights)
    drawn = collections.Counter(order[p] for p in range(order.epoch_length))
    assert dict(sorted(drawn.items())) == {0: 200, 1: 600, 2: 1400, 3: 3000}


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="label has shape"):
        crop_subset({**example(), "label": jnp.zeros((3, 3), jnp.uint8)}, jax.random.key(0), CONFIG, CLASSES, 0)
