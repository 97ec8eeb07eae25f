"""Pairs of pixels, the paths between them, their affinities, and the random walk."""

import collections
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.ops.affinity import affinities, path, sources, targets, vectors
from scarce_jax.ops.random_walk import random_walk
from tests.models.golden import recipe

LENGTHS = {  # radius -> {pixels of a path: paths}
    5: {2: 2, 3: 2, 4: 4, 5: 2, 6: 4, 7: 2, 8: 8, 10: 6, 11: 4},
    10: {2: 2, 3: 2, 4: 4, 5: 2, 6: 6, 7: 4, 8: 10, 9: 2, 10: 12, 11: 4, 12: 12, 13: 2, 14: 8, 15: 8, 16: 22}
    | {18: 16, 19: 6, 20: 20, 21: 4, 22: 6},
}


@pytest.mark.parametrize(("radius", "pairs"), [(5, 34), (10, 152)])
def test_vectors_and_lengths_of_their_paths(radius, pairs):
    found = vectors(radius)
    assert len(found) == len(set(found)) == pairs
    assert not any((-y, -x) in found for y, x in found)
    assert dict(collections.Counter(len(path(v)) for v in found)) == LENGTHS[radius]


def test_paths_keep_close_to_the_line():
    assert set(path((1, 2))) == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)}
    assert set(path((0, 3))) == {(0, 0), (0, 1), (0, 2), (0, 3)}
    assert set(path((2, -2))) == {(0, 0), (1, -1), (2, -2), (0, -1), (1, 0), (1, -2), (2, -1)}


def test_number_of_pairs_at_the_papers_size():
    edge = jax.ShapeDtypeStruct((1, 128, 128), jnp.float32)
    shape = jax.eval_shape(lambda x: affinities(x, 10), edge).shape
    assert shape == (152, 1, 119, 110) and np.prod(shape) == 1_989_680


@pytest.mark.parametrize("radius", [2, 4])
def test_affinities_are_one_less_the_largest_boundary_on_the_way(radius):
    edge = np.random.default_rng(0).random((2, 7, 9)).astype(np.float32)
    result, reach = np.asarray(affinities(jnp.asarray(edge), radius)), radius - 1
    for p, vector in enumerate(vectors(radius)):
        for b, y, x in np.ndindex(result.shape[1:]):
            way = [edge[b, y + i, x + reach + j] for i, j in path(vector)]
            assert result[p, b, y, x] == np.float32(1) - max(way)


def test_sources_and_targets_are_the_ends_of_the_pairs():
    place = jnp.stack(jnp.meshgrid(jnp.arange(8), jnp.arange(12), indexing="ij"), -1)[None]  # [1, 8, 12, 2]
    first = sources(place, 4)
    assert first.shape == (1, 5, 6, 2)
    np.testing.assert_array_equal(first[0, 0, 0], (0, 3))
    for vector in vectors(4):
        np.testing.assert_array_equal(targets(place, 4, vector) - first, np.broadcast_to(vector, first.shape))


def test_a_boundary_of_one_half_everywhere_halves_every_affinity():
    np.testing.assert_array_equal(affinities(jnp.full((1, 12, 20), 0.5), 10), 0.5)


def test_random_walk_is_that_of_the_dense_matrix_of_pytorch():
    golden = np.load(pathlib.Path(recipe.__file__).with_name("irnet.npz"))["random_walk"]
    edge = recipe.edge()
    scores = recipe.uniform("scores", (3, *edge.shape), 0, 1).transpose(1, 2, 0)
    walk = random_walk(jnp.asarray(scores)[None], jnp.asarray(edge)[None])[0]
    assert golden.max() > 0.5 and np.ptp(golden) > 0.2
    np.testing.assert_allclose(walk, golden, atol=1e-4)


def test_random_walk_of_three_pixels_in_a_row():
    # Affinities 0.5, 0.25 and, across the middle, 0 (reference: [[1, .5, 0], [.5, 1, .25], [0, .25, 1]] ** 10).
    matrix = np.array([[1, 0.5, 0], [0.5, 1, 0.25], [0, 0.25, 1]]) ** 10
    transition = np.linalg.matrix_power(matrix / matrix.sum(0), 256)
    np.testing.assert_allclose(np.array([1, 0, 0]) @ transition, [0.803263, 0.196711, 2.591e-5], rtol=1e-4)
    # As boundaries at radius 2, where only neighbours are pairs: the largest of both ends is on the way.
    edge = jnp.asarray([[[0.5, 0.5, 0.75]]])
    walk = random_walk(jnp.asarray([[[2.0, 0, 0]]])[..., None], edge, radius=2)  # halved by its own boundary
    np.testing.assert_allclose(walk[0, 0, :, 0], [0.803263, 0.196711, 2.591e-5], rtol=1e-4)


def test_random_walk_keeps_the_sum_along_no_boundary_and_stays_within_one():
    # Without boundaries every pixel of the inside has the same neighbours: the sum over pixels is kept.
    scores = jnp.zeros((1, 21, 21, 1)).at[0, 10, 10, 0].set(1.0)
    walk = random_walk(scores, jnp.zeros((1, 21, 21)), steps=1)
    np.testing.assert_allclose(walk.sum(), 1, rtol=1e-5)
    closed = jnp.zeros((1, 21, 21)).at[0, :, 12].set(1.0)
    walk = random_walk(scores, closed)
    assert np.abs(walk[0, :, 13:]).max() == 0 and walk[0, :, :12].min() > 0
