"""Cross-entropy of resized logits and of phases against that of the full logits, on the forms of all platforms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.losses import cross_entropy
from scarce_jax.ops import cross_entropy as written
from scarce_jax.ops.logits import Phases, Resized, full_size


def plain(logits, labels, class_weights=None):
    """Without a written gradient, from the full logits."""
    logits = full_size(logits)
    known = labels != 255
    chosen = jnp.take_along_axis(logits, jnp.where(known, labels, 0)[..., None].astype(jnp.int32), -1)[..., 0]
    weights = known if class_weights is None else jnp.where(known, class_weights[jnp.where(known, labels, 0)], 0)
    losses = jnp.where(known, jax.nn.logsumexp(logits, -1) - chosen, 0)
    return jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1e-9)


def example(size, classes, dtype=jnp.float32, coarse=(3, 4)):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes + 1, (2, *size)).astype(np.uint8)
    mask = rng.integers(0, classes + 1, (2, *size)).astype(np.uint8)
    labels, mask = (jnp.asarray(np.where(x == classes, 255, x), jnp.uint8) for x in (labels, mask))
    return jnp.asarray(4 * rng.normal(size=(2, *coarse, classes)), dtype), labels, mask


@pytest.fixture(params=["platform", "rows"])
def form(request, monkeypatch):
    """The form of the platform at hand, and that of a GPU."""
    if request.param == "rows":
        gpu = lambda _, of_rows, *static: functools.partial(of_rows, *static)
        monkeypatch.setattr(written, "_on_platform", gpu)


@pytest.mark.parametrize(("masked", "align_corners"), [(False, True), (True, False)])
@pytest.mark.parametrize(
    ("size", "classes", "dtype"),
    [((17, 25), 2, jnp.float32), ((3, 9), 21, jnp.float32), ((2, 1), 5, jnp.float32), ((10, 13), 7, jnp.bfloat16)],
)
def test_resized_logits(form, size, classes, dtype, align_corners, masked):
    coarse, labels, mask = example(size, classes, dtype)
    weights = jnp.linspace(0.5, 2, classes)

    def logits(coarse):
        return Resized(coarse, size=size, align_corners=align_corners, mask=mask if masked else None)

    for class_weights in (None, weights):
        result, expected = (
            jax.jit(
                jax.value_and_grad(lambda coarse, f=f, w=class_weights: 3 * f(logits(coarse), labels, class_weights=w))
            )(coarse)
            for f in (cross_entropy, plain)
        )
        np.testing.assert_allclose(result[0], expected[0], rtol=1e-6)
        assert result[1].dtype == dtype
        of_result, of_plain = (np.asarray(x[1], np.float32) for x in (result, expected))
        tolerance = 1e-6 if dtype == jnp.float32 else 1e-2
        np.testing.assert_allclose(of_result, of_plain, atol=tolerance * np.abs(of_plain).max())


def test_void_and_foreign_labels_of_resized_logits(form):
    coarse, labels, _ = example((6, 7), 4)

    def loss(coarse, labels):
        return cross_entropy(Resized(coarse, size=(6, 7), align_corners=True), labels)

    value, gradient = jax.value_and_grad(loss)(coarse, jnp.full_like(labels, 255))
    assert value == 0 and not np.any(gradient)
    assert np.isnan(loss(coarse, labels.at[0, 0, 0].set(4)))
    assert np.isfinite(loss(coarse, labels))
    assert np.isnan(loss(coarse.at[0, 0, 0, 0].set(jnp.nan), labels))


def test_large_logits_are_exact(form):
    coarse, labels, _ = example((6, 7), 4)
    logits = Resized(300 * coarse, size=(6, 7), align_corners=True)
    np.testing.assert_allclose(cross_entropy(logits, labels), plain(logits, labels), rtol=1e-6)


def test_labels_of_another_size_are_an_error():
    coarse, labels, _ = example((6, 7), 4)
    with pytest.raises(ValueError, match=r"labels have shape \(2, 6, 7\); expected \(2, 6, 8\)"):
        cross_entropy(Resized(coarse, size=(6, 8), align_corners=True), labels)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("size", [(7, 10), (9, 14)])
def test_phases(size, dtype):
    _, labels, _ = example(size, 5)
    phases = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 4, 80)), dtype)

    def logits(phases):
        return Phases(phases, size=size, stride=4, offset=2)

    for weights in (None, jnp.linspace(0.5, 2, 5)):
        results = [
            jax.value_and_grad(lambda x, f=f, w=weights: f(logits(x), labels, class_weights=w))(phases)
            for f in (cross_entropy, plain)
        ]
        np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
        one, two = (np.asarray(gradient, np.float32) for _, gradient in results)
        np.testing.assert_allclose(one, two, atol=np.abs(two).max() * (1e-6 if dtype == jnp.float32 else 1e-2))


def test_images_on_several_devices_have_one_mean(form):
    devices = jax.devices()[:2]
    coarse, labels, _ = example((17, 25), 6)
    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))

    @jax.jit
    def loss(coarse, labels):
        return jax.value_and_grad(lambda c: cross_entropy(Resized(c, size=(17, 25), align_corners=True), labels))(
            coarse
        )

    sharded, alone = loss(*jax.device_put((coarse, labels), rows)), loss(coarse, labels)
    np.testing.assert_allclose(sharded[0], alone[0], rtol=1e-6)
    np.testing.assert_allclose(sharded[1], alone[1], atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_written_gradient_of_softmax_cross_entropy_is_the_derived_one(dtype):
    logits = 4 * jax.random.normal(jax.random.key(0), (2, 5, 7)).astype(dtype)
    labels = jnp.array([[0, 6, 3, 255, 1], [2, 2, 5, 4, 255]], jnp.uint8)
    weights = jnp.where(labels == 255, 0, jax.random.uniform(jax.random.key(1), labels.shape))

    def value_and_gradient(form):
        return jax.value_and_grad(lambda logits: jnp.sum(weights * form(logits, labels)))(logits)

    (expected, derived), (value, gradient) = map(
        value_and_gradient, (written._with_derived_gradient, written._with_written_gradient)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert gradient.dtype == dtype
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == jnp.float32 else {"rtol": 1e-2, "atol": 1e-2}
    np.testing.assert_allclose(gradient.astype(jnp.float32), derived.astype(jnp.float32), **tolerance)
