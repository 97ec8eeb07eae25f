"""Rules about how the ids of masks number the classes: ids without a class, and ids that do not begin at 0.

Which id is which class is never certain, and an id that is taken for void is lost. So the advice names every reading of
what was seen, with the condition under which it holds.
"""

from __future__ import annotations

from collections.abc import Iterator

from scarce_jax.data.schema import IGNORE
from scarce_jax.doctor.facts import Examined, MaskFacts, short_ranges
from scarce_jax.doctor.findings import Finding, fault
from scarce_jax.doctor.void import MINUS_ONE, are_shifted, outlined

FAR = 10
"""Gap between neighbouring ids that numbers of classes seldom have, and grey levels have."""
MANY = 20
"""Number of ids in one mask that is odd where a few of them fill nearly all of it."""


def without_class(examined: Examined) -> Iterator[Finding]:
    """Ids that are neither a class nor void, where the classes are known."""
    expected = examined.expected
    if expected.classes is None:
        return
    beyond = len(expected.names)
    known = {*expected.classes, *expected.void, *MINUS_ONE, *((0, beyond) if are_shifted(examined) else ())}
    bad = {value for value in examined.used if value not in known}
    kind, texts = "id-out-of-range", {"expected": expected.ids}
    if bad == {beyond} and expected.plain:
        kind, advice = _one_too_many(examined)
        texts = {"expected": f"{expected.ids}, in the order of the names"}
    elif max(bad, default=0) >= 1000:
        advice = (
            "ids in the thousands are instance ids (in Cityscapes class * 1000 + number): use the files of class ids"
        )
    else:
        advice = _other_numbers(examined)
    seen: set[int] = set()
    # Files that show a further id first, so that the few that are printed show as many ids as possible.
    for mask in sorted(examined.masks, key=lambda mask: not _adds(seen, bad & mask.counts.keys())):
        wrong = [f"{value} ({pixels:,} pixels)" for value, pixels in mask.counts.items() if value in bad]
        if wrong:
            more = ", ..." if len(wrong) > 6 else ""
            yield fault(kind, mask.file, f"id {', '.join(wrong[:6])}{more}", advice=advice, **texts)


def _adds(seen: set[int], values: set[int]) -> bool:
    """Whether there are new values among these, which are then added to `seen`."""
    new = bool(values - seen)
    seen |= values
    return new


def _one_too_many(examined: Examined) -> tuple[str, str]:
    """Kind of fault, and what to do about ids that end one after the last class."""
    expected = examined.expected
    beyond = len(expected.names)
    first = f"put its name first{' (--classes N counts it too)' if expected.settable else ''}"
    if beyond == 1 and 0 in examined.used:
        alone = "0 has no name, and one class alone cannot be learned"
        return "id-numbering", f"{alone}: if 0 is the background, {first}"
    void = expected.declare(beyond)
    if outlined(examined.fine, beyond):
        drawn = f"{beyond} runs along the borders of the others, as void does"
        return "void-code", f"{drawn}: if it is void, {void}; if it is a class, name it"
    last = "the last class" if expected.settable else expected.names[-1]
    if 0 in examined.used:
        seen = f"the masks have the ids 0..{beyond}, one more than there are names"
        readings = [f"0 has no label, and {beyond} is {last}: {expected.renumber(0)}"]
        readings += [f"0 is a class without a name, such as the background: {first}"]
    else:
        seen = f"the masks have ids from {examined.used[0]} to {beyond}, and 0 is in none"
        readings = [f"the ids start at 1, and {beyond} is {last}: {expected.renumber()}"]
    readings += [f"{last} is {beyond - 1}, and {beyond} has no label: {void}"]
    listed = ". ".join(f"({number}) {reading}" for number, reading in enumerate(readings, 1))
    return "id-numbering", f"{seen}. Look which of these holds. {listed}"


def _other_numbers(examined: Examined) -> str:
    expected = examined.expected
    used = [value for value in examined.used if value not in expected.void]
    listed = f"in all, the masks have {short_ranges(used)}"
    if len(used) > max(32, 2 * len(expected.names)):
        return (
            f"{listed}. So many ids come from resizing with blending, or from a grey picture made of colours: export "
            "the masks again from the originals"
        )
    if expected.settable:
        named = 'list them in a classes.json, "ids": {"ID": NAME, ...}, and give it as --classes'
    else:
        ids = ", ".join(f'"{value}": NAME' for value in used[:12])
        named = f'write "ids": {{{ids}{", ..." if len(used) > 12 else ""}}} in classes.json, with the class of each'
    void = ' (255 is read as void unless "ids" names it)' if IGNORE in examined.used else ""
    return (
        f"{listed}{void}. If they number the classes otherwise, or are grey levels, {named}; if the list of classes is "
        f"too short, complete it; if an id is void, {expected.declare('ID')}"
    )


def shifted(examined: Examined) -> Iterator[Finding]:
    """Void coded as 0, and every class one too high."""
    if not are_shifted(examined):
        return
    expected = examined.expected
    advice = (
        f"the ids end one after the last class, and 0 is drawn as void is: if it has no label, {expected.renumber(0)}; "
        "if it is a class without a name, put its name first"
    )
    for mask in examined.fine:
        if mask.counts.keys() & {0, len(expected.names)}:
            observed = f"0 along the borders, and ids up to {max(value for value in mask.counts if value != IGNORE)}"
            yield fault("void-code", mask.file, observed, expected=expected.ids, advice=advice)


def first_id(examined: Examined) -> Iterator[Finding]:
    """Ids that do not begin at 0, and those of ADE20K's own files, which do not either."""
    expected = examined.expected
    used = [value for value in examined.used if value not in expected.void and value not in MINUS_ONE]
    if not used or used[-1] > IGNORE or not expected.plain:
        return
    names = expected.names or ()
    if len(names) == 150 and names[0].startswith("wall") and 0 in used and IGNORE not in examined.used:
        observed = "150 classes from 'wall' on are those of ADE20K, and no mask has 255"
        advice = (
            f"ADE20K's own masks number them from 1, and 0 is all else. If these do so, {expected.renumber(0)}; "
            "if 0 is wall here, all is well"
        )
    elif used[0] == 1 and used[-1] < len(names):
        observed = f"ids {short_ranges(used)} are in the masks, and 0 ({names[0]}) is in none"
        advice = f"if 1 is {names[0]}, {expected.renumber()}; if no image shows {names[0]}, all is well"
    elif used[0] > 0 and not names:
        observed = f"ids {short_ranges(used)} are in the masks, and 0 is in none"
        lower = "save every class one lower, and leave 255 as it is, or " if used[0] == 1 else ""
        named = f'write "ids": {{"{used[0]}": NAME, ...}} in classes.json, with the class of each id'
        advice = f"if {used[0]} is the first class, {lower}{named}; if no image shows class 0, all is well"
    else:
        return
    yield fault("id-numbering", examined.where, observed, advice=advice, certain=False)


def gaps(examined: Examined) -> Iterator[Finding]:
    """Ids that lie far apart, or a highest one far beyond the others, where the number of classes is not known."""
    expected = examined.expected
    ids = [value for value in examined.used if value not in MINUS_ONE and value not in expected.void - {IGNORE}]
    steps = [after - before for before, after in zip(ids, ids[1:], strict=False)]
    if expected.names is not None or not steps or ids[-1] > IGNORE or ids in ([0, IGNORE], [1, IGNORE]):
        return
    classes = [value for value in ids if value != IGNORE]
    if min(steps) >= FAR:
        listed = ", ".join(f'"{value}": NAME' for value in ids[:12])
        advice = (
            f'if these are grey levels or ids of another numbering, write "ids": {{{listed}}} in classes.json, with '
            "the class of each, or number them from 0; 255 is void unless it is listed"
        )
        observed = f"only the ids {short_ranges(ids)} are in the masks"
        yield fault("id-numbering", examined.where, observed, advice=advice, certain=False)
    elif len(classes) >= 3 and classes[-1] - classes[-2] >= FAR + classes[-2] - classes[0]:
        far = classes[-1]
        advice = f"if {far} is void, {expected.declare(far)}; if it is a class, number the classes from 0 without gaps"
        for mask in examined.masks:
            if far in mask.counts:
                observed = f"id {far}, the other ids end at {classes[-2]}"
                yield fault("void-code", mask.file, observed, advice=advice, certain=False)


def too_deep(examined: Examined) -> Iterator[Finding]:
    """Ids over 255, where the number of classes is not known."""
    for mask in () if examined.expected.names is not None else examined.masks:
        deep = [value for value in mask.counts.keys() - examined.expected.void - MINUS_ONE.keys() if value > IGNORE]
        if deep:
            yield fault("deep-mask", mask.file, f"{len(mask.counts):,} ids, up to {max(deep)}")


def blended(examined: Examined) -> Iterator[Finding]:
    """Many ids, of which four have nearly all pixels, in most masks."""
    having = [mask for mask in examined.masks if len(mask.counts) > MANY and _share(mask, 4) >= 0.8]
    if examined.expected.names is None and 2 * len(having) > len(examined.masks):
        for mask in having:
            observed = f"{len(mask.counts)} ids, of which four have {_share(mask, 4):.0%} of the pixels"
            yield fault("blended-mask", mask.file, observed)


def _share(mask: MaskFacts, commonest: int) -> float:
    """Share of the pixels that have one of the commonest ids."""
    pixels = sorted(mask.counts.values(), reverse=True)
    return sum(pixels[:commonest]) / sum(pixels)
