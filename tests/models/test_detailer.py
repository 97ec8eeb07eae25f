"""Detailer: what the coarse mask adds to a PSPNet, and where."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.losses import cross_entropy
from scarce_jax.models.detailer import INJECTIONS, CoarseEmbedding, Detailer
from scarce_jax.models.pspnet import PSPNet
from scarce_jax.models.resnet import ResNet
from scarce_jax.ops.resize import adaptive_average_pool, class_fractions
from tests.models.shapes import UNOPTIMISED, abstract, random_variables

SMALL = {"classes": 5, "backbone": ResNet(18, width=8), "width": 8}
SIZE = (2, 33, 41)


def inputs(*size):
    return [(*size, 3), jax.ShapeDtypeStruct(size, jnp.uint8)]


def variables_of(module):
    """Random ones, but a zero embedding bias: its initial value."""
    variables = random_variables(module, *inputs(*SIZE))
    embedding = variables["params"]["coarse_embedding"]
    embedding["bias"] = jnp.zeros_like(embedding["bias"])
    return variables


def paths(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree.leaves_with_path(tree)}


def example():
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(*SIZE, 3)), jnp.float32)
    coarse = rng.integers(0, 6, SIZE).astype(np.uint8)
    return image, jnp.asarray(np.where(coarse == 5, 255, coarse))


@pytest.mark.parametrize("inject", INJECTIONS)
def test_shared_weights_have_the_paths_of_a_pspnet(inject):
    detailer = abstract(Detailer(**SMALL, inject=inject), *inputs(1, 33, 33))[1]
    plain = abstract(PSPNet(**SMALL), (1, 33, 33, 3))[1]
    added = {"params/coarse_embedding/kernel", "params/coarse_embedding/bias"}
    assert set(paths(detailer)) == set(paths(plain)) | added
    wider = {name for name, x in paths(plain).items() if paths(detailer)[name].shape != x.shape}
    levels = {f"params/ppm/bin{bins}/conv/kernel" for bins in (1, 2, 3, 6)}
    final, classifier = "params/final_block/conv/kernel", "params/classifier/kernel"
    expected = {"before_pool": levels | {final}, "after_pool": {final}, "after_final": {classifier}}
    assert wider == expected[inject]


def without_embedding(variables, inject, embedding):
    """The same weights less those that read the embedding: variables of a PSPNet."""
    layer4 = 8 * SMALL["width"]
    start = {"before_pool": layer4, "after_pool": 2 * layer4, "after_final": layer4}[inject]
    readers = {
        "before_pool": ("ppm", "final_block"),
        "after_pool": ("final_block",),
        "after_final": ("classifier",),
    }

    def cut(path, leaf):
        names = [key.key for key in path]
        if names[0] == "params" and names[1] in readers[inject] and names[-1] == "kernel":
            return jnp.delete(leaf, jnp.arange(start, start + embedding), axis=2)
        return leaf

    variables = jax.tree.map_with_path(cut, variables)
    return {**variables, "params": {k: v for k, v in variables["params"].items() if k != "coarse_embedding"}}


@functools.partial(jax.jit, compiler_options=UNOPTIMISED)
def apply_plain(variables, image):
    return PSPNet(**SMALL).apply(variables, image, train=False)[0].full()


@pytest.mark.parametrize("inject", INJECTIONS)
def test_an_all_void_mask_gives_the_pspnet_and_a_mask_is_read(inject):
    module = Detailer(**SMALL, inject=inject, embedding=13)
    variables = variables_of(module)
    image, coarse = example()
    apply = jax.jit(lambda v, *x: module.apply(v, *x, train=False)[0].full(), compiler_options=UNOPTIMISED)
    void = apply(variables, image, jnp.full_like(coarse, 255))
    plain = apply_plain(without_embedding(variables, inject, 13), image)
    np.testing.assert_allclose(void, plain, atol=1e-4)
    # The embedding alone, without the skip, changes the logits; a bias on it does so even for a void mask.
    one_hot = coarse[..., None] == jnp.arange(5)
    assert np.abs(apply(variables, image, coarse) - one_hot - void).max() > 1e-3
    variables["params"]["coarse_embedding"]["bias"] = jnp.ones(13)
    assert np.abs(apply(variables, image, jnp.full_like(coarse, 255)) - void).max() > 1e-3


def test_identity_skip_over_zero_logits():
    image, _ = example()
    module = Detailer(19, ResNet(18, width=8), 8, embedding=8)
    coarse = jnp.zeros(SIZE, jnp.uint8).at[:, :10].set(18).at[:, 20:].set(255)
    variables = variables_of(module)
    for name in ("classifier", "aux_classifier"):
        variables["params"][name] = jax.tree.map(jnp.zeros_like, variables["params"][name])

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def run(variables, *inputs):
        options = {"train": True, "rngs": {"dropout": jax.random.key(0)}, "mutable": ["batch_stats"]}
        return [logits.full() for logits in module.apply(variables, *inputs, **options)[0]]

    logits, aux_logits = run(variables, image, coarse)
    one_hot = np.asarray(coarse)[..., None] == np.arange(19)
    np.testing.assert_allclose(logits, one_hot, atol=1e-7)
    assert not np.any(aux_logits)
    probabilities = jax.nn.softmax(logits)
    np.testing.assert_allclose(probabilities[:, :10, :, 18], 0.131202, atol=1e-6)
    np.testing.assert_allclose(probabilities[:, 10:20, :, 0], 0.131202, atol=1e-6)
    np.testing.assert_allclose(cross_entropy(logits, coarse), 2.031016, rtol=1e-5)
    at_void = jnp.where(coarse == 255, 3, 255)
    np.testing.assert_allclose(cross_entropy(logits, at_void), 2.944439, rtol=1e-5)


def test_embedding_of_averages_is_the_average_of_embeddings():
    _, coarse = example()
    size = (5, 6)
    module = CoarseEmbedding(16)
    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(1, 1, 5, 16)), rng.normal(size=16)
    variables = {"params": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}}
    embedding = module.apply(variables, class_fractions(coarse, 5, size))
    assert embedding.inputs.shape[-1] % 8 == 0
    result = jnp.einsum("bhwk,kc->bhwc", embedding.inputs, embedding.weights)
    one_hot = np.asarray(coarse)[..., None] == np.arange(5)
    full = one_hot @ kernel[0, 0] + bias  # the 1x1 convolution at full resolution
    np.testing.assert_allclose(result, adaptive_average_pool(jnp.asarray(full, jnp.float32), size), atol=1e-5)


def test_initial_values_are_those_of_a_pspnet_with_a_zero_embedding_bias():
    # What both have at equal shapes starts equal from one key, so that the two networks can be compared.
    names = ["backbone/layer4_block1/conv2/kernel", "final_block/conv/kernel", "aux_classifier/kernel"]
    plain, module = PSPNet(**SMALL), Detailer(**SMALL, inject="after_final")

    @jax.jit
    def initial(key):
        image, coarse = jnp.zeros((1, 9, 9, 3)), jnp.zeros((1, 9, 9), jnp.uint8)
        ours = paths(module.init(key, image, coarse, train=False)["params"])
        theirs = paths(plain.init(key, image, train=False)["params"])
        return [(ours[name], theirs[name]) for name in names], ours["coarse_embedding/bias"]

    pairs, bias = initial(jax.random.key(0))
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)
        assert ours.std() > 0
    assert not np.any(bias)


def test_wrong_arguments_are_errors():
    with pytest.raises(ValueError, match=r"inject is 'middle'; expected one of \('before_pool'"):
        abstract(Detailer(**SMALL, inject="middle"), *inputs(1, 9, 9))
    with pytest.raises(ValueError, match=r"coarse mask has shape \(1, 9, 8\); expected \(1, 9, 9\)"):
        abstract(Detailer(**SMALL), (1, 9, 9, 3), jax.ShapeDtypeStruct((1, 9, 8), jnp.uint8))
