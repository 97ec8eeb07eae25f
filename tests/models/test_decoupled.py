"""Networks of the decoupled method: sizes, the saliency against layers chained by hand, what the parts read."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.deconvolution import DeconvNetConfig
from scarce_jax.models.decoupled import (
    DecoupledClassifierConfig,
    SegmentationNet,
    class_saliency,
)
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.vgg import VGGConfig
from tests.models.shapes import UNOPTIMISED, abstract, count, random_image, random_variables, segmentation_inputs

SMALL = {"backbone": VGGConfig(width=2), "hidden": 6, "fc6_kernel": 3}


def shapes_inside(module, inputs):
    """Module path -> shape of its output."""
    inputs = [jax.ShapeDtypeStruct(x, jnp.float32) if isinstance(x, tuple) else x for x in inputs]

    def run(key, *x):
        variables = module.init(key, *x, train=False)
        return module.apply(variables, *x, train=False, capture_intermediates=True)[1]["intermediates"]

    outputs = jax.eval_shape(run, jax.random.key(0), *inputs)
    return {
        jax.tree_util.keystr(path[:-2], simple=True, separator="/"): x.shape
        for path, x in jax.tree.leaves_with_path(outputs)
    }


def test_parameter_counts_of_the_papers_bridge():
    params = abstract(SegmentationNet(), *segmentation_inputs(64, 320))[1]["params"]
    assert count(params["bn_pool5"]) == count(params["bn_saliency"]) == 1024
    expected = {"fc6": 102_762_496, "fc7": 4_196_352, "fc6_deconv": 51_380_736}
    assert {name: count(params["bridge"][name]) for name in expected} == expected


def test_shapes_at_the_papers_size():
    module = DecoupledClassifierConfig().build(20)
    image = jax.ShapeDtypeStruct((2, 320, 320, 3), jnp.float32)
    variables = abstract(module, image.shape)[1]
    classified = jax.eval_shape(lambda v, x: module.apply(v, x, method="classify"), variables, image)
    sizes, channels = (160, 80, 40, 20, 10), (64, 128, 256, 512, 512)
    assert [(x.shape, x.dtype) for x in classified.switches] == [
        ((2, s, s, c), jnp.uint8) for s, c in zip(sizes, channels, strict=True)
    ]
    assert classified.pool5.shape == (2, 10, 10, 512) and classified.scores.shape == (2, 4, 4, 20)
    inside = shapes_inside(SegmentationNet(), segmentation_inputs(64, 320))
    expected = {
        "bridge/fc6": (4, 2048), "bridge/fc7": (4, 2048), "bridge/fc6_deconv": (10, 512),
        "deconvolution/deconv5_1": (20, 512), "deconvolution/deconv5_3": (20, 512),
        "deconvolution/deconv4_2": (40, 512), "deconvolution/deconv4_3": (40, 256),
        "deconvolution/deconv3_2": (80, 256), "deconvolution/deconv3_3": (80, 128),
        "deconvolution/deconv2_1": (160, 128), "deconvolution/deconv2_2": (160, 64),
        "deconvolution/deconv1_1": (320, 64), "deconvolution/deconv1_2": (320, 64), "seg_score": (320, 2),
    }  # fmt: skip
    assert {name: inside[name] for name in expected} == {n: (2, s, s, c) for n, (s, c) in expected.items()}


@pytest.mark.parametrize(("width", "expected"), [(64, 0.01), (4, 0.5)])
def test_scores_start_at_a_hundredth_at_the_papers_width_alone(width, expected):
    net, pool5 = SegmentationNet(width, 8, 1, (1,) * 5), jnp.zeros((1, 1, 1, 1))

    # Only the head is drawn: what is not returned is not compiled.
    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def draw(key):
        return net.init(key, pool5, pool5, train=False)["params"]["seg_score"]["kernel"]

    np.testing.assert_allclose(draw(jax.random.key(1)).std(), expected, rtol=0.4)


def test_fewer_convolutions_keep_the_channels_between_groups():
    fewer = SegmentationNet(width=4, hidden=6, fc6_kernel=1, deconvolutions=(1, 2, 1, 3, 1))
    inside = shapes_inside(fewer, segmentation_inputs(4, 64))
    shapes = {name: shape[1:] for name, shape in inside.items() if "/deconv" in name}
    assert shapes == {
        "deconvolution/deconv5_1": (4, 4, 32), "deconvolution/deconv4_1": (8, 8, 32),
        "deconvolution/deconv4_2": (8, 8, 32), "deconvolution/deconv4_3": (8, 8, 16),
        "deconvolution/deconv3_1": (16, 16, 8), "deconvolution/deconv2_1": (32, 32, 8),
        "deconvolution/deconv2_2": (32, 32, 4), "deconvolution/deconv1_1": (64, 64, 4),
    }  # fmt: skip
    options = {**SMALL, "backbone": VGGConfig(width=2, convolutions=(1, 2, 1, 3, 1))}
    assert DecoupledClassifierConfig(**options).segmentation_net().deconvolutions == (1, 2, 1, 3, 1)
    for config in (DecoupledClassifierConfig(**options), DeconvNetConfig(**options)):
        params = abstract(config.build(3), (1, 96, 96, 3))[1]["params"]
        assert sorted(n for n in params["backbone"] if n.startswith("conv")) == [
            "conv1_1", "conv2_1", "conv2_2", "conv3_1", "conv4_1", "conv4_2", "conv4_3", "conv5_1",
        ]  # fmt: skip


def test_the_segmentation_net_maps_over_label_vectors():
    module, (pool5, _, *switches) = SegmentationNet(width=2, fc6_kernel=3), segmentation_inputs(2, 96)
    variables = abstract(module, pool5, pool5, *switches)[1]

    def each_label(variables, pool5, saliency, *switches):
        segment = lambda s: module.apply(variables, pool5, s, *switches, train=False)
        return jax.vmap(segment, in_axes=1, out_axes=1)(saliency)

    floats = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (pool5, (2, 7, *pool5[1:]))]
    assert jax.eval_shape(each_label, variables, *floats, *switches).shape == (2, 7, 96, 96, 2)


@functools.cache
def head():
    """(classifier, variables, pool5 [2, 5, 6, 16] with scores of 3 x 4 places, its compiled saliency)."""
    module = DecoupledClassifierConfig(**SMALL).build(4)
    variables = jax.tree.map(np.asarray, random_variables(module, (1, 96, 96, 3)))
    pool5 = np.maximum(random_image(2, 5, 6, 16), 0)
    return module, variables, pool5, jax.jit(functools.partial(class_saliency, module))


def test_saliency_equals_the_transposed_layers_chained_by_hand():
    module, variables, pool5, saliency = head()
    one_each = np.broadcast_to(np.eye(4, dtype=np.float32), (2, 4, 4)).copy()
    one_each[0, 3], one_each[1, 0] = [0, 1, 0, 1], 1
    maps = saliency(variables, pool5, one_each)
    assert maps.shape == (2, 4, 5, 6, 16)

    weights = {name: variables["params"][name] for name in ("fc6", "fc7", "score")}
    windows = np.stack([[pool5[:, i : i + 3, j : j + 3] for j in range(4)] for i in range(3)])  # [3, 4, B, 3, 3, C]
    fc6 = np.einsum("ijbklc,klcf->bijf", windows, weights["fc6"]["kernel"]) + weights["fc6"]["bias"]
    fc7 = np.maximum(fc6, 0) @ weights["fc7"]["kernel"][0, 0] + weights["fc7"]["bias"]
    scores = np.maximum(fc7, 0) @ weights["score"]["kernel"][0, 0] + weights["score"]["bias"]
    for b, l in np.ndindex(2, 4):
        seed = np.zeros((3, 4, 4), np.float32)
        for k in np.flatnonzero(one_each[b, l]):
            i, j = divmod(int(scores[b, :, :, k].argmax()), 4)
            seed[i, j, k] = 1 / (1 + np.exp(-scores[b, i, j, k]))
        back = seed @ weights["score"]["kernel"][0, 0].T * (fc7[b] > 0)
        back = back @ weights["fc7"]["kernel"][0, 0].T * (fc6[b] > 0)
        expected = np.zeros((5, 6, 16), np.float32)
        for i, j in np.ndindex(3, 4):
            expected[i : i + 3, j : j + 3] += np.einsum("f,klcf->klc", back[i, j], weights["fc6"]["kernel"])
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(maps[b, l], expected, rtol=1e-4, atol=1e-7)


def test_saliency_is_linear_in_the_seed_and_the_seed_is_a_sigmoid():
    module, variables, pool5, saliency = head()
    labels = np.broadcast_to(np.eye(4, dtype=np.float32), (2, 4, 4))
    ones = np.asarray(saliency(variables, pool5, labels, np.ones((2, 4), np.float32)))
    half = np.full((2, 4), 0.5, np.float32)
    np.testing.assert_allclose(saliency(variables, pool5, labels, half), ones / 2, rtol=1e-6)
    everything = saliency(variables, pool5, np.ones_like(labels), np.ones((2, 4), np.float32))
    np.testing.assert_allclose(everything[:, 2], ones.sum(1), atol=1e-5)
    # The bias moves the largest scores of the second image to 2; their seeds are then sigmoid(2).
    scores = jax.jit(lambda v, x: module.apply(v, x, method="head"))(variables, pool5)
    largest = np.asarray(scores).max((1, 2))[1]
    params = variables["params"]
    moved = {**params, "score": {**params["score"], "bias": params["score"]["bias"] + 2 - largest}}
    maps = saliency({"params": moved}, pool5, labels)
    np.testing.assert_allclose(maps[1], 0.880797 * ones[1], atol=1e-5)
    assert not np.allclose(maps[0], 0.880797 * ones[0], atol=1e-4)


def test_only_the_first_place_of_equal_scores_gives_the_saliency():
    _, variables, pool5, saliency = head()
    constant = np.broadcast_to(pool5[:, :1, :1], pool5.shape)
    maps = np.asarray(saliency(variables, constant, np.ones((2, 4, 4), np.float32)))
    assert np.abs(maps[:, :, :3, :3]).max((2, 3, 4)).all()
    assert not maps[:, :, 3:].any() and not maps[:, :, :, 3:].any()


def test_averages_and_maxima_are_over_the_places():
    module = DecoupledClassifierConfig(**SMALL).build(3)
    variables = random_variables(module, (1, 96, 96, 3))
    image = random_image(2, 96, 128, 3)

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def both(v, x):
        classified = module.apply(v, x, method="classify")
        return classified, classified.average, classified.maximum, module.apply(v, x, train=False)

    classified, average, maximum, logits = both(variables, image)
    assert classified.scores.shape == (2, 1, 2, 3)
    np.testing.assert_allclose(average, np.asarray(classified.scores).mean((1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(maximum, np.asarray(classified.scores).max((1, 2)))
    np.testing.assert_allclose(logits, average, rtol=1e-5)


def test_segmentation_net_learns_everything_and_reads_everything():
    # 3 x 3 places of pool5 and a window of 2: fc6 has 2 x 2 places, enough for its batch normalisation.
    module = SegmentationNet(width=1, hidden=6, fc6_kernel=2)
    inputs = segmentation_inputs(1, 96)
    rng = np.random.default_rng(0)
    abstracts = abstract(module, *inputs)[1]
    variables = jax.tree.map_with_path(
        lambda path, x: jnp.asarray(rng.uniform(0.5, 1.5, x.shape) if path[-1].key in ("scale", "var") else
                                    rng.normal(size=x.shape), jnp.float32), abstracts)  # fmt: skip
    pool5 = jax.nn.relu(random_image(*inputs[0]))
    saliency = jnp.asarray(rng.normal(size=inputs[1]), jnp.float32)
    switches = [jnp.asarray(rng.integers(0, 4, x.shape), jnp.uint8) for x in inputs[2:]]

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def step(variables, saliency, switches):
        def loss(params):
            state = {**variables, "params": params}
            y, new = module.apply(state, pool5, saliency, *switches, train=True, mutable=["batch_stats"])
            return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).mean(), (y, new["batch_stats"])

        return jax.grad(loss, has_aux=True)(variables["params"])

    gradient, (logits, stats) = step(variables, saliency, switches)
    for path, value in jax.tree.leaves_with_path(gradient):
        # A constant before batch normalisation has no influence.
        idle = path[-1].key == "bias" and not path[-2].key.startswith("bn") and path[-2].key != "seg_score"
        assert np.isfinite(value).all() and (idle or np.abs(value).max() > 0), jax.tree_util.keystr(path)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: not np.array_equal(a, b), stats, variables["batch_stats"])))
    # Normalised on its own, a saliency a thousandth as large says the same; another one does not.
    small = step(variables, 1e-3 * saliency, switches)[1][0]
    np.testing.assert_allclose(small, logits, atol=0.02 * np.std(logits))
    assert np.std(step(variables, saliency[::-1], switches)[1][0] - logits) > 0.1 * np.std(logits)
    for index in range(5):
        turned = [3 - s if i == index else s for i, s in enumerate(switches)]
        assert np.std(step(variables, saliency, turned)[1][0] - logits) > 0.1 * np.std(logits), index


RESNET_50 = ResNetConfig(depth=50)


def test_on_a_resnet_fc6_has_as_many_parameters_as_on_vgg():
    config = DecoupledClassifierConfig(backbone=RESNET_50)
    params = abstract(config.build(20), (1, 224, 224, 3))[1]["params"]
    features = (2, 10, 10, 2048)
    bridge = abstract(config.segmentation_net(), features, features)[1]["params"]["bridge"]
    sizes = [params["fc6"]["kernel"].size, bridge["fc6"]["kernel"].size]
    assert sizes == [7 * 7 * 512 * 4096, 7 * 7 * 1024 * 2048]
    assert abstract(config.build(20), (2, 320, 320, 3))[0].shape == (2, 20)
    mirrored = VGGConfig(convolutions=(1, 2, 1, 2, 1))
    for backbone, given, expected in (
        (mirrored, None, (1, 2, 1, 2, 1)), (mirrored, (2,) * 5, (2,) * 5), (RESNET_50, None, (2, 2, 3, 3, 3)),
    ):  # fmt: skip
        assert DeconvNetConfig(backbone=backbone, deconvolutions=given).build(3).deconvolutions == expected
        net = DecoupledClassifierConfig(backbone=backbone).segmentation_net(deconvolutions=given)
        assert net.deconvolutions == expected


@pytest.mark.parametrize("geometry", ["torchvision", "caffe"])
def test_last_features_of_a_resnet_cover_the_image_and_have_a_saliency(geometry):
    backbone = ResNetConfig(depth=18, width=2, geometry=geometry)
    module = DecoupledClassifierConfig(backbone=backbone, hidden=6, fc6_kernel=2).build(3)
    variables, image = random_variables(module, (1, 64, 64, 3)), random_image(2, 96, 64, 3)

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def run(variables, image):
        classified = module.apply(variables, image, method="classify")
        levels = backbone.build(32).apply({k: v["backbone"] for k, v in variables.items()}, image, train=False)
        labels = jnp.broadcast_to(jnp.eye(3), (2, 3, 3))
        saliency = class_saliency(module, variables, classified.pool5, labels, jnp.ones((2, 3)))
        score = lambda x: module.apply(variables, x, method="head").max((1, 2))[:, 1].sum()
        return classified, levels["layer4"], saliency, jax.grad(score)(classified.pool5)

    classified, last, saliency, gradient = run(variables, image)
    assert classified.pool5.shape == (2, 3, 2, 16) and classified.switches == ()
    # Caffe's pooling rounds up, so that there is a place more, outside of the image.
    assert last.shape == ((2, 4, 3, 16) if geometry == "caffe" else (2, 3, 2, 16))
    np.testing.assert_array_equal(classified.pool5, last[:, :3, :2])
    assert saliency.shape == (2, 3, 3, 2, 16) and np.abs(gradient).max() > 0
    np.testing.assert_allclose(saliency[:, 1], gradient, rtol=1e-5, atol=1e-7)


def test_without_switches_values_are_unpooled_to_the_upper_left():
    module = SegmentationNet(2, 6, 1, (1,) * 5)
    pool5, saliency, *switches = segmentation_inputs(2, 64, 1)
    variables = random_variables(module, pool5, saliency)
    inputs = random_image(*pool5), -random_image(*saliency)
    upper_left = [jnp.zeros(x.shape, jnp.uint8) for x in switches]

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def run(variables, upper_left):
        each = ([], upper_left, [1 + x for x in upper_left])
        return [module.apply(variables, *inputs, *switches, train=False) for switches in each]

    outputs, expected, others = run(variables, upper_left)
    assert outputs.shape == (1, 64, 64, 2)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    assert np.std(outputs - others) > 0.1 * np.std(outputs) > 0


def test_what_does_not_fit_is_an_error():
    module, variables, pool5, saliency = head()
    with pytest.raises(ValueError, match="pool5 is 2 x 6, smaller than fc6's window, 3 x 3; use images of at least 96"):
        module.apply(variables, pool5[:, :2], method="head")
    with pytest.raises(ValueError, match=r"label vectors have shape \(2, 4\); expected \[2, L, 4\]"):
        saliency(variables, pool5, np.ones((2, 4), np.float32))
    for backbone in (SMALL["backbone"], ResNetConfig(depth=18, width=2)):
        net = DecoupledClassifierConfig(**{**SMALL, "backbone": backbone}).build(3)
        with pytest.raises(ValueError, match="image is 100 x 128; expected multiples of 32"):
            abstract(net, (1, 100, 128, 3))
    with pytest.raises(ValueError, match="input of fc6 is 2 x 2, smaller than its window, 3 x 3"):
        abstract(DeconvNetConfig(**SMALL).build(3), (1, 64, 64, 3))
    net, inputs = SegmentationNet(2, 6, 3), segmentation_inputs(2, 96)
    with pytest.raises(ValueError, match="expected equal shapes"):
        abstract(net, inputs[0], (2, 3, 3, 8), *inputs[2:])
    with pytest.raises(ValueError, match="switches of 4 pools; expected 5, .* or none"):
        abstract(net, *inputs[:-1])
