"""The P-Net: sizes at each input, the paper's layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.pnet import PNet
from tests.models import vgg_nets
from tests.models.golden import recipe
from tests.models.shapes import abstract, gradients_reach_every_parameter, parameters, random_image, random_variables


@pytest.mark.parametrize(("side", "count"), [(321, 52_843_105), (41, 1_233_505), (224, 26_104_417)])
def test_parameter_count(side, count):
    assert parameters(PNet(), (1, side, side, 3)) == count


def test_layers_of_table_1():
    logits, variables = abstract(PNet(), (5, 41, 41, 3))
    assert logits.shape == (5,) and logits.dtype == jnp.float32
    shapes = {name: layer["kernel"].shape for name, layer in variables["params"].items()}
    channels = (3, 16, 32, 64, 64, 128, 128)
    expected = {f"conv{1 + i // 2}_{1 + i % 2}": (3, 3, channels[i], channels[i + 1]) for i in range(6)}
    expected |= {"fc4": (5 * 5 * 128, 256), "fc5": (256, 512), "fc6": (512, 1)}
    assert shapes == expected


def test_logits_are_those_of_pytorch(tmp_path):
    module = PNet(recipe.WIDTH["pnet"])
    variables = vgg_nets.variables(module, "pnet", tmp_path)
    # PyTorch flattens [C, h, w], we [h, w, C].
    kernel = variables["params"]["fc4"]["kernel"]
    height, width = (side // 8 for side in recipe.SIZE[1:3])
    ordered = kernel.reshape(-1, height, width, kernel.shape[1]).transpose(1, 2, 0, 3).reshape(kernel.shape)
    variables["params"]["fc4"]["kernel"] = ordered
    logits = vgg_nets.forward(module)(variables, recipe.image())
    vgg_nets.assert_golden(logits[:, None, None, None], "pnet")


def test_images_are_judged_one_by_one():
    module, x = PNet(2), random_image(3, 17, 17, 3)
    variables = random_variables(module, x.shape)
    run = vgg_nets.forward(module)
    together, alone = run(variables, x), run(variables, jnp.broadcast_to(x[1], x.shape))
    np.testing.assert_allclose(together[1], alone[0], atol=1e-6)
    assert np.abs(together[1] - together[2]) > 1e-3


def test_training_reaches_everything():
    gradients_reach_every_parameter(PNet(2), random_image(3, 17, 16, 3))


def test_bfloat16_computes_float32_logits_from_float32_variables():
    logits, variables = abstract(PNet(dtype=jnp.bfloat16), (1, 41, 41, 3))
    assert logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert "0x" not in repr(PNet(dtype=jnp.bfloat16))


@pytest.mark.parametrize("shape", [(1, 7, 41, 3), (1, 41, 41, 21), (41, 41, 3)])
def test_an_input_of_another_kind_is_an_error(shape):
    with pytest.raises(ValueError, match="input of the P-Net has shape .*; expected .B, H, W, 3., sides from 8 on"):
        abstract(PNet(), shape)
