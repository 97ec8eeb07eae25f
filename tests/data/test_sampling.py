"""Draws per epoch that favour rare classes."""

import numpy as np
import pytest

from scarce_jax.data.order import Order
from scarce_jax.data.sampling import ClassBalance, RareClassSampling
from scarce_jax.errors import InputError

# Class 0 in 16 of 17 examples, class 1 in 4, class 2 in 1; class 3 nowhere; the last example shows none.
TAGS = np.zeros((17, 4), np.uint8)
TAGS[:16, 0] = 1
TAGS[:4, 1] = 1
TAGS[0, 2] = 1


def test_an_example_is_repeated_for_its_rarest_class():
    draws = RareClassSampling(power=0.5)(TAGS)
    np.testing.assert_allclose(draws, [4.0, 2.0, 2.0, 2.0, *[1.0] * 13])
    np.testing.assert_allclose(RareClassSampling(power=1.0)(TAGS)[:2], [16.0, 4.0])


def test_classes_above_the_threshold_are_not_rare():
    draws = RareClassSampling(power=1.0, threshold=2 / 17)(TAGS)
    np.testing.assert_allclose(draws, [2.0, *[1.0] * 16])


def test_the_same_length_keeps_the_epoch_and_the_ratios():
    longer, same = (RareClassSampling(same_length=value)(TAGS) for value in (False, True))
    assert same.sum() == pytest.approx(len(TAGS))
    np.testing.assert_allclose(same / same[-1], longer / longer[-1])
    assert Order(len(TAGS), 0, same).epoch_length == len(TAGS)


def test_power_0_and_data_without_tags_draw_every_example_once():
    assert (RareClassSampling(power=0.0)(TAGS) == 1).all()
    assert (RareClassSampling()(np.zeros((3, 2), np.uint8)) == 1).all()


def test_the_order_draws_as_often_as_it_says():
    draws = RareClassSampling(power=0.5)(TAGS)
    order = Order(len(TAGS), 1, draws)
    epoch = order.batch(0, order.epoch_length)
    assert np.bincount(epoch, minlength=len(TAGS)).tolist() == draws.astype(int).tolist()


def test_equal_settings_are_equal_values():
    assert RareClassSampling(power=0.7) == RareClassSampling(power=0.7) != RareClassSampling()


@pytest.mark.parametrize("wrong", [{"power": -0.5}, {"threshold": 0.0}, {"threshold": 1.5}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        RareClassSampling(**wrong)


def counts(draws):
    return (TAGS * draws[:, None]).sum(0)


def test_down_sampling_keeps_examples_of_rare_classes():
    draws = ClassBalance(at_most=3)(TAGS)
    # Example 0 has the only class 2; then come those of class 1, which have class 0 as well.
    np.testing.assert_array_equal(draws, [1, 1, 1, *[0] * 14])
    np.testing.assert_array_equal(counts(ClassBalance(at_most=6)(TAGS)), [6, 4, 1, 0])
    np.testing.assert_array_equal(ClassBalance(at_most=99)(TAGS), [*[1] * 16, 0])


def test_up_sampling_repeats_examples_of_rare_classes():
    np.testing.assert_allclose(ClassBalance(at_least=4)(TAGS), [4, *[1] * 16])
    np.testing.assert_allclose(ClassBalance(at_least=8)(TAGS), [8, 2, 2, 2, *[1] * 13])


def test_both_together_repeat_what_is_kept():
    draws = ClassBalance(at_most=3, at_least=6)(TAGS)
    np.testing.assert_allclose(draws, [6, 2, 2, *[0] * 14])
    order = Order(len(TAGS), 0, draws)
    assert order.epoch_length == 10 and set(order.batch(0, 10)) == {0, 1, 2}
