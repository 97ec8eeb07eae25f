"""Resizing and adaptive averaging against slow references written pixel by pixel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.ops import resize
from tests import tiny

resize_bilinear = jax.jit(resize.resize_bilinear, static_argnames=("size", "align_corners"))
adaptive_average_pool = jax.jit(resize.adaptive_average_pool, static_argnames="bins")
class_fractions = jax.jit(resize.class_fractions, static_argnames=("classes", "size"))
resize_dynamic = jax.jit(resize.resize_dynamic, static_argnames=("canvas", "bicubic"))


def slow_bilinear(x, height, width, align_corners):
    """torch's interpolate(mode="bilinear"), one pixel at a time, of [h, w, C]."""

    def taps(index, source, target):
        if align_corners:
            position = index * (source - 1) / (target - 1) if target > 1 else 0.0
        else:
            position = max((index + 0.5) * source / target - 0.5, 0.0)
        low = min(int(position), source - 1)
        return low, min(low + 1, source - 1), position - low

    result = np.zeros((height, width, x.shape[2]))
    for i in range(height):
        for j in range(width):
            top, bottom, v = taps(i, x.shape[0], height)
            left, right, u = taps(j, x.shape[1], width)
            upper = x[top, left] * (1 - u) + x[top, right] * u
            lower = x[bottom, left] * (1 - u) + x[bottom, right] * u
            result[i, j] = upper * (1 - v) + lower * v
    return result


def slow_adaptive(x, rows, columns):
    """torch's adaptive_avg_pool2d, one bin at a time, of [h, w, C]."""
    height, width = x.shape[:2]
    result = np.zeros((rows, columns, x.shape[2]))
    for i in range(rows):
        for j in range(columns):
            top, bottom = (i * height) // rows, -((-(i + 1) * height) // rows)
            left, right = (j * width) // columns, -((-(j + 1) * width) // columns)
            result[i, j] = x[top:bottom, left:right].mean((0, 1))
    return result


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("source", "target"),
    [((5, 7), (34, 41)), ((6, 6), (43, 43)), ((9, 8), (4, 3)), ((1, 3), (5, 3)), ((4, 1), (1, 6))],
)
def test_bilinear_equals_the_slow_reference(source, target, align_corners):
    x = noise(2, *source, 3)
    result = resize_bilinear(jnp.asarray(x), target, align_corners=align_corners)
    expected = np.stack([slow_bilinear(image, *target, align_corners) for image in x])
    np.testing.assert_allclose(result, expected, atol=2e-6)


@pytest.mark.parametrize(
    ("align_corners", "expected"),
    [(True, [0, 1 / 3, 2 / 3, 1]), (False, [0, 0.25, 0.75, 1])],
)
def test_bilinear_of_a_ramp(align_corners, expected):
    x = jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(resize_bilinear(x, (1, 4), align_corners=align_corners)[0, 0, :, 0], expected, atol=1e-7)


def test_bilinear_to_the_same_size_is_the_identity():
    x = jnp.asarray(noise(1, 5, 6, 2))
    np.testing.assert_array_equal(resize_bilinear(x, (5, 6), align_corners=True), x)


def test_bilinear_keeps_bfloat16_and_is_close():
    x = noise(2, 3, 4, 8)
    low, exact = (
        resize_bilinear(jnp.asarray(x, dtype), (9, 9), align_corners=True) for dtype in (jnp.bfloat16, jnp.float32)
    )
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(jnp.float32), exact, atol=0.05)


@pytest.mark.parametrize(
    ("source", "bins"), [((5, 5), 1), ((5, 7), 2), ((7, 8), 3), ((5, 4), 6), ((11, 9), (4, 5)), ((6, 12), 6)]
)
def test_adaptive_average_equals_the_slow_reference(source, bins):
    x = noise(2, *source, 3)
    grid = (bins, bins) if isinstance(bins, int) else bins
    expected = np.stack([slow_adaptive(image, *grid) for image in x])
    np.testing.assert_allclose(adaptive_average_pool(jnp.asarray(x), bins), expected, atol=1e-6)


def test_adaptive_bins_overlap_where_the_length_does_not_divide():
    x = jnp.arange(5.0).reshape(1, 1, 5, 1)
    # Columns 0..2 and 2..4.
    np.testing.assert_allclose(adaptive_average_pool(x, (1, 2))[0, 0, :, 0], [1.0, 3.0])


def test_adaptive_average_of_bfloat16_accumulates_in_float32():
    # Every partial sum above 256 would lose the ones in bfloat16.
    x = jnp.ones((1, 40, 40, 1), jnp.bfloat16)
    pooled = adaptive_average_pool(x, 1)
    assert pooled.dtype == jnp.bfloat16
    assert float(pooled[0, 0, 0, 0]) == 1.0


def test_adaptive_average_gradient_spreads_evenly():
    gradient_of_sum = jax.jit(jax.grad(lambda x: adaptive_average_pool(x, 2).astype(jnp.float32).sum()))
    for dtype in (jnp.float32, jnp.bfloat16):
        gradient = gradient_of_sum(jnp.zeros((1, 4, 4, 1), dtype))
        np.testing.assert_allclose(gradient.astype(jnp.float32), np.full((1, 4, 4, 1), 0.25), atol=1e-3)


@pytest.mark.parametrize("size", [(5, 5), (4, 9), (33, 33)])
def test_class_fractions_are_the_adaptive_average_of_the_one_hot(size):
    labels = np.random.default_rng(0).integers(0, 5, (2, 33, 33)).astype(np.uint8)
    labels[labels == 4] = 255
    one_hot = (labels[..., None] == np.arange(4)).astype(np.float32)
    fractions = class_fractions(jnp.asarray(labels), 4, size)
    np.testing.assert_allclose(fractions, [slow_adaptive(image, *size) for image in one_hot], atol=1e-6)


def test_labels_are_sampled_where_aligned_corners_put_the_grid():
    labels = np.random.default_rng(0).integers(0, 256, (2, 17, 33)).astype(np.uint8)
    np.testing.assert_array_equal(resize.sample_nearest(jnp.asarray(labels), (3, 5)), labels[:, ::8, ::8])
    assert resize.sample_nearest(jnp.asarray(labels), (17, 33)).dtype == np.uint8
    # A ramp is where its value says, also where the grid falls between pixels.
    ramp = jnp.broadcast_to(jnp.arange(10), (1, 10, 10))
    expected = resize_bilinear(ramp[..., None].astype(jnp.float32), size=(4, 7), align_corners=True)[..., 0]
    np.testing.assert_array_equal(resize.sample_nearest(ramp, (4, 7)), np.floor(np.asarray(expected) + 0.5))


def test_dynamic_resize_equals_the_static_one_and_reads_only_the_valid_part():
    rng = np.random.default_rng(0)
    sizes = [((13, 9), (20, 31)), ((16, 12), (7, 5)), ((1, 5), (24, 32)), ((8, 12), (8, 12))]
    canvases = np.full((len(sizes), 16, 12, 3), np.nan, np.float32)
    for canvas, (source, _) in zip(canvases, sizes, strict=True):
        canvas[: source[0], : source[1]] = rng.normal(size=(*source, 3))
    bounds = np.array([[*source, *target] for source, target in sizes])
    batch = jax.jit(jax.vmap(functools.partial(resize_dynamic, canvas=(24, 32))))(canvases, *bounds.T)
    for canvas, (source, target), result in zip(canvases, sizes, batch, strict=True):
        valid = jnp.asarray(canvas[None, : source[0], : source[1]])
        expected = resize_bilinear(valid, target, align_corners=False)[0]
        np.testing.assert_allclose(result[: target[0], : target[1]], expected, atol=2e-6)
        assert not np.any(result[target[0] :]) and not np.any(result[:, target[1] :])


@pytest.mark.parametrize("source", [(7, 9), (24, 30), (1, 2)])
def test_dynamic_bicubic_resize_equals_the_slow_reference(source):
    target, canvas = (24, 30), (26, 32)
    x = np.random.default_rng(0).normal(size=(*source, 2)).astype(np.float32)
    padded = jnp.full((25, 31, 2), np.nan).at[: source[0], : source[1]].set(x)

    def kernel(d):
        d = abs(d)
        near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
        return near if d <= 1 else far if d < 2 else 0.0

    expected = x.astype(np.float64)
    for axis in (0, 1):
        n, matrix = source[axis], np.zeros((target[axis], source[axis]))
        for i in range(target[axis]):
            centre = (i + 0.5) * n / target[axis] - 0.5
            for j in range(-3, n + 3):
                matrix[i, min(max(j, 0), n - 1)] += kernel(j - centre)
        expected = np.moveaxis(np.tensordot(matrix, expected, (1, axis)), 0, axis)
    result = np.asarray(resize_dynamic(padded, *source, *target, canvas=canvas, bicubic=True))
    np.testing.assert_allclose(result[:24, :30], expected, atol=1e-5)
    assert not result[24:].any() and not result[:, 30:].any()


def test_dynamic_resize_of_an_image_alone_and_in_a_batch_gives_the_same_bits():
    x = noise(3, 16, 16, 4)
    sizes = np.array([[16, 11, 23, 32], [5, 16, 32, 7], [9, 9, 30, 30]])
    # Bits are what the emitters make of the arithmetic.
    one = functools.partial(resize.resize_dynamic, canvas=(32, 32))
    alone, together = (jax.jit(f, compiler_options=tiny.fused()) for f in (one, jax.vmap(one)))
    batch = together(x, *sizes.T)
    for index in range(3):
        np.testing.assert_array_equal(batch[index], alone(x[index], *sizes[index]))


def test_dynamic_resize_to_nothing_is_zero():
    # The repeated images that fill up a batch may have no target.
    result = resize_dynamic(jnp.ones((4, 4, 1)), 4, 4, 0, 0, canvas=(6, 6))
    np.testing.assert_array_equal(result, np.zeros((6, 6, 1)))


def test_places_of_a_canvas_on_each_image():
    inside = np.asarray(resize.on_image((3, 4), jnp.array([3, 1]), jnp.array([2, 4])))
    assert inside.sum((1, 2)).tolist() == [6, 4]
    assert inside[0, :, :2].all() and inside[1, 0].all()
    assert resize.on_image((3, 4), 3, 4).all()
