"""Masks that hold colours instead of class ids."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence

from scarce_jax.data.schema import KNOWN
from scarce_jax.doctor.ids import Expected
from scarce_jax.doctor.look import MAX_COLOURS, Facts
from scarce_jax.doctor.report import Findings, plural


def check_colours(facts: Sequence[Facts], expected: Expected, findings: Findings) -> None:
    """Masks that hold colours: all their colours, and which classes they are as far as that is known."""
    coloured = {path: colours for f in facts for path, colours in f.colours.items()}
    flat = {path: colours for path, colours in coloured.items() if len(colours) <= MAX_COLOURS}
    for path in sorted(coloured.keys() - flat.keys()):
        findings.add(
            "colour-mask",
            path,
            f"more than {MAX_COLOURS} colours",
            expected="one class id a pixel (8-bit grey or palette PNG)",
            advice="so many colours are a photograph, or colours blended by resizing or JPEG: is this the folder of "
            "the masks? If so, export the masks again without blending",
        )
    totals: collections.Counter = collections.Counter()
    for colours in flat.values():
        totals.update(colours)
    advice = _colour_advice(totals, expected)
    for path, colours in flat.items():
        findings.add(
            "colour-mask",
            path,
            f"an RGB picture of {plural(len(colours), 'colour')}",
            expected="one class id a pixel (8-bit grey or palette PNG)",
            advice=advice,
        )


def _colour_advice(totals: collections.Counter, expected: Expected) -> str:
    if all(r == g == b for r, g, b in totals):
        return "the three channels are equal: keep one of them, Image.open(path).getchannel(0).save(path)"
    start = "turn each colour into its class id. "
    for palette, names, whose in _palettes(expected):
        index = {tuple(colour): k for k, colour in reversed(list(enumerate(palette)))}
        rest = [colour for colour in totals if colour not in index]
        if set(rest) <= {(0, 0, 0), (224, 224, 192), (255, 255, 255)} and len(rest) < len(totals):
            pairs = [
                f"{_rgb(c)} = {index[c]} {names[index[c]]}"
                for c in sorted(totals, key=lambda c: index.get(c, 256))
                if c in index
            ]
            void = [f"{_rgb(c)} = 255 void" for c in rest]
            return f"{start}They are {whose}: {', '.join(pairs + void)}"
    pixels = sum(totals.values())
    shown = [f"{_rgb(c)} {n / pixels:.1%}" for c, n in totals.most_common(24)]
    more = f" and {len(totals) - 24} rarer ones" if len(totals) > 24 else ""
    return f"{start}Found, commonest first: {', '.join(shown)}{more}; decide which class each is, and 255 for void"


def _palettes(expected: Expected) -> Iterator[tuple[Sequence, Sequence[str], str]]:
    if expected.palette and expected.names:
        yield expected.palette, expected.names, "the colours of your list of classes"
    for info in KNOWN.values():
        yield info.palette, info.classes, f"the colours of {info.name}"


def _rgb(colour: tuple[int, int, int]) -> str:
    return "({},{},{})".format(*colour)
