"""The flags of `evaluate` and `predict` that say in which views images are predicted."""

from __future__ import annotations

import dataclasses
from typing import Any

from scarce_jax.cli.common import Name, Number, Scales, Switch, Window
from scarce_jax.errors import InputError


@dataclasses.dataclass(kw_only=True)
class PredictionFlags:
    """Flags that say how images are predicted.

    Attributes:
      flip: also predict the mirrored image, and average the probabilities.
      scales: predict at these factors of the result's size, and average.
      window: predict in windows of this size that slide over the image, and average where they overlap.
      crf: refine by the image's colours with a dense CRF of these parameters; an unknown name lists them.
      batch: images per device, to fit a smaller one; it changes no result. Default the config's.
    """

    flip: Switch = False
    scales: Scales = None
    window: Window = None
    crf: Name = None
    batch: Number = None

    def views(self) -> Any:
        """The `Views` that the flags ask for, None where there are none of them.

        Raises:
          InputError: a flag holds something else than numbers with commas between them, or names no parameters.
        """
        if not self.flip and self.scales is None and self.window is None and self.crf is None:
            return None
        from scarce_jax.ops.crf import PARAMETERS
        from scarce_jax.recipe import Views

        fields: dict[str, Any] = {"flip": self.flip}
        if self.scales is not None:
            fields["scales"] = _numbers("--scales", self.scales, float, "factors like 0.5,1,2")
        if self.window is not None:
            fields["window"] = _numbers("--window", self.window, int, "a height and a width like 512,512")
        if self.crf is not None:
            if self.crf not in PARAMETERS:
                raise InputError(f"--crf {self.crf}: expected one of {', '.join(PARAMETERS)}")
            fields["crf"] = PARAMETERS[self.crf]
        return Views(**fields)


def _numbers(flag: str, text: str, kind: type, expected: str) -> tuple:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{flag} {text}: expected {expected}") from error
