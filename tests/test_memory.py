"""A device that runs out of memory."""

import jax
import jax.numpy as jnp
import pytest

from scarce_jax import memory
from scarce_jax.errors import InputError


def failing(message):
    """A compiled program that fails as XLA does."""

    def run(x):
        raise jax.errors.JaxRuntimeError(message)

    return jax.jit(run)


def test_a_failed_allocation_says_what_to_lower():
    program = failing("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12345 bytes.")
    detailer = memory.advice(what="stage detailer", batch=8, size=(128, 256), lower="--detailer.batch")
    with pytest.raises(InputError) as caught, detailer:
        program(jnp.zeros(3))
    for part in ("stage detailer: out of device memory", "batch 8 at 128 x 256", "lower --detailer.batch"):
        assert part in str(caught.value)


def test_the_innermost_advice_is_given():
    program = failing("RESOURCE_EXHAUSTED: Out of memory.")
    stage = memory.advice(what="stage semi", batch=8, size=(4, 4), lower="--semi.batch")
    result = memory.advice(what="result semi", batch=2, size=None, lower="--semi.eval-batch")
    message = "result semi: .* at the images' own size; lower --semi.eval-batch"
    with pytest.raises(InputError, match=message), stage, result:
        program(jnp.zeros(3))


def test_other_errors_pass():
    detailer = memory.advice(what="stage detailer", batch=8, size=None, lower="--batch")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), detailer:
        failing("INTERNAL: something else")(jnp.zeros(3))


@pytest.mark.parametrize(
    ("batch", "flag"),
    [
        (4, "--segmenter.eval-batch"),
        (8, "--lnet.eval-batch or --all-labels.eval-batch"),
        (2, "the batch of its source"),
    ],
)
def test_the_flag_of_an_evaluation_batch(batch, flag):
    config = {
        "seed": 0,
        "segmenter": {"batch": 8, "eval_batch": 4},
        "lnet": {"eval_batch": 8},
        "cam": None,
        "all_labels": {"eval_batch": 8},
    }
    assert memory.evaluation_flag(config, batch) == flag
