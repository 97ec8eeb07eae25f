"""Colours of masks, overlays and their legend."""

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

from scarce_jax.data.images import read_mask, write_png
from scarce_jax.data.pictures import BAND, HEAT, add_legend, colourise, counts, file_palette, heat, overlay
from scarce_jax.errors import InputError

PALETTE = ((10, 20, 30), (200, 0, 0), (0, 200, 0))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_colourise():
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    assert colourise(mask, PALETTE).tolist() == [
        [list(PALETTE[0]), list(PALETTE[1])],
        [list(PALETTE[2]), [0] * 3],
    ]
    with pytest.raises(InputError, match=r"ids \[3\], expected 0\.\.2 or 255"):
        colourise(np.array([[3]], np.uint8), PALETTE)


def test_a_map_over_an_image_hides_as_much_of_it_as_its_value():
    image = noise(BAND + 3, 4, 3)
    values = np.zeros((BAND + 3, 4), np.uint8)
    values[-1] = [0, 51, 204, 255]
    shown = heat(image, values, alpha=0.5)
    np.testing.assert_array_equal(shown[:-1], image[:-1])
    for k, value in enumerate(values[-1]):
        expected = image[-1, k] * (1 - value / 510) + HEAT[value] * (value / 510)
        np.testing.assert_allclose(shown[-1, k], expected, atol=0.51)


def test_overlay_tints_regions_outlines_them_and_leaves_ignore_alone():
    image = noise(9, 12, 3)
    mask = np.full((9, 12), 255, np.uint8)
    mask[:, :4], mask[:, 4:8] = 1, 2
    shown = overlay(image, mask, PALETTE, alpha=0.25)
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[mask == 255], image[mask == 255])
    inside = [(1, slice(0, 3)), (2, slice(5, 7))]
    for k, columns in inside:
        expected = 0.75 * image[:, columns] + 0.25 * np.array(PALETTE[k])
        assert np.abs(shown[:, columns] - expected).max() <= 0.5
    for k, column in [(1, 3), (2, 4), (2, 7)]:
        np.testing.assert_array_equal(shown[:, column], np.tile(PALETTE[k], (9, 1)))
    # A bottom and a right neighbour count as much as a left and a top one.
    np.testing.assert_array_equal(
        overlay(image.transpose(1, 0, 2), mask.T, PALETTE, alpha=0.25), shown.transpose(1, 0, 2)
    )
    with pytest.raises(ValueError, match=r"image \[9, 12, 3\] and mask \[12, 9\]"):
        overlay(image, mask.T, PALETTE)


def test_an_image_of_several_bands_is_tinted_as_in_one():
    image, mask = noise(2 * BAND + 7, 5, 3), noise(2 * BAND + 7, 5) % 3
    shown = overlay(image, mask, PALETTE)
    middle = slice(BAND - 3, BAND + 3)
    around = slice(BAND - 4, BAND + 4)
    np.testing.assert_array_equal(shown[middle], overlay(image[around], mask[around], PALETTE)[1:-1])
    assert counts(mask) == {k: int((mask == k).sum()) for k in range(3)}


def test_a_mask_file_has_ids_and_the_colours_of_its_classes(tmp_path):
    ids = np.array([[7, 9], [8, 255]], np.uint8)
    write_png(tmp_path / "a.png", ids, file_palette(PALETTE, (7, 8, 9)))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), ids)
    shown = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    void = shown[1, 1].tolist()
    assert shown.tolist() == [[list(PALETTE[0]), list(PALETTE[2])], [list(PALETTE[1]), void]]
    # Neither a class's colour nor that of a background.
    assert void not in [[0, 0, 0], *map(list, PALETTE)]


def test_a_legend_hides_no_pixel_and_has_the_classes_of_the_mask():
    mask = np.zeros((96, 96), np.uint8)
    mask[:10], mask[90:] = 2, 255
    image = noise(96, 96, 3)
    whole = add_legend(image, mask, ("road", "car", "tree"), PALETTE)
    np.testing.assert_array_equal(whole[:96, :96], image)
    strip = {tuple(colour) for colour in whole[96:].reshape(-1, 3).tolist()}
    assert {PALETTE[0], PALETTE[2]} <= strip and PALETTE[1] not in strip
    assert (whole[96:] != 255).any(2).sum() > 2 * 12 * 12, "there is text beside the boxes"
    # Void alone has no legend.
    np.testing.assert_array_equal(add_legend(image, np.full_like(mask, 255), ("a", "b", "c"), PALETTE), image)


def test_a_legend_is_wider_than_a_narrow_image_and_grows_with_a_large_one():
    narrow = add_legend(noise(30, 2, 3), np.ones((30, 2), np.uint8), ("road", "a name of many letters"), PALETTE)
    assert narrow.shape[1] > 100 and (narrow[:30, 2:] == 255).all()
    shape = (1200, 1600)
    large = add_legend(np.zeros((*shape, 3), np.uint8), np.ones(shape, np.uint8), ("road", "car"), PALETTE)
    assert large.shape[1] == 1600 and large.shape[0] - 1200 > 2 * (narrow.shape[0] - 30)


def test_names_of_any_script_are_written_and_others_become_numbers(monkeypatch):
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])

    def legend(name):
        return add_legend(np.zeros((40, 400, 3), np.uint8), np.ones((40, 400), np.uint8), ("void", name), PALETTE)

    same = legend("class 1")
    assert (legend("дорога") != same).any()
    # The font that is always there has no Chinese.
    np.testing.assert_array_equal(legend("猫"), same)
    # A line break would draw over the image of the next line.
    assert legend("a\nb").shape == same.shape


def test_a_legend_of_very_many_classes_ends():
    classes = [f"class {k}" for k in range(200)]
    mask = (np.arange(200 * 20) % 200).astype(np.uint8).reshape(200, 20)
    palette = [(k, 1, 1) for k in range(200)]
    whole = add_legend(np.zeros((200, 20, 3), np.uint8), mask, classes, palette)
    strip = {tuple(colour) for colour in whole[200:].reshape(-1, 3).tolist()}
    assert 30 <= len(strip & set(palette)) <= 60
