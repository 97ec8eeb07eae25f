"""The flags of `evaluate` and `predict` that choose how images are predicted."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from scarce_jax.cli.common import Name, Number, Switch, shown
from scarce_jax.errors import InputError
from scarce_jax.ranges import check


@dataclasses.dataclass(kw_only=True)
class PredictionFlags:
    """Flags that choose the views and the batch of a prediction.

    Attributes:
      flip: also predict the mirrored image, and average the probabilities.
      scales: predict at these factors of the result's size, and average.
      window: predict in windows of this size that slide over the image, and average where they overlap.
      crf: refine the result with a dense CRF with these parameters; an unknown name lists all.
      batch: images per device, for less memory; it changes no result. Default the config's.
    """

    flip: Switch = False
    scales: Annotated[str | None, shown("S1,S2,...")] = None
    window: Annotated[str | None, shown("H,W")] = None
    crf: Name = None
    batch: Number = None

    def arguments(self) -> dict[str, Any]:
        """The arguments `views` and `batch` of `runs.evaluate` and `runs.predict`."""
        return {"views": self._views(), "batch": self.batch}

    def _views(self) -> Any:
        """The `Views` of the flags, or None without any.

        Raises:
          InputError: --scales or --window is not numbers with commas between them or out of its range, or --crf is
            unknown.
        """
        from scarce_jax.ops.crf import PARAMETERS
        from scarce_jax.recipe import Views

        fields: dict[str, Any] = {"flip": True} if self.flip else {}
        if self.scales is not None:
            fields["scales"] = _numbers("--scales", self.scales, float, "factors like 0.5,1,2")
        if self.window is not None:
            fields["window"] = _numbers("--window", self.window, int, "a height and a width like 512,512")
        if self.crf is not None:
            if self.crf not in PARAMETERS:
                raise InputError(f"--crf {self.crf}: expected one of {', '.join(PARAMETERS)}")
            fields["crf"] = PARAMETERS[self.crf]
        views = Views(**fields)
        check(views)
        return views if fields else None


def _numbers(flag: str, text: str, kind: type, expected: str) -> tuple:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{flag} {text}: expected {expected}") from error
