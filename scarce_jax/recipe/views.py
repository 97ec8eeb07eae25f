"""Which views of an image are predicted and averaged."""

from __future__ import annotations

import dataclasses

from scarce_jax.errors import InputError
from scarce_jax.ops.crf import CRF


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views:
    """The views whose class probabilities are averaged, and what refines them; the default is the image as it is.

    Attributes:
      flip: also the image mirrored left to right.
      scales: factors of the size at which masks are predicted; the image is brought to each from its native size.
      window: (height, width) of windows that slide by two thirds of themselves over the image at each scale; where
        they overlap, their probabilities are averaged. None predicts whole images.
      crf: refines the averaged probabilities at native size by the colours of the image (see `ops.crf`).
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    window: tuple[int, int] | None = None
    crf: CRF | None = None

    def __post_init__(self):
        if not self.scales or any(not 0 < s < 16 for s in self.scales) or len(set(self.scales)) != len(self.scales):
            raise InputError(f"scales: found {list(self.scales)}, expected different factors between 0 and 16")
        if self.window is not None and (len(self.window) != 2 or min(self.window) < 1):
            raise InputError(f"window: found {list(self.window)}, expected a height and a width of 1 or more")

    @property
    def plain(self) -> bool:
        """Whether the image is predicted as it is."""
        return self == PLAIN


PLAIN = Views()
