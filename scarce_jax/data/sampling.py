"""Drawing examples with rare classes more often."""

from __future__ import annotations

import dataclasses

import numpy as np

from scarce_jax.errors import InputError
from scarce_jax.ranges import Count


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassBalance:
    """Balances classes by leaving out and repeating examples: `(tags [N, K] uint8) -> float64 [N]` draws per epoch.

    Down-sampling is the balancing of the three-step paper (section 3.1); its section 5.1 asks for up-sampling, and for
    both together.

    Attributes:
      at_most: examples of a class that are kept: going from the rarest class to the commonest, an example is kept while
        one of its classes has fewer. None keeps all.
      at_least: draws per epoch of a class: kept examples of one with fewer are repeated as often as that takes. None
        repeats none.
    """

    at_most: Count | None = None
    at_least: Count | None = None

    def __call__(self, tags: np.ndarray) -> np.ndarray:
        shown = np.asarray(tags) > 0  # [N, K]
        if not shown.any():
            return np.ones(len(shown))
        kept = np.ones(len(shown), bool)
        if self.at_most is not None:
            rarity = np.where(shown, shown.sum(0), len(shown) + 1).min(1)
            kept[:] = False
            counts = np.zeros(shown.shape[1], int)
            for i in np.argsort(rarity, kind="stable"):
                if (counts[shown[i]] < self.at_most).any():
                    kept[i] = True
                    counts += shown[i]
        draws = kept.astype(np.float64)
        if self.at_least is not None:
            counts = (shown & kept[:, None]).sum(0)
            repeats = np.maximum(1.0, self.at_least / np.maximum(counts, 1))  # [K]
            draws *= np.where(shown, repeats, 1.0).max(1)
        return draws
