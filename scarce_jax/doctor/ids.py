"""Rules about ids over all masks: range, the code of void, classes without a pixel."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from scarce_jax.data.builders.files import ranges
from scarce_jax.data.schema import IGNORE
from scarce_jax.doctor.examine import Facts, MaskFacts
from scarce_jax.doctor.report import Findings, plural

MINUS_ONE = {2**16 - 1: "-1 in unsigned 16 bits", 2**32 - 1: "-1 in unsigned 32 bits", -1: "-1"}
VOID_NAMES = {"void", "unlabelled", "unlabeled", "ignore", "ignored", "ignore label", "border", "don't care"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """What the masks should hold.

    Attributes:
      names: of the classes; None where their number is not known.
      palette: one RGB triple a class, where known.
      background: index of the background class or None.
      ignore: ids of void pixels; 255 always is one.
      settable: whether the user can name another ignore id (`--ignore`), or must recode.
    """

    names: tuple[str, ...] | None = None
    palette: tuple[tuple[int, int, int], ...] | None = None
    background: int | None = None
    ignore: tuple[int, ...] = ()
    settable: bool = False

    @property
    def void(self) -> frozenset[int]:
        return frozenset({*self.ignore, IGNORE})

    def declare(self, value: int | str) -> str:
        """How to say that an id is void, without a change of the masks."""
        return f"give --ignore {value}" if self.settable else f'write "ignore": {value} in classes.json'

    @property
    def ids(self) -> str:
        void = " and ".join(str(v) for v in sorted(self.void))
        return f"{ranges(list(range(len(self.names))))}, void {void}" if self.names else f"class ids, void {void}"

    def name(self, index: int) -> str:
        return f"{index} ({self.names[index]})" if self.names and 0 <= index < len(self.names) else str(index)


def check_ids(facts: Sequence[Facts], expected: Expected, findings: Findings) -> list[str]:
    """Adds what is wrong with the ids of all masks; gives notes on what could not be checked."""
    masks = [mask for f in facts for mask in (f.fine, f.coarse) if mask is not None]
    fine = [f.fine for f in facts if f.fine is not None]
    if not masks:
        return []
    used = sorted({v for mask in masks for v in mask.counts})
    if expected.names is not None:
        shifted = _shifted(fine, expected)
        if shifted:
            _report_shifted(fine, expected, findings)
        _check_range(masks, expected, findings, skip={0, len(expected.names)} if shifted else set())
        _check_void_names(expected, fine[0] if fine else masks[0], findings)
    else:
        shifted = False
        _check_unknown_range(masks, used, expected, findings)
    _check_minus_one(masks, expected, findings)
    if not shifted:
        _check_outlines(fine, expected, findings)
    _check_one_class(fine, expected, findings)
    missing = [v for v in expected.ignore if v not in used]
    if expected.settable and missing and IGNORE in used:
        first, count = _holding(masks, IGNORE)
        findings.add(
            "void-code",
            first.file,
            f"255 in {plural(count, 'mask')}, {missing[0]} in none",
            expected=f"void is {missing[0]}",
            advice="void seems to be 255 here: leave --ignore out",
            certain=False,
        )
    if expected.names is None:
        return [f"ids {ranges(used)} are in the masks; --classes N or a file of names also checks their range"]
    return []


def check_empty(facts: Sequence[Facts], expected: Expected, places: dict[str, object], findings: Findings) -> None:
    """Classes without a pixel: in the training split a problem, in another a warning."""
    if expected.names is None:
        return
    splits = dict.fromkeys(f.example.split for f in facts if f.fine is not None)
    for split in splits:
        here = [f for f in facts if f.example.split == split]
        masks = [mask for f in here for mask in (f.fine, f.coarse) if mask is not None]
        used = {v for mask in masks for v in mask.counts} | {v for f in here for v in f.example.tags or ()}
        empty = [k for k in range(len(expected.names)) if k not in used]
        if not empty:
            continue
        learned = split == "train" or len(splits) == 1
        findings.add(
            "empty-class",
            places.get(split, split),
            f"no pixel of {', '.join(expected.name(k) for k in empty[:12])}"
            f"{', ...' if len(empty) > 12 else ''} in any of {plural(len(masks), 'mask')}",
            expected=f"each of the {len(expected.names)} classes somewhere in {split or 'the masks'}",
            advice="nothing can be learned of it: correct the list of classes or the ids, or add images that have it"
            if learned
            else "its IoU cannot be measured there and is left out of the mean; move images that have it, if there are",
            certain=learned,
            count=len(empty),
        )


def _check_range(masks: Sequence[MaskFacts], expected: Expected, findings: Findings, skip: set[int]) -> None:
    allowed = {*range(len(expected.names)), *expected.void, *MINUS_ONE, *skip}
    bad = {id(mask): [v for v in mask.counts if v not in allowed] for mask in masks}
    values = {v for ids in bad.values() for v in ids}
    beyond = len(expected.names)
    if values == {beyond}:
        advice = _beyond_advice(masks, beyond, expected)
        kind = "void-code"
    else:
        kind = "id-out-of-range"
        if max(values, default=0) >= 1000:
            advice = (
                "ids in the thousands are instance ids (in Cityscapes class * 1000 + number): use the files of "
                "class ids"
            )
        else:
            advice = (
                "if they are classes, the list of classes is too short; if they are void, say so "
                f"({expected.declare('ID')}); many different ones come from resizing with blending, or from a grey "
                "picture made of colours: export the masks again from the originals"
            )
    for mask in masks:
        if bad[id(mask)]:
            ids = ", ".join(f"{v} ({mask.counts[v]:,} pixels)" for v in bad[id(mask)][:6])
            more = ", ..." if len(bad[id(mask)]) > 6 else ""
            findings.add(
                kind,
                mask.file,
                f"id {ids}{more}",
                expected=f"ids {expected.ids}",
                advice=advice,
            )


def _beyond_advice(masks: Sequence[MaskFacts], beyond: int, expected: Expected) -> str:
    """What to do about the id after the last class. It may be a class, so the advice never is to erase it."""
    if not any(0 in mask.counts for mask in masks):
        return "0 is in no mask, so the ids start at 1: subtract 1 from each, and leave 255 as it is"
    void = f"if {beyond} is void, {expected.declare(beyond)}"
    if any(mask.outlines.get(beyond) for mask in masks):
        return f"{beyond} runs along the borders of the others, as void does: {void}; if it is a class, name it"
    return (
        f"the ids 0..{beyond} are one more than the names of classes: if 0 is a "
        f"class without a name, such as the background, put its name first; if 0 is void, save void as 255 and every "
        f"class one lower; {void}"
    )


def _check_unknown_range(masks: Sequence[MaskFacts], used: list[int], expected: Expected, findings: Findings) -> None:
    """The highest id far beyond the others, when the number of classes is not known."""
    ids = [v for v in used if v not in expected.void and v not in MINUS_ONE]
    if len(ids) < 3 or ids[-1] - ids[-2] < 10 + ids[-2] - ids[0]:
        return
    first, count = _holding(masks, ids[-1])
    findings.add(
        "void-code",
        first.file,
        f"id {ids[-1]} in {plural(count, 'mask')}, the other ids end at {ids[-2]}",
        expected="void is 255",
        advice=f"if {ids[-1]} is void, give --ignore {ids[-1]}; if it is a class, number the classes "
        "from 0 without gaps",
        certain=False,
    )


def _check_minus_one(masks: Sequence[MaskFacts], expected: Expected, findings: Findings) -> None:
    for mask in masks:
        for value in sorted(MINUS_ONE.keys() & mask.counts.keys()):
            findings.add(
                "void-code",
                mask.file,
                f"id {value} ({mask.counts[value]:,} pixels)",
                expected=f"ids {expected.ids}",
                advice=f"{value} is {MINUS_ONE[value]}, so probably void: save the masks in 8 bits with 255 there",
            )


def _outlining(masks: Sequence[MaskFacts], value: int) -> list[MaskFacts]:
    """The masks in which an id runs along borders, if it does so in nearly all that were measured for it."""
    measured = [mask for mask in masks if value in mask.outlines]
    outlined = [mask for mask in measured if mask.outlines[value]]
    return outlined if outlined and len(outlined) >= 0.8 * len(measured) else []


def _shifted(masks: Sequence[MaskFacts], expected: Expected) -> bool:
    return bool(_outlining(masks, 0)) and _holding(masks, len(expected.names))[1] > 0


def _report_shifted(masks: Sequence[MaskFacts], expected: Expected, findings: Findings) -> None:
    beyond = len(expected.names)
    for mask in masks:
        if {0, beyond} & mask.counts.keys():
            findings.add(
                "void-code",
                mask.file,
                f"0 along the borders, and ids up to {max(v for v in mask.counts if v != IGNORE)}",
                expected=f"ids {expected.ids}",
                advice="the ids are one too high, with 0 as void: save every class one lower, and void as 255",
            )


def _check_outlines(masks: Sequence[MaskFacts], expected: Expected, findings: Findings) -> None:
    candidates = {v for mask in masks for v in mask.outlines if v not in expected.void}
    for value in sorted(candidates):
        if expected.names is not None and value >= len(expected.names):
            continue
        for mask in _outlining(masks, value):
            inside = expected.names is not None and not expected.settable
            how = "take it off the list of classes and save void as 255" if inside else expected.declare(value)
            findings.add(
                "void-code",
                mask.file,
                f"id {expected.name(value)} is thin and lies along nearly all borders between the other ids",
                expected=f"ids {expected.ids}",
                advice=f"this is how void is drawn: if {value} is void, {how}"
                + (", and number the classes from 0" if value == 0 else "")
                + "; if it is a class, all is well",
                certain=False,
            )


def _check_one_class(masks: Sequence[MaskFacts], expected: Expected, findings: Findings) -> None:
    used = {v for mask in masks for v in mask.counts}
    classes = used - expected.void
    if IGNORE not in used or len(classes) != 1 or any(mask.outlines.get(IGNORE) for mask in masks):
        return
    first, count = _holding(masks, IGNORE)
    shown = sum(mask.counts.get(IGNORE, 0) for mask in masks) / sum(sum(mask.counts.values()) for mask in masks)
    findings.add(
        "one-class",
        first.file,
        f"only the ids {ranges(sorted(used))} are in the masks; 255 is {shown:.0%} of the pixels",
        expected="at least two classes; 255 is void and never learned",
        advice="if 255 is the object, as in black and white masks, write 1 in place of it",
        count=count,
    )


def _check_void_names(expected: Expected, mask: MaskFacts, findings: Findings) -> None:
    for index, name in enumerate(expected.names):
        if name.strip().lower() in VOID_NAMES:
            findings.add(
                "void-class",
                mask.file,
                f"class {expected.name(index)} is in the list of classes",
                expected="classes to be learned alone; void pixels are 255",
                advice="unless it is to be predicted, take it off the list and save void as 255",
                certain=False,
            )


def _holding(masks: Sequence[MaskFacts], value: int) -> tuple[MaskFacts, int]:
    """The first mask with an id, and how many have it."""
    holders = [mask for mask in masks if value in mask.counts]
    return (holders or masks)[0], len(holders)


def largest(counts: dict[int, int]) -> tuple[int, float]:
    """The key with the largest count, and its share."""
    key = max(counts, key=counts.get)
    return key, counts[key] / float(np.sum(list(counts.values())))
