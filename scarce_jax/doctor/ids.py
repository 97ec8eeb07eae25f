"""Rules about the ids in all masks: their range, and the id of void.

An id that looks like void may be a class, so the advice to erase an id always has a condition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scarce_jax.data.builders.files import ranges
from scarce_jax.data.schema import IGNORE
from scarce_jax.doctor.facts import Examined, MaskFacts
from scarce_jax.doctor.findings import Finding, fault
from scarce_jax.errors import plural

MINUS_ONE = {2**16 - 1: "-1 in unsigned 16 bits", 2**32 - 1: "-1 in unsigned 32 bits", -1: "-1"}
VOID_NAMES = {"void", "unlabelled", "unlabeled", "ignore", "ignored", "ignore label", "border", "don't care"}
NEARLY_ALL = 0.8
"""Share of the measured masks in which an id must run along borders."""

# Advice for a class without a pixel.
NOT_LEARNED = "nothing can be learned about it: correct the classes or the ids, or add images that show it"
NOT_MEASURED = "its IoU is left out of the mean there: move images that show it into the split, if possible"


def out_of_range(examined: Examined) -> Iterator[Finding]:
    """Ids that are neither a class nor void, where the classes are known."""
    expected = examined.expected
    if expected.names is None:
        return
    beyond = len(expected.names)
    allowed = {*range(beyond), *expected.void, *MINUS_ONE, *((0, beyond) if _are_shifted(examined) else ())}
    bad = {value for value in examined.used if value not in allowed}
    kind = "id-out-of-range"
    if bad == {beyond}:
        kind, advice = "void-code", _beyond_advice(examined)
    elif max(bad, default=0) >= 1000:
        advice = (
            "ids in the thousands are instance ids (in Cityscapes class * 1000 + number): use the files of class ids"
        )
    else:
        advice = (
            f"if they are classes, the list of classes is too short; if they are void, {expected.declare('ID')}; many "
            "different ids come from resizing with blending, or from a grey picture made of colours: export the masks "
            "again from the originals"
        )
    for mask in examined.masks:
        wrong = [f"{value} ({pixels:,} pixels)" for value, pixels in mask.counts.items() if value in bad]
        if wrong:
            more = ", ..." if len(wrong) > 6 else ""
            yield fault(kind, mask.file, f"id {', '.join(wrong[:6])}{more}", expected=expected.ids, advice=advice)


def _beyond_advice(examined: Examined) -> str:
    """What to do about the id after the last class."""
    beyond = len(examined.expected.names)
    if 0 not in examined.used:
        return "0 is in no mask, so the ids start at 1: subtract 1 from each, and leave 255 as it is"
    void = f"if {beyond} is void, {examined.expected.declare(beyond)}"
    if any(mask.outlines.get(beyond) for mask in examined.masks):
        return f"{beyond} runs along the borders of the others, as void does: {void}; if it is a class, name it"
    return (
        f"the ids 0..{beyond} are one more than the names of classes: if 0 is a class without a name, such as the "
        f"background, put its name first; if 0 is void, save void as 255 and every class one lower; {void}"
    )


def shifted(examined: Examined) -> Iterator[Finding]:
    """Void coded as 0, and every class one too high."""
    if not _are_shifted(examined):
        return
    advice = "the ids are one too high, with 0 as void: save every class one lower, and void as 255"
    for mask in examined.fine:
        if mask.counts.keys() & {0, len(examined.expected.names)}:
            observed = f"0 along the borders, and ids up to {max(value for value in mask.counts if value != IGNORE)}"
            yield fault("void-code", mask.file, observed, expected=examined.expected.ids, advice=advice)


def _are_shifted(examined: Examined) -> bool:
    names = examined.expected.names
    if names is None or not _outlined(examined.fine, 0):
        return False
    return any(len(names) in mask.counts for mask in examined.fine)


def _outlined(masks: Sequence[MaskFacts], value: int) -> list[MaskFacts]:
    """The masks in which an id runs along borders; none unless it does in `NEARLY_ALL` of the measured masks."""
    measured = [mask for mask in masks if value in mask.outlines]
    outlined = [mask for mask in measured if mask.outlines[value]]
    return outlined if len(outlined) >= NEARLY_ALL * len(measured) else []


def void_classes(examined: Examined) -> Iterator[Finding]:
    """Classes with a name for void."""
    for index, name in enumerate(examined.expected.names or ()):
        if name.strip().lower() in VOID_NAMES:
            shown = examined.expected.name(index)
            yield fault("void-class", examined.where, f"class {shown} is in the list of classes")


def far_id(examined: Examined) -> Iterator[Finding]:
    """The highest id far beyond the others, where the number of classes is not known."""
    expected = examined.expected
    ids = [value for value in examined.used if value not in expected.void and value not in MINUS_ONE]
    if expected.names is not None or len(ids) < 3 or ids[-1] - ids[-2] < 10 + ids[-2] - ids[0]:
        return
    far = ids[-1]
    having = [mask for mask in examined.masks if far in mask.counts]
    observed = f"id {far} in {plural(len(having), 'mask')}, the other ids end at {ids[-2]}"
    advice = f"if {far} is void, {expected.declare(far)}; if it is a class, number the classes from 0 without gaps"
    yield fault("void-code", having[0].file, observed, advice=advice, certain=False)


def minus_one(examined: Examined) -> Iterator[Finding]:
    """Void coded as -1."""
    for mask in examined.masks:
        for value in sorted(MINUS_ONE.keys() & mask.counts.keys()):
            observed = f"id {value} ({mask.counts[value]:,} pixels)"
            advice = f"{value} is {MINUS_ONE[value]}, so probably void: save the masks in 8 bits with 255 there"
            yield fault("void-code", mask.file, observed, expected=examined.expected.ids, advice=advice)


def outlines(examined: Examined) -> Iterator[Finding]:
    """Class ids that are drawn like void."""
    expected = examined.expected
    drawn = {value for mask in examined.fine for value in mask.outlines} - expected.void
    known = drawn if expected.names is None else drawn & set(range(len(expected.names)))
    for value in () if _are_shifted(examined) else sorted(known):
        listed = expected.names is not None and not expected.settable
        how = "take it off the list of classes and save void as 255" if listed else expected.declare(value)
        first = ", and number the classes from 0" if value == 0 else ""
        observed = f"id {expected.name(value)} is thin and lies along nearly all borders between the other ids"
        advice = f"this is how void is drawn: if {value} is void, {how}{first}; if it is a class, all is well"
        for mask in _outlined(examined.fine, value):
            yield fault("void-code", mask.file, observed, expected=expected.ids, advice=advice, certain=False)


def one_class(examined: Examined) -> Iterator[Finding]:
    """A single class and 255, which may be the object of black and white masks."""
    used = {value for mask in examined.fine for value in mask.counts}
    if IGNORE not in used or len(used - examined.expected.void) != 1:
        return
    having = [mask for mask in examined.fine if IGNORE in mask.counts]
    pixels = sum(sum(mask.counts.values()) for mask in examined.fine)
    share = sum(mask.counts[IGNORE] for mask in having) / pixels
    observed = f"only the ids {ranges(sorted(used))} are in the masks; 255 is {share:.0%} of the pixels"
    yield fault("one-class", having[0].file, observed, count=len(having))


def unused_ignore(examined: Examined) -> Iterator[Finding]:
    """`--ignore` names an id that no mask has, and void is 255."""
    missing = [value for value in examined.expected.ignore if value not in examined.used]
    having = [mask for mask in examined.masks if IGNORE in mask.counts]
    if examined.expected.settable and missing and having:
        observed = f"255 in {plural(len(having), 'mask')}, {missing[0]} in none"
        texts = {"expected": f"void is {missing[0]}", "advice": "void seems to be 255 here: leave --ignore out"}
        yield fault("void-code", having[0].file, observed, certain=False, **texts)


def empty_classes(examined: Examined) -> Iterator[Finding]:
    """Classes without a pixel, or without a tag where no image has a mask: a problem in the training split, a warning
    in another one."""
    expected = examined.expected
    splits = dict.fromkeys(f.example.split for f in examined.facts)
    for split in () if expected.names is None else splits:
        here = [f for f in examined.facts if f.example.split == split]
        masks = [mask for f in here for mask in (f.fine, f.coarse) if mask is not None]
        tags = [f.example.tags for f in here if f.example.tags is not None]
        if not masks and not tags:
            continue
        used = {value for mask in masks for value in mask.counts}.union(*tags)
        if not masks:
            # The background has no tag.
            used |= {expected.background}
        empty = [expected.name(k) for k in range(len(expected.names)) if k not in used]
        if not empty:
            continue
        learned = split == "train" or len(splits) == 1
        listed = ", ".join([*empty[:12], *(["..."] if len(empty) > 12 else [])])
        where = plural(len(masks), "mask") if masks else plural(len(tags), "list") + " of tags"
        yield fault(
            "empty-class",
            examined.where,
            f"no {'pixel' if masks else 'tag'} of {listed} in any of {where}",
            expected=f"each of the {len(expected.names)} classes somewhere in {split or 'the masks'}",
            advice=NOT_LEARNED if learned else NOT_MEASURED,
            certain=learned,
            count=len(empty),
        )
