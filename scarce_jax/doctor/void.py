"""Rules about the id of void. An id that looks like void may be a class, so the advice always has a condition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scarce_jax.data.schema import IGNORE
from scarce_jax.doctor.facts import Examined, Expected, MaskFacts, id_mapping
from scarce_jax.doctor.findings import Finding, fault
from scarce_jax.errors import plural

MINUS_ONE = {2**16 - 1: "-1 in unsigned 16 bits", 2**32 - 1: "-1 in unsigned 32 bits", -1: "-1"}
VOID_NAMES = {"void", "unlabelled", "unlabeled", "ignore", "ignored", "ignore label", "border", "don't care"}
NEARLY_ALL = 0.8
"""Share of the measured masks in which an id must run along borders."""


def minus_one(examined: Examined) -> Iterator[Finding]:
    """Void coded as -1."""
    expected = examined.expected
    for mask in examined.masks:
        for value in sorted(MINUS_ONE.keys() & mask.counts.keys() - expected.void):
            observed = f"id {value} ({mask.counts[value]:,} pixels)"
            otherwise = f", or {expected.declare(value)}" if 0 <= value < 2**16 else ""
            advice = f"{value} is {MINUS_ONE[value]}, so void: save the masks in 8 bits with 255 there{otherwise}"
            yield fault("void-code", mask.file, observed, expected=expected.ids, advice=advice)


def outlines(examined: Examined) -> Iterator[Finding]:
    """Class ids that are drawn like void."""
    expected = examined.expected
    drawn = {value for mask in examined.fine for value in mask.outlines} - expected.void
    known = drawn if expected.classes is None else drawn & expected.classes
    for value in () if are_shifted(examined) else sorted(known):
        observed = f"id {expected.name(value)} is thin and lies along nearly all borders between the other ids"
        how = _declare_class(expected, value)
        advice = f"this is how void is drawn: if {value} is void, {how}; if it is a class, all is well"
        for mask in outlined(examined.fine, value):
            yield fault("void-code", mask.file, observed, expected=expected.ids, advice=advice, certain=False)


def void_classes(examined: Examined) -> Iterator[Finding]:
    """Classes with a name for void."""
    expected = examined.expected
    for value in sorted(expected.classes or ()):
        if expected.names[value].strip().lower() in VOID_NAMES:
            observed = f"class {expected.name(value)} is in the list of classes"
            advice = f"if its pixels have no label, {_declare_class(expected, value)}"
            yield fault("void-class", examined.where, observed, advice=advice)


def _declare_class(expected: Expected, value: int) -> str:
    """How to declare an id as void that may be a class now."""
    if expected.classes is None or value not in expected.classes:
        more = ', and number the classes after it with "ids" in classes.json' if value == 0 else ""
        return expected.declare(value) + more
    off = f"take {expected.names[value]} off the list of classes"
    if not expected.plain:
        return f'{off}, and name what it has in the masks under "ignore"'
    if value == len(expected.names) - 1:
        return f"{off}, and {expected.declare(value)}"
    if expected.settable:
        return f"{off}, and save {value} as 255 and every class after it one lower"
    return f"{off}, and {id_mapping({k: expected.names[k] for k in sorted(expected.classes - {value})}, value)}"


def unused_ignore(examined: Examined) -> Iterator[Finding]:
    """`--ignore` names an id that no mask has, and void is 255."""
    missing = [value for value in examined.expected.ignore if value not in examined.used]
    having = [mask for mask in examined.masks if IGNORE in mask.counts]
    if examined.expected.settable and missing and having:
        observed = f"255 in {plural(len(having), 'mask')}, {missing[0]} in none"
        texts = {"expected": f"void is {missing[0]}", "advice": "void seems to be 255 here: leave --ignore out"}
        yield fault("void-code", having[0].file, observed, certain=False, **texts)


def are_shifted(examined: Examined) -> bool:
    """Whether 0 is drawn like void, and the id after the last class is in use."""
    expected = examined.expected
    if expected.names is None or not expected.plain or not outlined(examined.fine, 0):
        return False
    beyond = {len(expected.names)} - expected.void
    return any(beyond & mask.counts.keys() for mask in examined.fine)


def outlined(masks: Sequence[MaskFacts], value: int) -> list[MaskFacts]:
    """The masks in which an id runs along borders; none unless it does in `NEARLY_ALL` of the measured masks."""
    measured = [mask for mask in masks if value in mask.outlines]
    drawn = [mask for mask in measured if mask.outlines[value]]
    return drawn if len(drawn) >= NEARLY_ALL * len(measured) else []
