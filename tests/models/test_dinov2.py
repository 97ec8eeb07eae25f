"""DINOv2: what `transformers` computes, the layouts of its files, frozen parts, and decayed learning rates."""

import dataclasses
import functools
import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax import optim
from scarce_jax.errors import InputError
from scarce_jax.methods.common import with_backbone
from scarce_jax.models import weights
from scarce_jax.models.dinov2 import DINOv2, DINOv2Config
from scarce_jax.models.fcn import FCNConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.tracing import Tracing, tracing
from scarce_jax.ops.bicubic import bicubic_matrix, resize_bicubic
from scarce_jax.optim import Group, Optimizer, assign_groups, parameter_paths
from tests import tiny as tiny_configs
from tests import torch_files
from tests.models.golden import recipe
from tests.models.shapes import UNOPTIMISED, abstract, count, random_image, random_variables

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "dinov2.npz")
REGISTERS = {"dinov2": 0, "dinov2_registers": 4}


class Wrapped(nn.Module):
    """A backbone under the name that it has in nets."""

    backbone: nn.Module

    def __call__(self, image, train=False):
        return self.backbone(image, train=train)


def tiny(case="dinov2", **fields):
    return Wrapped(DINOv2(**{**recipe.DINOV2, "registers": REGISTERS[case], **fields}))


def tensors(case):
    """Every array of a case in Hugging Face's layout."""
    return {k: recipe.dinov2_weight(k, shape) for k, shape in json.loads(GOLDEN[f"{case}/shapes"].tobytes()).items()}


@functools.lru_cache
def shapes(net):
    return weights.flat_shapes(abstract(net, (1, 28, 28, 3))[1])


def imported(path, arrays, net):
    return weights.import_weights(torch_files.save(path / "w.safetensors", arrays), shapes(net))


def of_authors(arrays, timm=False):
    """Arrays of Hugging Face's layout in that of the authors, or of timm for its models with registers."""
    renamed = {
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.register_tokens": "reg_token" if timm else "register_tokens",
        "embeddings.": "",
        "encoder.layer": "blocks",
        "attention.output.dense": "attn.proj",
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
        "layernorm": "norm",
    }
    moved = {}
    for key, value in arrays.items():
        if ".attention.attention." in key:
            if ".query." not in key:
                continue
            value = np.concatenate([arrays[key.replace("query", part)] for part in ("query", "key", "value")])
            key = key.replace("attention.attention.query", "attn.qkv")
        for old, new in renamed.items():
            key = key.replace(old, new)
        moved[key] = value
    if timm:
        positions = moved["pos_embed"]
        moved["pos_embed"], moved["cls_token"] = positions[:, 1:], moved["cls_token"] + positions[:, :1]
        del moved["mask_token"]
    return moved


@pytest.mark.parametrize("case", REGISTERS)
def test_forward_pass_is_that_of_transformers(case, tmp_path):
    net = tiny(case)
    found = imported(tmp_path, tensors(case), net)
    assert found.values.keys() == shapes(net).keys()
    assert list(found.unused) == ["embeddings.mask_token"]
    run = jax.jit(net.apply, compiler_options=UNOPTIMISED)
    for height, width in recipe.DINOV2_SIZES:
        levels = run(weights.overlay({}, found.values), recipe.image((1, height, width, 3)))
        assert list(levels) == ["layer1", "layer2", "layer3", "layer4"]
        for name, features in levels.items():
            assert features.shape == (1, height // 14, width // 14, net.backbone.width)
            stored = GOLDEN[f"{case}/{height}x{width}/{name}"]
            np.testing.assert_allclose(recipe.sample(np.asarray(features)), stored, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("case", "arrange"),
    [
        ("dinov2", of_authors),
        ("dinov2_registers", of_authors),
        ("dinov2", lambda arrays: {f"dinov2.{key}": value for key, value in arrays.items()}),
    ],
    ids=["authors", "authors, registers", "with a classifier"],
)
def test_other_layouts_hold_the_same_net(case, arrange, tmp_path):
    expected = imported(tmp_path, tensors(case), tiny(case)).values
    arrays = arrange(tensors(case)) | {"classifier.weight": np.zeros((5, 48), np.float32)}
    found = imported(tmp_path, arrays, tiny(case))
    assert {key.rpartition(".")[2] for key in found.unused} == {"mask_token", "weight"} and len(found.unused) == 2
    assert found.values.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found.values[name], value, err_msg=name)


def test_timms_class_token_includes_its_position(tmp_path):
    net = tiny("dinov2_registers")
    expected = imported(tmp_path, tensors("dinov2_registers"), net).values
    found = imported(tmp_path, of_authors(tensors("dinov2_registers"), timm=True), net)
    assert not found.unused
    run = jax.jit(net.apply, compiler_options=UNOPTIMISED)
    ours, timms = (run(weights.overlay({}, v), recipe.image((1, 42, 56, 3))) for v in (expected, found.values))
    np.testing.assert_allclose(timms["layer4"], ours["layer4"], atol=1e-5)


def test_another_dinov2_is_refused_with_the_flag_that_fixes_it(tmp_path):
    with pytest.raises(
        InputError, match=r"DINOv2 with registers, and the net is .* without registers; set .*backbone\.registers, or"
    ):
        imported(tmp_path, tensors("dinov2_registers"), tiny("dinov2"))
    with pytest.raises(
        InputError,
        match=r"DINOv2 without registers, and the net is .* with registers; set .*\.no-registers, or",
    ):
        imported(tmp_path, tensors("dinov2"), tiny("dinov2_registers"))
    small = Wrapped(DINOv2Config().build(14))
    words = "looks like a vision transformer of 4 blocks and 24 channels, and the net is a DINOv2 of size small; use an"
    with pytest.raises(InputError, match=words):
        imported(tmp_path, tensors("dinov2"), small)
    # Of the right size, in as few arrays as tell it.
    few = {"embeddings.cls_token": np.zeros((1, 1, 768), np.float32)}
    few |= {f"encoder.layer.{i}.norm1.bias": np.zeros(768, np.float32) for i in range(12)}
    with pytest.raises(InputError, match=r"of size base, and .* of size small; set --STAGE\.net\.backbone\.size base"):
        imported(tmp_path, few, small)


def test_what_is_no_dinov2_is_refused(tmp_path):
    def changed(**changes):
        arrays = tensors("dinov2") | {key.replace("__", "."): value for key, value in changes.items()}
        return imported(tmp_path, {k: v for k, v in arrays.items() if v is not None}, tiny("dinov2"))

    with pytest.raises(InputError, match=r"1 are missing \['params/backbone/class_token'\]"):
        changed(embeddings__cls_token=None)
    with pytest.raises(InputError, match=r"1 are missing \['params/backbone/block2/scale1'\]"):
        changed(encoder__layer__2__layer_scale1__lambda1=None)
    with pytest.raises(InputError, match=r"query\.bias is there, but blocks\.1\.attn\.value\.bias .* is missing"):
        changed(encoder__layer__1__attention__attention__value__bias=None)
    with pytest.raises(InputError, match=r"mlp\.weights_in\.weight is not part of a DINOv2 of size small, base, large"):
        changed(encoder__layer__1__mlp__weights_in__weight=np.zeros((4, 24), np.float32))
    with pytest.raises(InputError, match=r"positions has shape \[17, 24\], expected \[26, 24\]"):
        changed(embeddings__position_embeddings=np.zeros((1, 17, 24), np.float32))
    with pytest.raises(InputError, match=r"layernorm\.bias holds values that are not finite"):
        changed(layernorm__bias=np.full(24, np.nan, np.float32))


@pytest.mark.parametrize(
    ("size", "registers", "parameters"),
    # Those of `transformers`, less the mask token.
    [
        ("small", False, 22_056_576 - 384),
        ("small", True, 22_058_112 - 384),
        ("base", False, 86_580_480 - 768),
        ("base", True, 86_583_552 - 768),
        ("large", False, 304_368_640 - 1024),
        ("large", True, 304_372_736 - 1024),
    ],
)
def test_parameter_counts(size, registers, parameters):
    module = DINOv2Config(size=size, registers=registers).build(8)
    assert count(abstract(module, (1, 28, 28, 3))[1]["params"]) == parameters


def test_an_image_of_any_size_is_padded_with_zeros():
    net = tiny(registers=1)
    variables, image = random_variables(net, (1, 28, 28, 3)), random_image(1, 30, 41, 3)
    padded = jnp.pad(image, ((0, 0), (0, 12), (0, 1), (0, 0)))
    run = jax.jit(net.apply, compiler_options=UNOPTIMISED)
    ours, theirs = run(variables, image), run(variables, padded)
    assert ours["layer4"].shape == (1, 3, 3, 24)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("source", [3, 8])
def test_bicubic_resizing_of_the_same_size_and_of_a_constant_changes_nothing(source):
    for antialias in (False, True):
        np.testing.assert_allclose(bicubic_matrix(source, source, antialias), np.eye(source), atol=1e-7)
        for target in (1, 5, 21):
            np.testing.assert_allclose(bicubic_matrix(source, target, antialias).sum(1), 1, atol=1e-6)
    x = np.random.default_rng(0).normal(size=(source, source, 2)).astype(np.float32)
    np.testing.assert_array_equal(resize_bicubic(jnp.asarray(x), (source, source), antialias=False), x)


def gradient_of(net, variables, image):
    def loss(params):
        levels = net.apply({"params": params}, image, train=True)
        return sum((x * jnp.cos(jnp.arange(x.size).reshape(x.shape))).sum() for x in levels.values())

    return jax.grad(loss)(variables["params"])


def compiled(net, *inputs):
    return jax.jit(functools.partial(gradient_of, net), compiler_options=UNOPTIMISED)(*inputs)


@pytest.mark.parametrize("frozen", [1, 3, 5])
def test_frozen_parts_get_no_gradient_and_are_those_of_the_pattern(frozen):
    config = DINOv2Config(registers=True, frozen=frozen)
    net = Wrapped(config.build(8).copy(width=4, heads=2, grid=2))
    variables = random_variables(net, (1, 28, 28, 3))
    gradient = compiled(net, variables, random_image(1, 28, 42, 3))
    still = [not np.any(x) for x in jax.tree.leaves(gradient)]
    # A parameter belongs to the first group that matches.
    groups = (*([Group(pattern=config.frozen_pattern, lr=0)] if frozen else []), Group())
    matched = [frozen > 0 and index == 0 for index in jax.tree.leaves(assign_groups(groups, variables["params"]))]
    assert still == matched
    names = {path.split("/")[1] for path, fixed in zip(parameter_paths(gradient), still, strict=True) if fixed}
    assert len([name for name in names if name.startswith("block")]) == 3 * max(frozen - 1, 0)
    assert ("positions" in names) == (frozen > 0) and ("norm" in names) == (frozen == 5)


def test_remat_changes_no_gradient():
    net = tiny("dinov2_registers")
    variables, image = random_variables(net, (1, 28, 28, 3)), random_image(1, 28, 42, 3)
    expected = compiled(net, variables, image)
    with tracing(Tracing(remat=True)):
        text = str(jax.make_jaxpr(functools.partial(gradient_of, net))(variables, image))
        found = compiled(net, variables, image)
    assert text.count("remat") >= recipe.DINOV2["blocks"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), found, expected)


def test_the_last_block_decays_once_and_the_embeddings_most():
    config = DINOv2Config(registers=True)
    stage = tiny_configs.supervised_config().segmenter
    stage = dataclasses.replace(stage, net=FCNConfig(backbone=config), optim=Optimizer(lr=1.0, layer_decay=0.5))
    groups = with_backbone(stage.optim, stage).groups
    _, variables = abstract(Wrapped(config.build(8)), (1, 28, 28, 3))
    params = {**variables["params"], "classifier": {"kernel": 0}}
    indices = jax.tree.leaves(assign_groups(groups, params))
    rate = dict(zip(parameter_paths(params), (groups[index].lr for index in indices), strict=True))
    assert rate["classifier/kernel"] == rate["backbone/norm/scale"] == 1
    assert rate["backbone/block11/qkv/kernel"] == rate["backbone/block11/scale2"] == 0.5
    assert rate["backbone/block1/mlp1/bias"] == 0.5**11 and rate["backbone/block0/norm1/bias"] == 0.5**12
    for name in ("positions", "class_token", "registers", "patch/kernel"):
        assert rate[f"backbone/{name}"] == 0.5**13
    # What is frozen stays so.
    frozen = dataclasses.replace(stage, net=FCNConfig(backbone=dataclasses.replace(config, frozen=5)))
    first, *others = with_backbone(stage.optim, frozen).groups
    assert first.lr == 0 and tuple(others) == groups


def test_rates_of_another_backbone_cannot_decay():
    stage = tiny_configs.supervised_config().segmenter
    stage = dataclasses.replace(stage, net=PSPNetConfig(), optim=Optimizer(lr=1.0, layer_decay=0.5))
    with pytest.raises(
        InputError, match="optim.layer_decay is 0.5; expected None, because the net stands on no DINOv2"
    ):
        optim.build(with_backbone(stage.optim, stage), {"backbone": {"conv1": {"kernel": jnp.zeros(3)}}}, 5)


def test_a_wrong_number_of_blocks_is_an_error():
    with pytest.raises(ValueError, match="blocks are 6 and frozen is 0; expected a multiple of 4"):
        abstract(tiny(blocks=6), (1, 28, 28, 3))
