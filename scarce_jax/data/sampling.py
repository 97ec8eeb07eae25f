"""Drawing examples with rare classes more often."""

from __future__ import annotations

import dataclasses

import numpy as np

from scarce_jax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RareClassSampling:
    """Draws examples with rare classes more often: `(tags [N, K] uint8) -> float64 [N]` draws per epoch.

    Repeat factor sampling, after Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR 2019,
    where `power` is 0.5. With f_k the share of the examples that show class k,

        r_k = max(1, (threshold / f_k) ** power),    r_i = max of r_k over the classes k that example i shows.

    An example without a class has r_i = 1.

    Attributes:
      power: 0 draws all examples equally often; 1 draws a rare class as often as one at the threshold.
      threshold: the share of the examples below which a class is rare, above 0 and at most 1. None is the share of the
        most frequent class.
      same_length: scale the draws so that the epoch keeps its length, and common examples are drawn less than once;
        otherwise the epoch grows.
    """

    power: float = 0.5
    threshold: float | None = None
    same_length: bool = False

    def __post_init__(self):
        if self.power < 0:
            raise InputError(f"rare-class sampling: power is {self.power}, expected 0 or more")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise InputError(
                f"rare-class sampling: threshold is {self.threshold}, expected a share of the examples, above 0 and at "
                "most 1"
            )

    def __call__(self, tags: np.ndarray) -> np.ndarray:
        shown = np.asarray(tags) > 0  # [N, K]
        if not shown.any():
            return np.ones(len(shown))
        share = shown.mean(axis=0)  # [K]
        threshold = share.max() if self.threshold is None else self.threshold
        repeats = np.ones(len(share))
        occurs = share > 0
        repeats[occurs] = np.maximum(1.0, (threshold / share[occurs]) ** self.power)
        draws = np.where(shown, repeats, 1.0).max(axis=1)
        return draws * (len(draws) / draws.sum()) if self.same_length else draws
