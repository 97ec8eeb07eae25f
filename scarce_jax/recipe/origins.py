"""What a trained net starts from where that lies outside its run."""

from __future__ import annotations

import dataclasses
import re

from scarce_jax.errors import InputError
from scarce_jax.models.weights import HUB, SUFFIXES


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromRun:
    """A net that another run left, as written in a config: "RUN:STAGE/NET" or "RUN:STAGE/NET#PATTERN".

    Attributes:
      run: its folder.
      pattern: regular expression over our parameter paths ("backbone/layer1_block0/conv1/kernel"): every array that it
        finds is taken, and must be there in the same shape. None: every array of equal path and shape is taken.
    """

    run: str
    stage: str
    net: str
    pattern: str | None = None

    def __str__(self) -> str:
        pattern = "" if self.pattern is None else f"#{self.pattern}"
        return f"{self.run}:{self.stage}/{self.net}{pattern}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Weights that fill a net's trunk: a .safetensors or .pth file, or "hf:OWNER/NAME" (see `models.weights`)."""

    source: str

    def __str__(self) -> str:
        return self.source


def parse_origin(text: str) -> FromRun | Pretrained:
    """What a config's `init_from` names; nothing is looked up yet.

    Raises:
      InputError: it is of no known form, or its pattern is no regular expression.
    """
    if text.startswith(HUB) and re.fullmatch(r"[^/\s]+/[^/\s]+", text.removeprefix(HUB)):
        return Pretrained(source=text)
    if text.endswith(SUFFIXES):
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
        raise InputError(f"init_from {text!r}: {pattern!r} is no regular expression ({error})") from error
    return FromRun(run=run, stage=stage, net=net, pattern=pattern)
