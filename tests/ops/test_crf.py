"""The dense CRF against its definition over all pairs of pixels, and against the lattice of the authors' program."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.errors import InputError
from scarce_jax.ops.crf import (
    CRF,
    PARAMETERS,
    dense_crf,
    label_energies,
    lattice_vertices,
    mean_field,
    probability_energies,
    refine_labels,
)
from tests.ops import crf_reference

HEIGHT, WIDTH = 24, 28
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
HALVES = (COLUMNS >= WIDTH // 2).astype(np.uint8)  # the truth of `scene`


def scene():
    """uint8 [H, W, 3]: two areas, each of a slowly changing colour, and noise."""
    noise = np.random.default_rng(0).normal(0, 2, (HEIGHT, WIDTH, 3))
    colours = np.where(HALVES[..., None], (150, 90, 60), (70, 120, 160)) + ROWS[..., None] * (0.5, 1, -0.5)
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


def noisy_labels():
    flipped = np.random.default_rng(1).random((HEIGHT, WIDTH)) < 0.15
    return np.where(flipped, 1 - HALVES, HALVES).astype(np.uint8)


def test_parameter_sets():
    sets = {
        name: (
            *(crf.position_sigma, crf.position_weight, crf.bilateral_sigma, crf.colour_sigma, crf.bilateral_weight),
            crf.iterations,
        )
        for name, crf in PARAMETERS.items()
    }
    assert sets == {
        "irn": (3, 3, 50, 5, 10, 10),
        "oaa": (3, 1, 67, 4, 3, 1),
        "deeplab_v2": (1, 3, 67, 3, 4, 10),
        "largefov": (3, 3, 140, 5, 5, 10),
        "deeplab": (3, 3, 50, 10, 5, 10),
        "sec": (3, 3, 80, 13, 10, 10),
        "deconvnet": (3, 3, 20, 3, 5, 10),
    }
    assert {name for name, crf in PARAMETERS.items() if crf.clip != 1e-5} == {"oaa"}
    assert PARAMETERS["oaa"].clip == 1e-4
    small = PARAMETERS["sec"].scaled(1 / 12)
    assert (small.position_sigma, small.bilateral_sigma, small.colour_sigma) == pytest.approx((0.25, 80 / 12, 13))


@pytest.mark.parametrize(("classes", "other"), [(2, 1.203973), (3, 1.897120), (21, 4.199705)])
def test_energies_of_labels(classes, other):
    labels = np.array([[[0, 1, 255]]], np.uint8)
    energies = np.full((1, 1, 3, classes), other)
    energies[0, 0, 0, 0] = energies[0, 0, 1, 1] = 0.356675
    energies[0, 0, 2] = np.log(classes)
    np.testing.assert_allclose(label_energies(labels, classes), energies, atol=1e-6)
    # Of 25 classes, those present alone count.
    present = np.arange(25)[None] < classes
    within = label_energies(labels, 25, present=present)
    np.testing.assert_allclose(within[..., :classes], energies, atol=1e-6)
    assert np.all(np.isposinf(within[..., classes:]))


def test_one_class_alone_has_finite_energies():
    labels = np.array([[[0, 255]]])
    energies = label_energies(labels, 3, present=np.array([[True, False, False]]))
    np.testing.assert_allclose(energies[0, 0], [[-np.log(0.7), np.inf, np.inf], [0, np.inf, np.inf]], atol=1e-6)


def test_energies_of_probabilities_are_clipped():
    energies = probability_energies(jnp.array([0.0, 1e-6, 0.25, 1.0]), clip=1e-4)
    np.testing.assert_allclose(energies, [9.210340, 9.210340, 1.386294, 0], atol=1e-6)


BILATERAL = CRF(position_weight=0, bilateral_sigma=6, colour_sigma=25, bilateral_weight=2, iterations=5)


def chequered():
    """Image uint8 [1, 10, 12, 3] of many colours, labels [1, 10, 12]."""
    y, x = np.mgrid[:10, :12]
    image = np.stack([(37 * x + 11 * y) % 97 + 60, (53 * y + 7 * x) % 89 + 20, (x * y * 3) % 101 + 100], -1)
    labels = (x // 4 + y // 5) % 3
    labels[3, 2] = (labels[3, 2] + 1) % 3
    return image[None].astype(np.uint8), labels[None]


def test_the_lattice_is_that_of_the_authors_program():
    # pydensecrf 1.0rc3: unary_from_labels(labels, 3, 0.7, zero_unsure=False), addPairwiseBilateral(sxy=6, srgb=25,
    # rgbim=image, compat=2), inference(5), every third row and fourth column.
    expected = [
        [[0.81705, 0.09390, 0.08905], [0.17299, 0.70306, 0.12396], [0.14404, 0.12603, 0.72993]],
        [[0.74902, 0.14086, 0.11012], [0.13246, 0.74684, 0.12070], [0.11535, 0.11284, 0.77181]],
        [[0.15027, 0.74512, 0.10461], [0.11493, 0.12887, 0.75621], [0.69990, 0.15413, 0.14596]],
        [[0.14523, 0.73935, 0.11542], [0.16126, 0.17593, 0.66281], [0.73693, 0.14453, 0.11854]],
    ]
    image, labels = chequered()
    marginals = mean_field(label_energies(labels, 3), image, BILATERAL)
    np.testing.assert_allclose(marginals[0, ::3, ::4], expected, atol=2e-5)
    np.testing.assert_allclose(marginals.sum(-1), 1, atol=1e-5)


def test_every_room_for_vertices_gives_the_same():
    image, labels = chequered()
    energies = label_energies(labels, 3)
    shares = []
    for colours in (image // 32 + 100, image // 2 + 100, image):
        in_several = mean_field(energies, colours, BILATERAL, least_room=1)
        np.testing.assert_allclose(in_several, mean_field(energies, colours, BILATERAL), atol=1e-6)
        shares.append(int(lattice_vertices(colours, BILATERAL)[0]) / (6 * labels.size))
    assert shares[0] < 1 / 8 < shares[1] < 1 / 3 < shares[2]  # each of the three rooms was used


def test_padding_is_neither_read_nor_written_and_images_of_a_batch_are_apart():
    crf = dataclasses.replace(PARAMETERS["irn"], bilateral_sigma=20, colour_sigma=10)
    labels = np.stack([noisy_labels(), noisy_labels()[::-1]])
    images = np.stack([scene(), scene()[::-1]])
    valid = np.ones(labels.shape, bool)
    valid[1, 20:], valid[1, :, 22:] = False, False
    energies = np.asarray(label_energies(labels, 2))
    marginals = np.asarray(mean_field(energies, images, crf, valid))

    for one, rows, columns in ((0, HEIGHT, WIDTH), (1, 20, 22)):
        part = one, slice(rows), slice(columns)
        exact = crf_reference.mean_field(energies[part], images[part], crf)
        # The error of the lattice is stated in mean_field.
        assert np.abs(marginals[part] - exact).sum(-1).mean() / 2 < 0.02
        truth = HALVES[:rows, :columns]
        assert np.mean(labels[part] != truth) > 0.1
        assert np.mean(exact.argmax(-1) != truth) < 0.02 and np.mean(marginals[part].argmax(-1) != truth) < 0.02
    outside = ~valid[1]
    np.testing.assert_allclose(marginals[1][outside], np.exp(-energies[1][outside]), atol=1e-6)

    other_images, other_energies = images.copy(), energies.copy()
    other_images[1][outside], other_energies[1][outside] = 255, (5.0, 0.0)
    again = np.asarray(mean_field(other_energies, other_images, crf, valid))
    np.testing.assert_array_equal(again[valid], marginals[valid])

    # The same compiled program, through the other entries.
    np.testing.assert_allclose(dense_crf(np.exp(-energies), images, crf, valid)[valid], marginals[valid], atol=1e-5)
    np.testing.assert_array_equal(refine_labels(labels, images, crf, 2, valid=valid), marginals.argmax(-1))
    background = refine_labels(labels, images, crf, 2, present=np.array([[True, True], [True, False]]), valid=valid)
    np.testing.assert_array_equal(background[0], marginals[0].argmax(-1))
    assert not np.any(background[1])


def test_the_position_kernel_is_exact():
    crf = CRF(position_weight=3, bilateral_sigma=50, colour_sigma=13, bilateral_weight=0)
    energies = np.random.default_rng(0).normal(size=(1, 10, 12, 3))
    image = scene()[:10, :12]
    exact = crf_reference.mean_field(energies[0], image, crf)
    np.testing.assert_allclose(mean_field(energies, image[None], crf)[0], exact, atol=1e-5)


def test_shapes_and_sizes_that_cannot_be():
    crf = PARAMETERS["irn"]
    energies = jnp.zeros((1, 4, 5, 2))
    with pytest.raises(ValueError, match=r"images have shape \(1, 4, 4, 3\)"):
        mean_field(energies, jnp.zeros((1, 4, 4, 3)), crf)
    with pytest.raises(ValueError, match=r"valid has shape \(4, 5\)"):
        mean_field(energies, jnp.zeros((1, 4, 5, 3)), crf, jnp.ones((4, 5), bool))
    large = (jax.ShapeDtypeStruct((1, 2048, 4096, channels), jnp.float32) for channels in (2, 3))
    with pytest.raises(InputError, match="fewer than 2\\*\\*32"):
        jax.eval_shape(lambda energies, images: mean_field(energies, images, PARAMETERS["deconvnet"]), *large)
    with pytest.raises(InputError, match="certainty is 1.0"):
        label_energies(np.zeros((1, 2, 2), np.uint8), 2, certainty=1.0)
