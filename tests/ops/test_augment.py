"""Augmentation: what is drawn is applied alike to the image and to every mask."""

import dataclasses
import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.ops.augment import MEAN, STD, Augment, augment, median_blur, normalise

COUNT = 32
ALL = Augment(crop=(48, 40))
NOTHING = Augment(crop=(48, 40), scale=(1, 1), rotate=0, flip=0)


@functools.cache
def compiled(config):
    return jax.jit(jax.vmap(functools.partial(augment, config=config)))


def augmented(config, image, label=None, *, size=None, keys=None):
    """COUNT draws for one image; always of one structure and size, so that a config compiles once."""
    canvas = np.zeros((64, 64), np.uint8)
    label = canvas if label is None else label
    height, width = size or label.shape
    padded_image, padded_label = np.full((64, 64, 3), 251, np.uint8), canvas + 99
    padded_image[: image.shape[0], : image.shape[1]] = image
    padded_label[: label.shape[0], : label.shape[1]] = label
    one = {
        "image": padded_image,
        "label": padded_label,
        "coarse": np.where(padded_label % 2, 255, padded_label),
    }
    one |= {"height": np.int32(height), "width": np.int32(width)}
    row = {name: np.broadcast_to(value, (COUNT, *value.shape)) for name, value in one.items()}
    keys = jax.random.split(jax.random.key(0), COUNT) if keys is None else keys
    return {name: np.asarray(value) for name, value in compiled(config)(row, keys).items()}


def pixels(image):
    """Normalised float back to 0..255."""
    return (image * np.array(STD) + np.array(MEAN)) * 255


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def blocks(height, width, size=12):
    """uint8 [height, width] of constant squares, 0..8."""
    rows, columns = np.mgrid[:height, :width] // size
    return ((rows * 3 + columns) % 9).astype(np.uint8)


def gradient_image():
    """Red is 4 times the row, green 4 times the column: the result tells where each pixel came from."""
    rows, columns = np.mgrid[:64, :64]
    return np.stack([4 * rows, 4 * columns, np.zeros_like(rows)], -1).astype(np.uint8)


@functools.cache
def source_positions(config):
    """[COUNT, *crop, 2] row and column of the source, right where no tap was clamped to the image's edge."""
    return pixels(augmented(config, gradient_image())["image"])[..., :2] / 4


def test_image_and_masks_stay_aligned():
    label = blocks(60, 56)
    result = augmented(ALL, np.repeat(label[..., None] * 25, 3, -1), label)
    compared = 0
    for image, label, coarse in zip(result["image"], result["label"], result["coarse"], strict=True):
        np.testing.assert_array_equal(coarse, np.where(label % 2, 255, label))
        # 5x5 neighbours of the same label: no bilinear tap is of another one, even at scale 2.
        sure = cv2.erode(label, np.ones((5, 5))) == cv2.dilate(label, np.ones((5, 5)))
        sure &= label != 255
        sure[[0, 1, -2, -1]] = sure[:, [0, 1, -2, -1]] = False
        np.testing.assert_allclose(pixels(image)[sure], label[sure][:, None] * 25.0 + np.zeros(3), atol=0.01)
        compared += sure.mean() / COUNT
    assert compared > 0.1


def test_masks_are_never_interpolated():
    label = noise(50, 50) % 3 * 100
    result = augmented(ALL, noise(50, 50, 3), label)["label"]
    assert result.dtype == np.uint8
    assert set(np.unique(result)) == {0, 100, 200, 255}


def test_equals_opencv_inside_the_image():
    image = cv2.resize(noise(10, 10, 3), (64, 64))
    label = blocks(64, 64)
    result = augmented(ALL, image, label)
    rows, columns = np.mgrid[:48, :40]
    for source, warped, warped_label in zip(source_positions(ALL), result["image"], result["label"], strict=True):
        # The map is the best affine fit to the measured positions.
        sure = (warped_label != 255) & (source > 1).all(-1) & (source < 62).all(-1)
        design = np.stack([columns[sure], rows[sure], np.ones(sure.sum())], -1)
        affine = np.linalg.lstsq(design, source[sure][:, ::-1])[0].T  # [2, 3], from and to (x, y)
        flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
        expected = cv2.warpAffine(image, affine, (40, 48), flags=flags)
        difference = np.abs(pixels(warped) - expected)[sure]
        assert difference.mean() < 1.0 and np.quantile(difference, 0.99) < 3.0
        flags = cv2.WARP_INVERSE_MAP | cv2.INTER_NEAREST
        expected = cv2.warpAffine(label, affine, (40, 48), flags=flags, borderValue=255)
        assert np.mean(expected == warped_label) > 0.99


def test_the_map_has_the_configured_scale_rotation_and_flip():
    source = source_positions(ALL)
    inside = ((source > 1) & (source < 62))[:, 20:29, 15:24].all((1, 2, 3))
    assert inside.mean() > 0.5
    down = (source[inside, 28, 19] - source[inside, 20, 19]) / 8
    right = (source[inside, 24, 23] - source[inside, 24, 15]) / 8
    scale = 1 / np.hypot(*down.T)
    np.testing.assert_allclose(scale, 1 / np.hypot(*right.T), atol=0.01)  # one factor for both axes
    np.testing.assert_allclose((down * right).sum(1), 0, atol=0.01)  # no shear
    angle = np.degrees(np.arctan2(down[:, 1], down[:, 0]))
    assert 0.49 < scale.min() < 0.9 and 1.6 < scale.max() < 2.01
    assert -10.1 < angle.min() < -5 and 5 < angle.max() < 10.1
    assert 0.2 < np.mean(right[:, 1] < 0) < 0.8


def test_unrotated_unscaled_crops_copy_pixels_and_reach_every_position():
    config = dataclasses.replace(NOTHING, rotate=20, rotate_probability=0.5)
    label = np.arange(49 * 42).reshape(49, 42) % 241
    image = np.stack([label, label, label], -1)
    result = augmented(config, image, label.astype(np.uint8))
    starts, copies = set(), 0
    for crop, warped in zip(result["label"], pixels(result["image"])[..., 0], strict=True):
        corners = {
            (top, left)
            for top in range(2)
            for left in range(3)
            if np.abs(warped - label[top : top + 48, left : left + 40]).max() < 1e-3
        }
        for top, left in corners:
            np.testing.assert_array_equal(crop, label[top : top + 48, left : left + 40])
        starts |= corners
        copies += len(corners)
    assert starts == {(top, left) for top in range(2) for left in range(3)}
    assert 0.25 < copies / COUNT < 0.75  # the others were rotated


def test_equal_keys_give_equal_rows_and_other_keys_other_ones():
    keys = jax.random.split(jax.random.key(0), COUNT)
    result = augmented(ALL, noise(50, 50, 3), keys=keys.at[1].set(keys[0]))["image"]
    np.testing.assert_array_equal(result[0], result[1])
    assert np.abs(result[0] - result[2]).max() > 0.1


def test_only_the_valid_part_of_the_canvas_is_seen():
    image, label = np.full((30, 41, 3), 20, np.uint8), np.full((30, 41), 2, np.uint8)
    result = augmented(ALL, image, label)
    assert set(np.unique(result["label"])) == {2, 255}
    inside = result["label"] == 2
    assert 0.1 < inside.mean() < 0.9
    np.testing.assert_allclose(pixels(result["image"])[inside], 20, atol=0.01)
    assert not np.any(result["image"][~inside])


def test_identity_without_anything_to_draw():
    image, label = noise(48, 40, 3), noise(48, 40)
    result = augmented(NOTHING, image, label)
    assert result["image"].dtype == np.float32
    np.testing.assert_array_equal(result["label"], np.broadcast_to(label, (COUNT, 48, 40)))
    np.testing.assert_array_equal(result["coarse"], np.where(label % 2, 255, label) + np.zeros_like(result["coarse"]))
    np.testing.assert_allclose(result["image"][0], normalise(jnp.asarray(image)), atol=1e-6)


def test_an_image_smaller_than_the_crop_is_centred():
    result = augmented(NOTHING, noise(20, 21, 3), np.full((20, 21), 2, np.uint8))["label"][0]
    expected = np.full((48, 40), 255, np.uint8)
    expected[14:34, 10:31] = 2
    np.testing.assert_array_equal(result, expected)


def test_one_of_the_listed_scales_is_drawn():
    config = dataclasses.replace(NOTHING, scale=Augment.scale, scales=(0.8, 1.0, 1.7))
    source = source_positions(config)
    step = (source[:, 26, 19, 0] - source[:, 20, 19, 0]) / 6
    found = np.abs(1 / step[:, None] - np.array(config.scales)) < 0.01
    # Of 32 draws, each factor has about a third.
    assert found.any(1).all() and found.sum(0).min() > 4


def test_images_are_moved_by_whole_pixels_in_every_direction():
    config = Augment(crop=(64, 64), scale=(1, 1), rotate=0, flip=0.5, translate=2)
    label = blocks(64, 64, 1)
    image = np.repeat(label[..., None], 3, -1)
    result = augmented(config, image, label)
    places = {}
    for crop, warped in zip(result["label"], pixels(result["image"])[..., 0], strict=True):
        inside = crop != 255
        moves = [
            (down, right, flip)
            for flip in (1, -1)
            for down in range(-3, 4)
            for right in range(-3, 4)
            if (
                crop == np.pad(label[:, ::flip], 3, constant_values=255)[3 - down : 67 - down, 3 - right : 67 - right]
            ).all()
        ]
        assert len(moves) == 1
        places[moves[0]] = True
        np.testing.assert_allclose(warped[inside], crop[inside], atol=1e-3)
    downs, rights, flips = (set(axis) for axis in zip(*places, strict=True))
    assert downs == rights == set(range(-2, 3)) and flips == {1, -1}


def test_flip_is_a_mirror():
    image, label = noise(48, 40, 3), noise(48, 40)
    result = augmented(dataclasses.replace(NOTHING, flip=1), image, label)
    np.testing.assert_array_equal(result["label"][0], label[:, ::-1])
    np.testing.assert_allclose(pixels(result["image"][0]), image[:, ::-1], atol=1e-3)


def test_colour_jitter_leaves_geometry_and_filling_alone():
    image, label = np.full((50, 50, 3), (90, 120, 60), np.uint8), blocks(50, 50)
    plain = augmented(ALL, image, label)
    jittered = augmented(dataclasses.replace(ALL, brightness=0.4, contrast=0.4, saturation=0.4), image, label)
    np.testing.assert_array_equal(plain["label"], jittered["label"])
    outside = plain["label"] == 255
    assert not np.any(jittered["image"][outside])
    # One colour stays one colour within an image, and differs between images.
    colours = np.array([pixels(x)[~o][0] for x, o in zip(jittered["image"], outside, strict=True)])
    for x, o, colour in zip(jittered["image"], outside, colours, strict=True):
        np.testing.assert_allclose(pixels(x)[~o], colour + np.zeros(((~o).sum(), 3)), atol=0.05)
    assert np.ptp(colours, axis=0).min() > 10
    # Saturation moves the channels relative to each other beyond what brightness does.
    assert np.ptp(colours[:, 1] / colours[:, 2]) > 0.2


def test_brightness_is_a_factor():
    image = np.repeat(np.repeat([[[60], [140]]], 24, 0), 20, 1).astype(np.uint8) + np.zeros(3, np.uint8)
    result = pixels(augmented(dataclasses.replace(NOTHING, brightness=0.5), image, image[..., 0])["image"])
    factor = result[:, 12, 10, 0] / 60
    assert 0.5 <= factor.min() < 0.7 and 1.3 < factor.max() <= 1.5
    np.testing.assert_allclose(result[:, 12, 30, 0], np.minimum(140 * factor, 255), atol=0.01)


def test_contrast_keeps_the_mean_of_the_image_whatever_surrounds_it():
    image = np.repeat(np.repeat([[[60], [140]]], 20, 0), 10, 1).astype(np.uint8) + np.zeros(3, np.uint8)
    result = augmented(dataclasses.replace(NOTHING, contrast=0.5), image, image[..., 0])
    inside = result["label"][0] != 255
    dark = pixels(result["image"])[:, 24, 12, 0]
    np.testing.assert_allclose(pixels(result["image"])[:, inside].mean((1, 2)), 100, atol=0.05)
    assert np.ptp(dark) > 10  # 60 moves between 40 and 80


def test_a_shift_moves_image_and_masks_by_the_same_share_of_the_size():
    image, label = np.full((48, 40, 3), 200, np.uint8), blocks(48, 40)
    result = augmented(dataclasses.replace(NOTHING, shift=0.25), image, label)
    plain = augmented(NOTHING, image, label)["label"][0]
    moved = set()
    for mask, shifted in zip(result["label"], result["image"], strict=True):
        inside = mask != 255
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        np.testing.assert_array_equal(inside, np.outer(inside.any(1), inside.any(0)))
        # The part that is left is the plain one's, from the other side.
        down = rows[0] if rows[0] else rows[-1] - 47
        right = columns[0] if columns[0] else columns[-1] - 39
        source = plain[max(-down, 0) : 48 - max(down, 0), max(-right, 0) : 40 - max(right, 0)]
        np.testing.assert_array_equal(mask[inside].reshape(source.shape), source)
        assert not shifted[~inside].any()
        moved.add((int(down), int(right)))
    assert len(moved) > 20
    assert all(abs(down) <= 12 and abs(right) <= 10 for down, right in moved)
    assert max(abs(down) for down, _ in moved) > 8 and max(abs(right) for _, right in moved) > 7


@pytest.mark.parametrize("side", [3, 5])
def test_median_blur_equals_the_slow_median(side):
    image = np.random.default_rng(0).uniform(0, 255, (9, 7, 3)).astype(np.float32)
    padded = np.pad(image, [(side // 2,) * 2, (side // 2,) * 2, (0, 0)], mode="edge")
    slow = np.zeros_like(image)
    for i, j, c in np.ndindex(image.shape):
        slow[i, j, c] = np.median(padded[i : i + side, j : j + side, c])
    np.testing.assert_array_equal(median_blur(jnp.asarray(image), side), slow)


def test_noise_has_a_drawn_deviation_in_about_half_of_the_images():
    image = np.full((48, 40, 3), 120, np.uint8)
    result = pixels(augmented(dataclasses.replace(NOTHING, noise=12.0), image, image[..., 0])["image"]) - 120
    deviations = result.std((1, 2, 3))
    noisy = deviations > 0.01
    assert 8 <= noisy.sum() <= 24
    assert deviations.max() <= 12.5 and deviations[noisy].max() > 9 and deviations[noisy].min() < 3
    np.testing.assert_allclose(result[noisy].mean((1, 2, 3)), 0, atol=1)
    always = dataclasses.replace(NOTHING, noise=12.0, distort_probability=1.0)
    assert (pixels(augmented(always, image, image[..., 0])["image"]).std((1, 2, 3)) > 0.01).all()


def test_channels_are_shifted_each_by_itself():
    image = np.full((48, 40, 3), (40, 120, 200), np.uint8)
    always = dataclasses.replace(NOTHING, rgb_shift=20.0, distort_probability=1.0)
    result = pixels(augmented(always, image, image[..., 0])["image"]) - (40, 120, 200)
    np.testing.assert_allclose(result, np.broadcast_to(result[:, :1, :1], result.shape), atol=1e-3)
    shifts = result[:, 0, 0]
    assert np.abs(shifts).max() <= 20.01 and np.ptp(shifts, axis=0).min() > 25
    assert np.abs(np.corrcoef(shifts.T)[np.triu_indices(3, 1)]).max() < 0.6


def test_further_changes_leave_the_earlier_draws_as_they_were():
    image, label = noise(50, 50, 3), blocks(50, 50)
    distorted = dataclasses.replace(ALL, noise=5.0, blur=3, rgb_shift=9.0)
    plain, changed = augmented(ALL, image, label), augmented(distorted, image, label)
    np.testing.assert_array_equal(plain["label"], changed["label"])
    assert not np.array_equal(plain["image"], changed["image"])


def test_other_entries_pass_through_and_sizes_are_dropped():
    row = {"image": jnp.zeros((8, 8, 3), jnp.uint8), "fine": jnp.zeros((8, 8), jnp.uint8)}
    extra = {"tags": jnp.zeros(3, jnp.uint8), "index": jnp.int32(3)}
    sizes = {"height": jnp.int32(8), "width": jnp.int32(8)}
    result = jax.eval_shape(functools.partial(augment, config=ALL), row | extra | sizes, jax.random.key(0))
    assert {name: (value.shape, value.dtype.name) for name, value in result.items()} == {
        "image": ((48, 40, 3), "float32"),
        "fine": ((48, 40), "uint8"),
        "tags": ((3,), "uint8"),
        "index": ((), "int32"),
    }


def test_normalise():
    image = jnp.array([[0, 0, 0], [255, 255, 255]], jnp.uint8)
    expected = [[-2.117904, -2.035714, -1.804444], [2.248908, 2.428571, 2.64]]
    np.testing.assert_allclose(normalise(image), expected, atol=1e-5)


def test_a_mask_of_another_size_is_an_error():
    row = {"image": jnp.zeros((8, 8, 3), jnp.uint8), "fine": jnp.zeros((8, 9), jnp.uint8)}
    with pytest.raises(ValueError, match=r"fine has shape \(8, 9\)"):
        jax.eval_shape(functools.partial(augment, config=ALL), row, jax.random.key(0))
