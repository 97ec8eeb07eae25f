import cv2
import numpy as np
import pytest

from scarce_jax.data.coarse import CoarseMeter, CoarseSettings, example_rng, simulate_coarse


def _rng():
    return np.random.default_rng(0)


def coarse_quality(fine, coarse, classes):
    """The quality of one coarse mask."""
    meter = CoarseMeter(classes)
    meter.add(fine, coarse)
    return meter.quality()


def _discs(size: int = 200) -> np.ndarray:
    """Background 0, a large disc of class 1 with a disc of class 2 inside it, a speck of class 3, a void corner."""
    fine = np.zeros((size, size), np.uint8)
    centre = size // 2
    cv2.circle(fine, (centre, centre), int(0.35 * size), 1, -1)
    cv2.circle(fine, (centre, centre), int(0.12 * size), 2, -1)
    cv2.circle(fine, (size // 10, size // 10), size // 50, 3, -1)
    fine[-size // 5 :, -size // 5 :] = 255
    return fine


def test_same_example_gives_the_same_mask_and_another_example_another():
    fine = _discs()
    first, again, other = (simulate_coarse(fine, rng=example_rng("scenes", name)) for name in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != simulate_coarse(fine, rng=example_rng("camvid", "a"))).any()


def test_void_stays_unlabelled_and_no_class_is_invented():
    fine = _discs()
    coarse = simulate_coarse(fine, rng=_rng())
    assert coarse.dtype == np.uint8 and coarse.shape == fine.shape
    assert (coarse[fine == 255] == 255).all()
    assert set(np.unique(coarse)) <= set(np.unique(fine))


def test_speck_is_dropped_and_object_inside_an_object_survives():
    coarse = simulate_coarse(_discs(), rng=_rng())
    assert not (coarse == 3).any()
    assert coarse[100, 100] == 2
    assert coarse[100, 150] == 1


def test_labels_are_well_inside_their_regions():
    quality = coarse_quality(fine := _discs(), simulate_coarse(fine, rng=_rng()), 4)
    assert 0.5 < quality.coverage < 0.95
    assert quality.precision > 0.97
    assert quality.miou < 0.75


def test_without_erosion_simplification_and_jitter_the_fine_mask_comes_back():
    fine = _discs()
    coarse = simulate_coarse(
        fine, rng=_rng(), settings=CoarseSettings(erosion=0, simplification=0, min_area=0, jitter=0)
    )
    np.testing.assert_array_equal(coarse, fine)


def test_a_hole_stays_a_hole():
    fine = np.zeros((120, 120), np.uint8)
    cv2.circle(fine, (60, 60), 50, 1, -1)
    cv2.circle(fine, (60, 60), 28, 255, -1)
    coarse = simulate_coarse(fine, rng=_rng())
    assert (coarse == 1).sum() > 500
    # Background 0 lies outside the ring, so a polygon without its hole would label the centre.
    wide = fine.copy()
    wide[wide == 255] = 0
    coarse = simulate_coarse(wide, rng=_rng())
    assert coarse[60, 60] == 0


def test_parameters_follow_the_image_size():
    small, large = _discs(120), _discs(360)
    coverages = [coarse_quality(f, simulate_coarse(f, rng=_rng()), 4).coverage for f in (small, large)]
    assert coverages[0] == pytest.approx(coverages[1], abs=0.06)


def test_more_erosion_leaves_fewer_pixels():
    fine = _discs()
    counts = [
        (simulate_coarse(fine, rng=_rng(), settings=CoarseSettings(erosion=e)) != 255).sum()
        for e in (0.005, 0.02, 0.05)
    ]
    assert counts[0] > counts[1] > counts[2]


def test_an_image_without_labels_gives_no_labels():
    assert (simulate_coarse(np.full((20, 30), 255, np.uint8), rng=_rng()) == 255).all()


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.int32), np.zeros((4, 4, 1), np.uint8)])
def test_anything_but_a_uint8_mask_is_refused(bad):
    with pytest.raises(ValueError, match=r"uint8 \[H, W\], got"):
        simulate_coarse(bad, rng=_rng())


def test_unlabelled_pixel_misses_its_class_and_is_a_false_positive_of_none():
    fine = np.array([[0, 0, 1, 1]], np.uint8)
    quality = coarse_quality(fine, np.array([[0, 255, 1, 255]], np.uint8), 2)
    assert (quality.coverage, quality.precision, quality.miou) == (0.5, 1.0, 0.5)


def test_wrong_label_lowers_both_classes():
    fine = np.array([[0, 0, 1, 1]], np.uint8)
    quality = coarse_quality(fine, np.array([[0, 1, 1, 1]], np.uint8), 3)
    assert quality.precision == 0.75
    assert quality.miou == pytest.approx((1 / 2 + 2 / 3) / 2)  # class 2 is nowhere and not in the mean


def test_void_truth_counts_nowhere():
    fine = np.array([[0, 255, 255]], np.uint8)
    quality = coarse_quality(fine, np.array([[0, 0, 1]], np.uint8), 2)
    assert (quality.coverage, quality.precision, quality.miou) == (1.0, 1.0, 1.0)


def test_meter_pools_pixels_over_images():
    meter = CoarseMeter(2)
    meter.add(np.zeros((1, 9), np.uint8), np.zeros((1, 9), np.uint8))
    meter.add(np.zeros((1, 1), np.uint8), np.full((1, 1), 255, np.uint8))
    assert meter.quality().coverage == pytest.approx(0.9)


def test_nothing_to_compare_is_none_not_zero():
    assert CoarseMeter(2).quality().miou is None
    void = np.full((2, 2), 255, np.uint8)
    assert coarse_quality(void, void, 2).precision is None


def test_masks_of_different_size_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 3\].*\[3, 2\]"):
        coarse_quality(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)
