import numpy as np
import pytest
import scipy.ndimage

from scarce_jax.cpu.superpixels import adjacency, at_border, cielab, normalised, region_means, superpixels

REGIONS = np.array([[0, 0, 1], [2, 0, 1], [2, 3, 3]])


def segment(image, segments=40, compactness=20.0):
    return superpixels(cielab(image), segments=segments, compactness=compactness, iterations=5)


def two_tones(rng, height=48, width=48):
    """A dark slanted half and a bright one, with noise; and which is which."""
    bright = np.arange(height)[:, None] + 2 * np.arange(width) > 70
    image = np.where(bright[..., None], [200, 190, 60], [40, 60, 120]) + rng.integers(-8, 8, (height, width, 3))
    return image.astype(np.uint8), bright


def test_cielab_of_known_colours():
    image = np.uint8([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]])
    np.testing.assert_allclose(cielab(image)[0], [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]], atol=0.05)
    np.testing.assert_allclose(normalised(cielab(image))[0, 2], [0.5324, 0.3141, 0.2635], atol=5e-4)


def test_superpixels_are_connected_and_keep_to_outlines():
    image, bright = two_tones(np.random.default_rng(0))
    regions = segment(image)
    assert regions.shape == (48, 48)
    assert 20 <= regions.max() + 1 <= 60
    for region in range(regions.max() + 1):
        assert scipy.ndimage.label(regions == region)[1] == 1
    share = region_means(bright[..., None], regions)[:, 0]
    assert (np.minimum(share, 1 - share) < 0.2).all()


def test_superpixels_do_not_depend_on_the_contrast_elsewhere():
    image = np.random.default_rng(1).integers(90, 130, (64, 64, 3)).astype(np.uint8)
    before = segment(image)
    image[:3, :3] = [[[0, 255, 0], [255, 0, 255], [0, 0, 0]]]
    after = segment(image)
    pairs = np.stack([before[32:, 32:].ravel(), after[32:, 32:].ravel()], -1)
    # The same regions under other ids.
    assert len(np.unique(pairs, axis=0)) == len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1]))


@pytest.mark.parametrize(("shape", "segments"), [((1, 1), 1), ((1, 9), 4), ((2, 3), 300), ((12, 10), 1), ((9, 8), 12)])
def test_small_and_plain_images_give_consecutive_ids(shape, segments):
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    for image in (np.zeros_like(noise), np.full_like(noise, 90), noise):
        regions = segment(image, segments)
        assert regions.shape == shape
        assert np.unique(regions).tolist() == list(range(regions.max() + 1))


def test_region_means_equal_a_loop():
    values = np.random.default_rng(0).normal(size=(3, 3, 5)).astype(np.float32)
    expected = [values[region == REGIONS].mean(0) for region in range(4)]
    np.testing.assert_allclose(region_means(values, REGIONS), expected, rtol=1e-6)
    assert region_means(values[..., :0], REGIONS).shape == (4, 0)


def test_regions_that_share_a_side_are_adjacent():
    # 1 and 2 do not touch; 0 and 3 do, below the middle.
    assert adjacency(REGIONS).tolist() == [[0, 1], [0, 2], [0, 3], [1, 3], [2, 3]]
    assert adjacency(np.array([[0, 1], [2, 0]])).tolist() == [[0, 1], [0, 2]]
    assert adjacency(np.zeros((3, 3), int)).shape == (0, 2)


def test_regions_at_the_border():
    regions = np.zeros((4, 5), int)
    regions[1:3, 1:3], regions[2, 3:] = 1, 2
    assert at_border(regions).tolist() == [True, False, True]
