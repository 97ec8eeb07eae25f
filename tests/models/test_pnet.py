"""The P-Net: the paper's layers."""

import pytest

from scarce_jax.models.pnet import PNet
from tests.models import vgg_nets
from tests.models.golden import recipe
from tests.models.shapes import abstract


def test_layers_of_table_1():
    _, variables = abstract(PNet(), (5, 41, 41, 3))
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


@pytest.mark.parametrize("shape", [(1, 7, 41, 3), (1, 41, 41, 21), (41, 41, 3)])
def test_an_input_of_another_kind_is_an_error(shape):
    with pytest.raises(
        ValueError, match="input of the P-Net has shape .*; expected .B, H, W, 3. with sides of at least 8"
    ):
        abstract(PNet(), shape)
