"""The order of examples: a pure function of seed and position."""

import numpy as np
import pytest

from scarce_jax.data.order import Order


def test_every_epoch_covers_all_in_another_order():
    order = Order(10, seed=3)
    epochs = [[order[p] for p in range(e * 10, (e + 1) * 10)] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_pure_function_of_position():
    a, b = Order(7, seed=1), Order(7, seed=1)
    late = [b.batch(step, 4).tolist() for step in (9, 2, 5)]
    early = {step: a.batch(step, 4).tolist() for step in range(10)}
    assert late == [early[9], early[2], early[5]]
    assert Order(7, seed=2).batch(0, 7).tolist() != a.batch(0, 7).tolist()


def test_batch_larger_than_the_set_spans_epochs():
    assert np.bincount(Order(3, seed=0).batch(0, 9)).tolist() == [3, 3, 3]


def test_weights_are_draws_per_epoch():
    order = Order(4, seed=0, weights=np.array([3.0, 0.0, 1.0, 0.5]))
    assert order.epoch_length == 4
    drawn = np.bincount([order[p] for p in range(4 * 500)], minlength=4) / 500
    assert drawn[1] == 0
    np.testing.assert_allclose(drawn, np.array([3, 0, 1, 0.5]) * 4 / 4.5, atol=0.06)


def test_bad_weights():
    with pytest.raises(ValueError, match="weights"):
        Order(2, seed=0, weights=np.array([-1.0, 2.0]))
