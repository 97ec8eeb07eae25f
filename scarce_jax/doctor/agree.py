"""Rules that compare: coarse with fine masks, tags with masks, images with each other."""

from __future__ import annotations

import collections
from collections.abc import Sequence

from scarce_jax.doctor.examine import Facts
from scarce_jax.doctor.ids import Expected, largest
from scarce_jax.doctor.report import Findings

COARSE_WRONG = 0.25
"""Share of an image's coarse pixels that may differ from the fine mask; people's own differ in 0.03 on average."""


def check_coarse(facts: Sequence[Facts], expected: Expected, findings: Findings) -> None:
    """Coarse masks that contradict the fine ones."""
    bad = [f for f in facts if f.agreement and f.agreement[0] and f.agreement[1] > COARSE_WRONG * f.agreement[0]]
    wrong: collections.Counter[int] = collections.Counter()
    for f in bad:
        wrong.update(f.agreement[2])
    advice = "is it the coarse mask of another image, or does it use other ids than the fine one?"
    if wrong:
        value, share = largest(wrong)
        if share > 0.9 and len(bad) > 1:
            advice = (
                f"{share:.0%} of these pixels have the coarse id {expected.name(value)}: if it means unlabelled there, "
                "export the coarse masks with 255 for unlabelled"
            )
    for f in bad:
        both, differ, _ = f.agreement
        findings.add(
            "coarse-contradicts-fine",
            f.coarse.file,
            f"{differ / both:.0%} of its labelled pixels have another class in the fine mask",
            expected=f"at most {COARSE_WRONG:.0%}",
            advice=advice,
        )


def check_tags(facts: Sequence[Facts], expected: Expected, findings: Findings) -> None:
    """Tags that contradict the mask: a class with pixels and no tag; a tag without a pixel."""
    for f in facts:
        if f.example.tags is None or f.fine is None:
            continue
        leave = {*expected.void, expected.background}
        drawn = {v for v in f.fine.counts if v not in leave and (expected.names is None or v < len(expected.names))}
        untagged, undrawn = sorted(drawn - f.example.tags), sorted(f.example.tags - drawn - {expected.background})
        if untagged:
            findings.add(
                "tags-contradict-mask",
                f.fine.file,
                f"the mask has {', '.join(map(expected.name, untagged))}, the tags of {f.example.name} do not",
                expected="a tag for every class in the mask",
                advice="correct the tags or the mask; a shifted list of tags shows up in many files at once",
            )
        if undrawn:
            # An object inside a void region, or one lost when the mask was reduced, has a tag and no pixel.
            void = bool(expected.void & f.fine.counts.keys())
            findings.add(
                "tags-contradict-mask",
                f.fine.file,
                f"the tags of {f.example.name} have {', '.join(map(expected.name, undrawn))}, the mask does not",
                expected="pixels of every tagged class in the mask" + (", unless they are void" if void else ""),
                advice="correct the tags or the mask",
                certain=not void,
            )


def check_copies(facts: Sequence[Facts], findings: Findings) -> None:
    """The same image twice: between splits a problem, within one a warning."""
    pictured = [f for f in facts if f.digest is not None]
    groups = collections.defaultdict(list)
    for f in pictured:
        groups[f.digest].append(f)
    for same in groups.values():
        for position, f in enumerate(same[1:], 1):
            leak = next((g for g in same[:position] if g.example.split != f.example.split), None)
            if leak is not None:
                _add_leak(findings, f, leak)
            else:
                findings.add(
                    "duplicate-image",
                    _file(f),
                    f"the same pixels as {_file(same[0])}",
                    expected="each image once in a split",
                    advice="remove one, unless it is meant to count twice",
                    certain=False,
                )


def _add_leak(findings: Findings, f: Facts, other: Facts) -> None:
    findings.add(
        "image-in-two-splits",
        _file(f),
        f"in {f.example.split or 'all'}: the same pixels as {_file(other)} in {other.example.split or 'all'}",
        expected="no image in more than one split",
        advice="remove it from one of the two, with its mask; what is measured on it says nothing",
    )


def _file(f: Facts) -> object:
    return f.example.image or f.example.where
