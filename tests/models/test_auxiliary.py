"""AuxiliaryNet: table 1 of its paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.auxiliary import AuxiliaryNet
from tests.models.shapes import abstract, gradients_reach_every_parameter, parameters, random_image, random_variables


@pytest.mark.parametrize(("classes", "count"), [(19, 1_363_041), (11, 1_360_737)])
def test_parameter_count(classes, count):
    assert parameters(AuxiliaryNet(classes), (1, 64, 64, classes)) == count


def test_sizes_of_table_1():
    module = AuxiliaryNet(19)
    _, variables = abstract(module, (1, 512, 1024, 19))
    x = jax.ShapeDtypeStruct((1, 512, 1024, 19), jnp.float32)
    logits, state = jax.eval_shape(
        lambda v, x: module.apply(v, x, train=False, capture_intermediates=True), variables, x
    )
    found = {name: value["__call__"][0].shape[1:] for name, value in state["intermediates"].items() if "conv" in name}
    assert found == {
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
    x = random_image(1, 9, 9, 3)
    variables = random_variables(module, x.shape)
    text = str(jax.make_jaxpr(lambda v, x: module.apply(v, x, train=False))(variables, x))
    rates = sorted(int(part.split(",")[0]) for part in text.split("rhs_dilation=(")[1:])
    assert rates == [1] * 5 + [1, 2, 4, 8, 16]


@pytest.mark.parametrize("size", [(360, 480), (33, 47), (1, 2)])
def test_any_size_gives_one_logit_per_pixel(size):
    assert abstract(AuxiliaryNet(11, width=2), (2, *size, 11), train=True)[0].shape == (2, *size)


def test_images_are_judged_alone_and_by_their_probabilities():
    module = AuxiliaryNet(5, width=4)
    x = jax.nn.softmax(3 * random_image(2, 18, 21, 5))
    variables = random_variables(module, x.shape)
    apply = jax.jit(lambda x: module.apply(variables, x, train=False))
    logits = apply(x)
    np.testing.assert_allclose(apply(x.at[0].set(0.2))[1], logits[1], atol=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 1e-2


def test_training_reaches_everything():
    gradients_reach_every_parameter(AuxiliaryNet(3, width=2), random_image(2, 21, 18, 3))


def test_bfloat16_computes_float32_logits_from_float32_variables():
    logits, variables = abstract(AuxiliaryNet(3, width=2, dtype=jnp.bfloat16), (1, 16, 16, 3), train=True)
    assert logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert "0x" not in repr(AuxiliaryNet(3, dtype=jnp.bfloat16))


def test_maps_of_other_classes_are_an_error():
    with pytest.raises(ValueError, match=r"class maps have shape \(1, 16, 16, 3\); expected 4 channels"):
        abstract(AuxiliaryNet(4, width=2), (1, 16, 16, 3))
