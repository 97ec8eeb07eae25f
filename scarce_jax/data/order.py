"""The order of examples in training, a pure function of the seed and the position."""

from __future__ import annotations

import functools

import numpy as np


class Order:
    """An infinite sequence of example indices, shuffled anew in every epoch.

    Position p of the sequence is row p % batch of step p // batch, so the step number is enough to resume, with any
    number of processes.

    Args:
      size: number of examples, at least 1.
      seed: at least 0.
      weights: float [size] >= 0, how often each example is drawn per epoch; None draws each once. By systematic
        sampling, an example of fractional weight is drawn in a share of the epochs, and all epochs have equal length.

    Raises:
      ValueError: the weights have another shape, are negative, or amount to no example.
    """

    def __init__(self, size: int, seed: int, weights: np.ndarray | None = None):
        self._seed = seed
        self._size = size
        self._ends = None
        self.epoch_length = size
        if weights is not None:
            if weights.shape != (size,) or (weights < 0).any() or weights.sum() < 0.5:
                raise ValueError(
                    f"weights: {weights.shape}, sum {weights.sum()}; expected {size} of at least 0, sum >= 1"
                )
            self._ends = np.cumsum(weights, dtype=np.float64)
            self.epoch_length = round(float(self._ends[-1]))
        self._epoch = functools.lru_cache(maxsize=4)(self._draw_epoch)

    def _draw_epoch(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self._seed, epoch])
        indices = np.arange(self._size)
        if self._ends is not None:
            points = (np.arange(self.epoch_length) + rng.uniform()) * (self._ends[-1] / self.epoch_length)
            indices = np.minimum(np.searchsorted(self._ends, points, side="right"), self._size - 1)
        return rng.permutation(indices)

    def __getitem__(self, position: int) -> int:
        epoch, offset = divmod(position, self.epoch_length)
        return int(self._epoch(epoch)[offset])

    def batch(self, step: int, batch: int) -> np.ndarray:
        """Returns the examples of the global batch of a step: int32 [batch]."""
        epochs, offsets = np.divmod(np.arange(step * batch, (step + 1) * batch), self.epoch_length)
        return np.concatenate([self._epoch(epoch)[offsets[epochs == epoch]] for epoch in np.unique(epochs)]).astype(
            np.int32
        )
