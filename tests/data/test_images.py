import numpy as np
import pytest

from scarce_jax.data.images import (
    read_image,
    resize_image,
    resize_label,
    write_png,
)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_png_is_written_whole_or_not_at_all(tmp_path):
    image = noise(3, 4, 3)
    write_png(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)
    for wrong in (image.astype(np.float32), noise(3, 4, 4), noise(3)):
        with pytest.raises(ValueError, match=r"expected uint8 \[H, W\]"):
            write_png(tmp_path / "a.png", wrong)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_shrinking_averages_areas():
    image = noise(12, 20, 3)
    expected = image.reshape(4, 3, 5, 4, 3).mean(axis=(1, 3))
    assert np.abs(resize_image(image, (4, 5)) - expected).max() <= 0.5
    # Stripes of one pixel become their mean, whatever the factor; a two-tap filter would alias.
    stripes = np.repeat((np.arange(60) % 2 * 200).astype(np.uint8)[None, :, None], 6, 0).repeat(3, 2)
    assert np.abs(resize_image(stripes, (6, 7)).astype(int) - 100).max() <= 25


def test_shrinking_one_axis_and_growing_the_other():
    image = noise(12, 8, 3)
    averaged = image.reshape(4, 3, 8, 3).mean(axis=1)
    found = resize_image(image, (4, 24))
    assert found.shape == (4, 24, 3)
    # Every third new pixel has its centre on an old one.
    assert np.abs(found[:, 1::3] - averaged).max() <= 1


def test_growing_is_bilinear_and_the_same_size_is_the_same_image():
    ramp = np.arange(0, 80, 10, dtype=np.uint8)[None, :].repeat(4, 0)
    found = resize_image(ramp, (4, 16))[0].astype(float)
    expected = np.clip((np.arange(16) + 0.5) / 2 - 0.5, 0, 7) * 10
    assert np.abs(found - expected).max() <= 0.5
    image = noise(5, 6, 3)
    np.testing.assert_array_equal(resize_image(image, (5, 6)), image)


def test_labels_take_the_nearest_pixel_centre():
    rng = np.random.default_rng(0)
    for _ in range(200):
        (height, width), (h, w) = rng.integers(1, 65, (2, 2)).tolist()
        rows, columns = np.indices((height, width), np.uint8)
        taken = resize_label(rows, (h, w)), resize_label(columns, (h, w))
        centres = ((np.arange(h) + 0.5) * height / h - 0.5)[:, None], (np.arange(w) + 0.5) * width / w - 0.5
        for found, centre in zip(taken, centres, strict=True):
            assert found.shape == (h, w)
            # At exactly half-way either neighbour will do.
            assert np.abs(found - centre).max() <= 0.5 + 1e-9
    mask = np.array([[0, 255, 7]], np.uint8)
    np.testing.assert_array_equal(resize_label(mask, (2, 6)), [[0, 0, 255, 255, 7, 7]] * 2)
