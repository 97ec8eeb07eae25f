"""Detailer: what the coarse mask adds to a PSPNet, and where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.losses import cross_entropy
from scarce_jax.models.detailer import INJECTIONS, CoarseEmbedding, Detailer
from scarce_jax.models.pspnet import PSPNet
from scarce_jax.ops.resize import adaptive_average_pool, class_fractions

SMALL = {"classes": 5, "depth": 18, "width": 8}
SIZE = (2, 33, 41)


def abstract(module, size=(1, 33, 33), train=False):
    image, coarse = jax.ShapeDtypeStruct((*size, 3), jnp.float32), jax.ShapeDtypeStruct(size, jnp.uint8)
    return jax.eval_shape(
        lambda key, *x: module.init_with_output(key, *x, train=train), jax.random.key(0), image, coarse
    )


def paths(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree.leaves_with_path(tree)}


def random_variables(module):
    """Variables of sensible sizes without compiling hundreds of random generators; a zero embedding bias."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        names = [key.key for key in path]
        if names[1:] == ["coarse_embedding", "bias"]:
            return jnp.zeros(leaf.shape)
        if names[-1] in ("scale", "var"):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        return jnp.asarray(rng.normal(size=leaf.shape) * 0.1, jnp.float32)

    return jax.tree.map_with_path(draw, abstract(module, SIZE)[1])


def example():
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(*SIZE, 3)), jnp.float32)
    coarse = rng.integers(0, 6, SIZE).astype(np.uint8)
    return image, jnp.asarray(np.where(coarse == 5, 255, coarse))


@pytest.mark.parametrize(
    ("inject", "deep_stem", "with_aux", "without_aux"),
    [
        ("before_pool", False, 73_289_190, 70_924_499),
        ("before_pool", True, 73_412_966, 71_048_275),
        ("after_pool", False, 71_650_790, 69_286_099),
        ("after_pool", True, 71_774_566, 69_409_875),
        ("after_final", False, 67_979_590, 65_614_899),
        ("after_final", True, 68_103_366, 65_738_675),
    ],
)
def test_parameter_count_and_size_of_the_logits(inject, deep_stem, with_aux, without_aux):
    module = Detailer(classes=19, inject=inject, deep_stem=deep_stem)
    (logits, _), variables = abstract(module, (1, 340, 340))
    assert logits.shape == (1, 340, 340, 19) and logits.dtype == jnp.float32
    counts = {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in variables["params"].items()}
    assert sum(counts.values()) == with_aux
    assert sum(count for name, count in counts.items() if not name.startswith("aux")) == without_aux


@pytest.mark.parametrize("inject", INJECTIONS)
def test_shared_weights_have_the_paths_of_a_pspnet(inject):
    detailer = abstract(Detailer(**SMALL, inject=inject))[1]
    image = jax.ShapeDtypeStruct((1, 33, 33, 3), jnp.float32)
    plain = jax.eval_shape(lambda x: PSPNet(**SMALL).init(jax.random.key(0), x, train=False), image)
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


@jax.jit
def apply_plain(variables, image):
    return PSPNet(**SMALL).apply(variables, image, train=False)[0]


@pytest.mark.parametrize("inject", INJECTIONS)
def test_an_all_void_mask_gives_the_pspnet_and_a_mask_is_read(inject):
    module = Detailer(**SMALL, inject=inject, embedding=13)
    variables = random_variables(module)
    image, coarse = example()
    apply = jax.jit(lambda v, *x: module.apply(v, *x, train=False)[0])
    void = apply(variables, image, jnp.full_like(coarse, 255))
    plain = apply_plain(without_embedding(variables, inject, 13), image)
    np.testing.assert_allclose(void, plain, atol=1e-4)
    # The embedding alone, without the skip, changes the logits; a bias on it does so even for a void mask.
    one_hot = coarse[..., None] == jnp.arange(5)
    assert np.abs(apply(variables, image, coarse) - one_hot - void).max() > 1e-3
    variables["params"]["coarse_embedding"]["bias"] = jnp.ones(13)
    assert np.abs(apply(variables, image, jnp.full_like(coarse, 255)) - void).max() > 1e-3


TRAINED = Detailer(19, depth=18, width=8, embedding=8)


@jax.jit
def train_step(variables, image, coarse, fine):
    """Gradient of the training loss, with the logits."""

    def loss(params):
        (logits, aux_logits), _ = TRAINED.apply(
            {**variables, "params": params},
            image,
            coarse,
            train=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        return cross_entropy(logits, fine) + 0.4 * cross_entropy(aux_logits, fine), (logits, aux_logits)

    return jax.grad(loss, has_aux=True)(variables["params"])


def test_identity_skip_over_zero_logits():
    image, fine = example()
    coarse = jnp.zeros(SIZE, jnp.uint8).at[:, :10].set(18).at[:, 20:].set(255)
    variables = random_variables(TRAINED)
    for name in ("classifier", "aux_classifier"):
        variables["params"][name] = jax.tree.map(jnp.zeros_like, variables["params"][name])
    _, (logits, aux_logits) = train_step(variables, image, coarse, fine)
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


def test_gradients_reach_every_parameter():
    image, coarse = example()
    gradient, _ = train_step(random_variables(TRAINED), image, coarse, coarse)
    for name, value in paths(gradient).items():
        assert np.isfinite(value).all() and np.abs(value).max() > 0, name


def test_bfloat16_gives_float32_logits():
    (logits, aux_logits), variables = abstract(Detailer(**SMALL, dtype=jnp.bfloat16, dropout=0.0), train=True)
    assert logits.dtype == aux_logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_wrong_arguments_are_errors():
    with pytest.raises(ValueError, match=r"inject is 'middle'; expected one of \('before_pool'"):
        abstract(Detailer(**SMALL, inject="middle"))
    with pytest.raises(ValueError, match=r"coarse mask has shape \(1, 9, 8\); expected \(1, 9, 9\)"):
        jax.eval_shape(
            lambda: Detailer(**SMALL).init(
                jax.random.key(0), jnp.zeros((1, 9, 9, 3)), jnp.zeros((1, 9, 8), jnp.uint8), train=False
            )
        )


def test_description_is_the_same_in_every_process():
    assert "0x" not in repr(Detailer(**SMALL))
