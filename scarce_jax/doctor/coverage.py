"""Rules about what is there to learn from and to measure by: labels in each split, and pixels of each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scarce_jax.data.builders.formats.splits import NAMES
from scarce_jax.data.schema import IGNORE
from scarce_jax.doctor.facts import Examined, Expected, Facts, id_mapping, short_ranges
from scarce_jax.doctor.findings import Finding, fault
from scarce_jax.errors import plural

FEW = 10
"""Masks per class, on average, up to which a class may be missing by chance."""

VALIDATION = NAMES["val"]
"""Names of splits that are measured during training; those of a test split are often kept back."""

# Advice for a class without a pixel.
NOT_LEARNED = "nothing can be learned about them: correct the classes or the ids, or add images that show them"
NOT_MEASURED = "their IoU is left out of the mean there: move images that show them into the split, if possible"


def no_labels(examined: Examined) -> Iterator[Finding]:
    """No label at all, or a validation split without a fine mask."""
    if not examined.facts or any(finding.kind in ("mask-without-image", "names-differ") for finding in examined.faults):
        return
    examples = [f.example for f in examined.facts]
    if not any(x.mask or x.coarse or x.tags is not None for x in examples):
        observed = f"none of {plural(len(examples), 'image')} has a label"
        advice = "put masks beside the images, with their names, in a folder `masks`; unlabelled images come on top"
        yield fault("no-labels", examined.where, observed, advice=advice)
        return
    for split in dict.fromkeys(x.split for x in examples):
        here = [x for x in examples if x.split == split]
        if split in VALIDATION and not any(x.mask for x in here):
            observed = f"none of {plural(len(here), 'image')} of {split} has a fine mask"
            advice = "add some: nothing can be measured there, in training or after it"
            yield fault("no-fine-masks", examined.where, observed, advice=advice)


def one_class(examined: Examined) -> Iterator[Finding]:
    """A single id besides void. With 255, they may be black and white masks, whose object is 255."""
    expected = examined.expected
    masks = examined.fine or examined.masks
    used = {value for mask in masks for value in mask.counts}
    classes = sorted(used - expected.void)
    if len(classes) != 1:
        return
    (value,) = classes
    shown = f"{'id' if expected.plain else 'class'} {expected.name(value)}"
    if IGNORE in used and expected.plain:
        pixels = sum(sum(mask.counts.values()) for mask in masks)
        share = sum(mask.counts.get(IGNORE, 0) for mask in masks) / pixels
        observed = f"only {shown} and 255 are in the masks; 255, which is void, is {share:.0%} of the pixels"
        advice = f"if 255 is an object in these masks, {_white(expected, value)}; if it is void, nothing can be learned"
    else:
        observed = f"only {shown} is in the masks" + (" besides void" if used & expected.void else "")
        advice = "nothing can be learned from one class: look whether the masks were exported with their objects"
    masks = [mask for mask in masks if IGNORE in mask.counts] or masks
    for mask in masks:
        yield fault("one-class", mask.file, observed, advice=advice)


def _white(expected: Expected, value: int) -> str:
    """What to write for 255 where it is an object, and `value` is the other id."""
    others = sorted((expected.classes or frozenset()) - {value})
    if expected.names and len(expected.names) == 1:
        return "name both classes in the list, the one that is 0 first, and save the object as 1 in place of 255"
    if len(others) == 1 and value in expected.classes:
        ids = {value: expected.names[value], IGNORE: expected.names[others[0]]}
        written = "" if expected.settable else f", or {id_mapping(ids)}"
        return f"and {value} is {expected.names[value]}, save 255 as {expected.name(others[0])}{written}"
    return "save it in place of 255 as the index of its class" + (", 1 if 0 is the background" if value == 0 else "")


def absent_classes(examined: Examined) -> Iterator[Finding]:
    """Classes without a pixel, or without a tag where no image has a mask, though there are enough to expect them."""
    for split, absent, where, seen in _absent(examined):
        if not _few(examined.expected, seen):
            learned = split in ("", "train")
            yield fault(
                "empty-class",
                examined.where,
                f"{len(absent)} of {len(examined.expected.names)} classes in none of {where}: "
                f"{_listed(examined.expected, absent)}",
                expected=f"each of the {len(examined.expected.names)} classes somewhere in {split or 'the masks'}",
                advice=NOT_LEARNED if learned else NOT_MEASURED,
            )


def absent_notes(examined: Examined) -> Iterator[str]:
    """The splits that have too few masks to expect every class, and lack some."""
    lacking = []
    for _, absent, where, seen in _absent(examined):
        if _few(examined.expected, seen):
            total = len(examined.expected.names)
            names = f" (not {_listed(examined.expected, absent)})" if len(absent) <= 6 else ""
            lacking.append(f"{total - len(absent)} of {total} classes are in the {where}{names}")
    if lacking:
        yield f"{'; '.join(lacking)}: so few seldom show all; nothing is learned or measured about a class they lack"


def _absent(examined: Examined) -> Iterator[tuple[str, list[int], str, int]]:
    """For each split with absent classes: its name, their indices, where they are absent, and how many are seen.

    The last is the number of pairs of a mask (or list of tags) and a class in it.
    """
    expected = examined.expected
    if expected.classes is None:
        return
    unknown = set(examined.used) - expected.classes - expected.void
    alone = len(set(examined.used) - expected.void) == 1
    for split in dict.fromkeys(f.example.split for f in examined.facts):
        here = [f for f in examined.facts if f.example.split == split]
        what, lists = "mask", [ids & expected.classes for ids in _ids_of(here)]
        if not lists:
            what, lists = "list", [set(f.example.tags) for f in here if f.example.tags is not None]
            # The background has no tag.
            lists = lists and [*lists, {expected.background} - {None}]
        if lists:
            absent = [k for k in range(len(expected.names)) if k not in set().union(*lists)]
            count = plural(sum(f.example.tags is not None for f in here) if what == "list" else len(lists), what)
            where = count + (" of tags" if what == "list" else "") + (f" of {split}" if split else "")
            # Ids without a class may be those of the absent ones; a single id, and void alone, are faults of their own.
            if len(unknown) < len(absent) < len(expected.names) and not alone:
                yield split, absent, where, sum(map(len, lists))


def _ids_of(facts: Sequence[Facts]) -> list[set[int]]:
    """The ids of each example with a mask."""
    both = [[mask.counts.keys() for mask in (f.fine, f.coarse) if mask is not None] for f in facts]
    return [set().union(*ids) for ids in both if ids]


def _few(expected: Expected, seen: int) -> bool:
    return seen <= FEW * len(expected.names)


def _listed(expected: Expected, absent: Sequence[int]) -> str:
    return ", ".join(map(expected.name, absent[:6])) + (", ..." if len(absent) > 6 else "")


def id_notes(examined: Examined) -> Iterator[str]:
    """The ids in use, where nothing says which are classes."""
    if examined.expected.names is None and examined.used:
        yield f"the masks have the ids {short_ranges(examined.used)}; --classes N or FILE also checks their range"
