"""Masks that hold colours instead of class ids."""

from __future__ import annotations

import collections
from collections.abc import Sequence

from scarce_jax.doctor.examine import MAX_COLOURS, Facts
from scarce_jax.doctor.report import Findings, plural


def check_colours(facts: Sequence[Facts], findings: Findings) -> None:
    """Masks that hold colours: all their colours."""
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
    advice = _colour_advice(totals)
    for path, colours in flat.items():
        findings.add(
            "colour-mask",
            path,
            f"an RGB picture of {plural(len(colours), 'colour')}",
            expected="one class id a pixel (8-bit grey or palette PNG)",
            advice=advice,
        )


def _colour_advice(totals: collections.Counter) -> str:
    if all(r == g == b for r, g, b in totals):
        return "the three channels are equal: keep one of them, Image.open(path).getchannel(0).save(path)"
    pixels = sum(totals.values())
    shown = [f"{_rgb(colour)} {count / pixels:.1%}" for colour, count in totals.most_common(24)]
    more = f" and {len(totals) - 24} rarer ones" if len(totals) > 24 else ""
    return f"turn each colour into its class id; commonest first, they are {', '.join(shown)}{more}"


def _rgb(colour: tuple[int, int, int]) -> str:
    return "({},{},{})".format(*colour)
