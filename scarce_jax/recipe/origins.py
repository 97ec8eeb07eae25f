"""Origins of initial weights outside the run."""

from __future__ import annotations

import dataclasses
import pathlib
import re

from scarce_jax.errors import InputError
from scarce_jax.models.weights import HUB, SUFFIXES


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromRun:
    """A net of another run, in a config "RUN:STAGE/NET" or "RUN:STAGE/NET#PATTERN".

    Attributes:
      run: the run folder.
      stage: name of the stage.
      net: role of the net in the stage.
      pattern: regular expression that is searched in parameter paths ("backbone/layer1_block0/conv1/kernel"). Every
        matching array is loaded, and must exist in the same shape. None loads every array of equal path and shape.
    """

    run: str
    stage: str
    net: str
    pattern: str | None = None

    @property
    def path(self) -> pathlib.Path:
        """The run folder."""
        return pathlib.Path(self.run)

    def __str__(self) -> str:
        pattern = "" if self.pattern is None else f"#{self.pattern}"
        return f"{self.run}:{self.stage}/{self.net}{pattern}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Weights of a net's trunk: a .safetensors or .pth file, or "hf:OWNER/NAME" (see `models.weights`)."""

    source: str

    @property
    def path(self) -> pathlib.Path | None:
        """The file; None of a name that is downloaded."""
        return None if self.source.startswith(HUB) else pathlib.Path(self.source)

    def __str__(self) -> str:
        return self.source


def parse_origin(text: str) -> FromRun | Pretrained:
    """Parses an `init_from` of a config; does not check whether the origin exists.

    Raises:
      InputError: the text has no known form, or its pattern is not a regular expression.
    """
    if text.endswith(SUFFIXES) or re.fullmatch(rf"{HUB}[^/\s]+/[^/\s]+", text):
        return Pretrained(source=text)
    match = re.fullmatch(r"(.+?):([^/:#]+)/([^/:#]+)(?:#(.*))?", text)
    if not match:
        raise InputError(
            f"init_from {text!r}: expected RUN:STAGE/NET, RUN:STAGE/NET#PATTERN, a file ending in "
            f"{' or '.join(SUFFIXES)}, or {HUB}OWNER/NAME"
        )
    run, stage, net, pattern = match.groups()
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise InputError(f"init_from {text!r}: {pattern!r} is no regular expression ({error}); correct it") from error
    return FromRun(run=run, stage=stage, net=net, pattern=pattern)
