"""`scarce-jax weights [FILE]`: lists weights that nets can start from, or says what a file of weights is."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tyro

from scarce_jax.cli.common import Switch, next_commands, parse, print_json, shown, table

_ABOUT = """\
Sizes are of float32 arrays; licences are those that the publishers' pages name, and - is to be seen there. Any net with
a backbone of the kind takes the weights. In the command below, STAGE is the name of a stage, such as segmenter."""

_BY_HAND = """\
(OWNER/NAME alike for the others) with a browser, and give the path of the file in place of hf:OWNER/NAME.
`scarce-jax weights FILE` says what a file is."""


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `weights`.

    Attributes:
      file: a file of weights, or hf:OWNER/NAME, which is downloaded; without it, names are listed.
      json: end standard output with one JSON object.
    """

    file: Annotated[str | None, tyro.conf.Positional, shown("FILE")] = None
    json: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    about = "Lists weights that nets can start from, or says what a file of weights is and which net takes it."
    options = parse(Options, argv, "weights", about)
    value, flags = _list() if options.file is None else _describe(options.file)
    if options.json:
        print_json(value)
    else:
        next_commands(f"scarce-jax train CONFIG {flags}")
    return 0


def _flags(origin: str, kind: str, settings: Mapping[str, Any]) -> str:
    """The flags of `train` with which a stage starts from these weights."""
    backbone = "--STAGE.net.backbone"
    # A switch has no value, and the default of all of them is off.
    values = [
        f"{backbone}.{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, value in settings.items()
        if value is not False
    ]
    return " ".join([f"--STAGE.init-from {shlex.quote(origin)}", f"{backbone} {kind}", *values])


def _list() -> tuple[dict[str, Any], str]:
    """Prints the weights that can be named; returns the content for --json, and the flags of one of them."""
    from scarce_jax.models.weights.published import PUBLISHED

    rows = [(p.origin, p.what, round(p.megabytes), p.licence, _settings(p.kind, p.settings)) for p in PUBLISHED]
    print(table(rows, ("init_from", "what", "MB", "licence", "net.backbone")))
    first = next(p for p in PUBLISHED if p.settings.get("depth") == 50)
    flags = _flags(first.origin, first.kind, first.settings)
    print(f"\n{_ABOUT}\n\nWithout a network: download {first.url}\n{_BY_HAND}")
    return {"weights": [{**dataclasses.asdict(p), "init_from": p.origin, "url": p.url} for p in PUBLISHED]}, flags


def _settings(kind: str, settings: Mapping[str, Any]) -> str:
    return ", ".join([kind, *(f"{name} {value}" for name, value in settings.items())])


def _describe(source: str) -> tuple[dict[str, Any], str]:
    """Prints what a file is, the flags for it, and all of its arrays; returns the content for --json, and the flags."""
    from scarce_jax.models import weights

    path = weights.locate(source)
    described = weights.describe(path)
    settings = {name: value for name, (_, value) in described.settings.items() if value is not None}
    settings |= {name: described.facts[name] for name in weights.SETTINGS if name in described.facts}
    facts = {
        "file": str(path),
        "sha256": weights.file_hash(path),
        "backbone": ", ".join(words for words, _ in described.settings.values()),
        **described.facts,
        "flags": _flags(source, described.kind, settings),
    }
    width = max(map(len, facts))
    print("\n".join(f"{name:{width}s}  {value}" for name, value in facts.items()))
    rows = [(key, place, " x ".join(map(str, shape))) for key, (place, shape) in described.used.items()]
    print(f"\n{table(rows, (f'{len(rows)} arrays of the file', 'in the net', 'shape'))}")
    for key, why in described.unused.items():
        print(f"not used: {key} ({why})")
    arrays = {"used": described.used, "unused": described.unused}
    return {**facts, "kind": described.kind, "settings": settings, **arrays}, facts["flags"]
