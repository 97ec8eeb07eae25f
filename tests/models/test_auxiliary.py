"""AuxiliaryNet: table 1 of its paper."""

import jax
import jax.numpy as jnp
import pytest

from scarce_jax.models.auxiliary import AuxiliaryNet
from tests.models.shapes import abstract, random_image, random_variables


def test_sizes_of_table_1():
    module = AuxiliaryNet(19)
    _, variables = abstract(module, (1, 512, 1024, 19))
    x = jax.ShapeDtypeStruct((1, 512, 1024, 19), jnp.float32)
    logits, state = jax.eval_shape(
        lambda v, x: module.apply(v, x, train=False, capture_intermediates=True), variables, x
    )
    shapes = {name: value["__call__"][0].shape[1:] for name, value in state["intermediates"].items() if "conv" in name}
    assert shapes == {
        "conv1": (256, 512, 32),
        "conv2": (256, 512, 64),
        "conv3": (128, 256, 128),
        "conv4": (128, 256, 256),
        "conv5": (128, 256, 256),
    }
    assert variables["params"]["classifier"]["deconv"]["kernel"].shape == (8, 8, 160, 1)
    assert logits.shape == (1, 512, 1024) and logits.dtype == jnp.float32


def test_branches_have_the_papers_rates():
    module = AuxiliaryNet(3, width=2)
    # Maps of 17 x 17: taps of rate 16 still reach from one side to the other.
    x = random_image(1, 68, 68, 3)
    variables = random_variables(module, x.shape)
    text = str(jax.make_jaxpr(lambda v, x: module.apply(v, x, train=False))(variables, x))
    rates = sorted(int(part.split(",")[0]) for part in text.split("rhs_dilation=(")[1:])
    assert [rate for rate in rates if rate > 1] == [2, 4, 8, 16]


def test_maps_of_other_classes_are_an_error():
    with pytest.raises(ValueError, match=r"class maps have shape \(1, 16, 16, 3\); expected 4 channels"):
        abstract(AuxiliaryNet(4, width=2), (1, 16, 16, 3))
