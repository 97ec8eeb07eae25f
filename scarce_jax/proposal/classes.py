"""Proposes a classes.json from the ids or colours in the masks."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scarce_jax.data.builders.formats.classes import Colour
from scarce_jax.data.schema import IGNORE
from scarce_jax.doctor.facts import Examined, Expected, Facts
from scarce_jax.doctor.findings import group
from scarce_jax.doctor.numbering import blended, too_deep
from scarce_jax.errors import InputError, plural

BACKGROUND = "background"
BLACK, VOC_VOID = (0, 0, 0), (224, 224, 192)
MOST = 64
"""Colours that may be classes; masks of more are blended, or no masks."""
BY_HAND = 'write a classes.json yourself, such as {"classes": ["background", "cat"], "background": "background"}'


def propose_classes(facts: Sequence[Facts], where: object) -> dict[str, Any] | None:
    """The content of a classes.json in which every class is called "class N", for the user to rename.

    The id 0 and the colour black are the background. 255 is void, unless 0 and 255 are all there is.

    Args:
      facts: of every example, as `doctor.examine.examine_files` reads them where the classes are not known.
      where: the folder, for messages.

    Returns:
      The content, or None where no mask could be read.

    Raises:
      InputError: a mask cannot be used, some are ids and others colours, or their values cannot be classes.
    """
    unread = group(fault for fact in facts if _unread(fact) for fault in fact.faults if fault.certain)
    if unread:
        raise InputError(
            "\n".join([f"{where}: masks cannot be read, so that their classes are not known", *map(str, unread)])
        )
    examined = Examined(facts=facts, expected=Expected(), where=where)
    strange = group((*blended(examined), *too_deep(examined)))
    if strange:
        listed = "\n".join(map(str, strange))
        raise InputError(f"{where}: the classes cannot be told from the masks\n{listed}\n  Or {BY_HAND}")
    ids, coloured = examined.used, [fact for fact in facts if fact.colours]
    if ids and coloured:
        raise InputError(
            f"{where}: {plural(len(examined.masks), 'mask')} of ids, and colours in "
            f"{plural(len(coloured), 'mask')} such as {next(iter(coloured[0].colours))}; expected one kind; convert "
            "the colours to ids"
        )
    if coloured:
        return _of_colours(_colours(coloured, where))
    return _of_ids(ids) if ids else None


def _unread(fact: Facts) -> bool:
    masks = (fact.example.mask, fact.example.coarse)
    return sum(mask is not None for mask in masks) > len(fact.colours) + (fact.fine is not None) + (
        fact.coarse is not None
    )


def _of_ids(ids: Sequence[int]) -> dict[str, Any]:
    if list(ids) == [0, IGNORE]:
        return {"ids": {"0": BACKGROUND, str(IGNORE): "class 1"}, "background": BACKGROUND}
    known = [value for value in ids if value != IGNORE]
    names = {value: BACKGROUND if value == 0 else f"class {value}" for value in known}
    content: dict[str, Any] = {"classes": list(names.values())}
    if known != list(range(len(known))):
        content = {"ids": {str(value): name for value, name in names.items()}}
    return {**content, "background": BACKGROUND if 0 in names else None}


def _colours(coloured: Iterable[Facts], where: object) -> Mapping[Colour, int]:
    """Colour -> its pixels in all masks."""
    total: collections.Counter[Colour] = collections.Counter()
    for fact in coloured:
        for path, counted in fact.colours.items():
            if counted is not None:
                total.update({colour: pixels for pixels, colour in counted})
            if counted is None or len(total) > MOST:
                raise InputError(
                    f"{path}: more than {MOST} colours, expected one for each class; blending and JPEG leave colours "
                    f"in between: export the masks of {where} again without, as PNG; or, if each is a class, {BY_HAND}"
                )
    return total


def _of_colours(colours: Mapping[Colour, int]) -> dict[str, Any]:
    """Black first, then the colours by their area."""
    ignore = [list(VOC_VOID)] if VOC_VOID in colours else []
    others = sorted((c for c in colours if c not in (BLACK, VOC_VOID)), key=lambda c: (-colours[c], c))
    names, palette = [f"class {k}" for k in range(1, len(others) + 1)], others
    if BLACK in colours:
        names, palette = [BACKGROUND, *names], [BLACK, *others]
    background = BACKGROUND if BLACK in colours else None
    content = {"classes": names, "palette": [list(colour) for colour in palette], "background": background}
    return {**content, "ignore": ignore} if ignore else content
