"""Rules that compare: coarse with fine masks, tags with masks, images with each other."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from scarce_jax.doctor.ids import Expected, largest
from scarce_jax.doctor.look import Facts
from scarce_jax.doctor.report import Findings

COARSE_WRONG = 0.25
"""Share of an image's coarse pixels that may differ from the fine mask; people's own differ in 0.03 on average."""
SIGNS, THUMB_MEAN, THUMB_MAX, CONTRAST = 40, 6.0, 32, 4.0
"""Two images are alike if so few of 256 gradient signs differ, and their 32 x 32 thumbnails so little on average; they
are the same picture if no pixel of the thumbnail differs more. Halved and saved as JPEG of quality 50, images of CamVid
and VOC stay within all three; the next frames of a video differ by more in the last. Thumbnails of a lower standard
deviation are too flat to compare."""


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
                "write 255 in place of it"
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
        if f.item.tags is None or f.fine is None:
            continue
        leave = {*expected.void, expected.background}
        drawn = {v for v in f.fine.counts if v not in leave and (expected.names is None or v < len(expected.names))}
        untagged, undrawn = sorted(drawn - f.item.tags), sorted(f.item.tags - drawn - {expected.background})
        if untagged:
            findings.add(
                "tags-contradict-mask",
                f.fine.file,
                f"the mask has {', '.join(map(expected.name, untagged))}, the tags of {f.item.name} do not",
                expected="a tag for every class in the mask",
                advice="correct the tags or the mask; a shifted list of tags shows up in many files at once",
            )
        if undrawn:
            # An object inside a void region, or one lost when the mask was reduced, has a tag and no pixel.
            void = bool(expected.void & f.fine.counts.keys())
            findings.add(
                "tags-contradict-mask",
                f.fine.file,
                f"the tags of {f.item.name} have {', '.join(map(expected.name, undrawn))}, the mask does not",
                expected="pixels of every tagged class in the mask" + (", unless they are void" if void else ""),
                advice="correct the tags or the mask",
                certain=not void,
            )


def check_copies(facts: Sequence[Facts], findings: Findings) -> None:
    """The same image twice: between splits a problem, within one a warning."""
    pictured = [f for f in facts if f.picture is not None]
    groups = collections.defaultdict(list)
    for f in pictured:
        groups[f.picture.digest].append(f)
    for same in groups.values():
        for position, f in enumerate(same[1:], 1):
            leak = next((g for g in same[:position] if g.item.split != f.item.split), None)
            if leak is not None:
                _add_leak(findings, f, leak, "the same pixels as")
            else:
                findings.add(
                    "duplicate-image",
                    _file(f),
                    f"the same pixels as {_file(same[0])}",
                    expected="each image once in a split",
                    advice="remove one, unless it is meant to count twice",
                    certain=False,
                )
    by_split = collections.defaultdict(list)
    for f in pictured:
        if f.picture.thumb.std() >= CONTRAST:
            by_split[f.item.split].append(f)
    for here, there in itertools.combinations(by_split.values(), 2):
        for a, b, mean, largest_difference in _alike(here, there):
            if a.picture.digest == b.picture.digest:
                continue
            how = f"thumbnails differ by {mean:.1f} of 255 on average"
            if largest_difference <= THUMB_MAX:
                _add_leak(findings, b, a, f"the same picture saved again ({how}) as")
            else:
                findings.add(
                    "near-duplicate",
                    _file(b),
                    f"nearly the same picture ({how}) as {_file(a)}",
                    expected="splits that do not share a scene",
                    advice="look at both: frames of one video or photos of one series in two splits make the measured "
                    "figures too good; split by video or series",
                    certain=False,
                )


def _alike(here: Sequence[Facts], there: Sequence[Facts]) -> Iterator[tuple[Facts, Facts, float, int]]:
    """Pairs of similar images, with the mean and the largest difference of their thumbnails (0..255)."""
    known = np.stack([f.picture.signs for f in there])  # [N, 4]
    for a in here:
        differ = np.bitwise_count(known ^ a.picture.signs).sum(1, dtype=np.int64)
        for j in np.flatnonzero(differ <= SIGNS):
            difference = np.abs(a.picture.thumb.astype(np.int16) - there[j].picture.thumb)
            if difference.mean() <= THUMB_MEAN:
                yield a, there[j], float(difference.mean()), int(difference.max())


def _add_leak(findings: Findings, f: Facts, other: Facts, how: str) -> None:
    findings.add(
        "image-in-two-splits",
        _file(f),
        f"in {f.item.split or 'all'}: {how} {_file(other)} in {other.item.split or 'all'}",
        expected="no image in more than one split",
        advice="remove it from one of the two, with its mask; what is measured on it says nothing",
    )


def _file(f: Facts) -> object:
    return f.item.image or f.item.where
