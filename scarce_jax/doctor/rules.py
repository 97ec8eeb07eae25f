"""All rules, and those that compare: coarse with fine masks, tags with masks, images with each other."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Callable, Iterator, Sequence

from scarce_jax.data.image_files import FileError
from scarce_jax.data.palettes import Palettes
from scarce_jax.doctor import coverage, numbering, void
from scarce_jax.doctor.examine import MAX_COLOURS
from scarce_jax.doctor.facts import Examined, Facts
from scarce_jax.doctor.findings import Finding, fault, fault_of
from scarce_jax.doctor.names import IMPORT
from scarce_jax.errors import plural

COARSE_WRONG = 0.25
"""Share of an image's coarse pixels that may differ from the fine mask; masks drawn by people differ in 0.03."""
MOSTLY = 0.9
"""Share of the wrong coarse pixels that one id has if it also stands for unlabelled."""
HIDDEN = 0.25
"""Share of the fine pixels of all other classes that such an id lies on."""
UNLABELLED = "if it also means unlabelled there, export the coarse masks with 255 for unlabelled"


def colour_masks(examined: Examined) -> Iterator[Finding]:
    """Masks that hold colours instead of class ids."""
    masks = {path: colours for f in examined.facts for path, colours in f.colours.items()}
    totals: collections.Counter[tuple[int, int, int]] = collections.Counter()
    for colours in masks.values():
        totals.update({colour: pixels for pixels, colour in colours or ()})
    if all(r == g == b for r, g, b in totals):
        advice = "the three channels are equal: keep one of them, Image.open(path).getchannel(0).save(path)"
    else:
        shown = ", ".join("({},{},{})".format(*colour) for colour, _ in totals.most_common(24))
        more = f" and {len(totals) - 24} rarer ones" if len(totals) > 24 else ""
        advice = 'write the colour of each class in classes.json, "palette": [[r, g, b], ...], or turn them into ids; '
        if any((pathlib.Path(str(path)).parent.parent / "labelmap.txt").is_file() for path in masks):
            advice = f"labelmap.txt beside them says what they mean: {IMPORT}; "
        advice += f"commonest first, they are {shown}{more}"
    for path, colours in masks.items():
        if colours is None:
            yield fault(
                "colour-mask",
                path,
                f"more than {MAX_COLOURS} colours",
                advice="so many colours are a photograph, or colours blended by resizing or JPEG: check that this is "
                "the folder of the masks, or export them again without blending",
            )
        else:
            yield fault("colour-mask", path, f"an RGB picture of {plural(len(colours), 'colour')}", advice=advice)


def palettes(examined: Examined) -> Iterator[Finding]:
    """Palette masks of which each has a palette of its own."""
    coarse = [f.coarse for f in examined.facts if f.coarse is not None]
    for masks in (examined.fine, coarse):
        known = Palettes()
        for mask in masks:
            try:
                known.add(mask.file, mask.colours)
            except FileError as error:
                yield fault_of(error)


def coarse_contradicts_fine(examined: Examined) -> Iterator[Finding]:
    """Coarse masks of another image, or with other ids than the fine ones."""
    bad = [f for f in examined.facts if sum(f.wrong.values()) > COARSE_WRONG * f.labelled]
    wrong = _wrong(bad)
    advice = "if it is the coarse mask of another image, exchange it; if its ids differ from the fine ones, recode them"
    for value, pixels in wrong.most_common(1):
        share = pixels / wrong.total()
        if share > MOSTLY and len(bad) > 1:
            advice = f"{share:.0%} of these pixels have the coarse id {examined.expected.name(value)}: {UNLABELLED}"
    for f in bad:
        share = sum(f.wrong.values()) / f.labelled
        observed = f"{share:.0%} of its labelled pixels have another class in the fine mask"
        yield fault("coarse-contradicts-fine", f.coarse.file, observed, advice=advice)


def coarse_never_void(examined: Examined) -> Iterator[Finding]:
    """Coarse masks without void, in which one id lies on much of what has other classes in the fine masks.

    Coarse outlines err to both sides, and little; an id that also means unlabelled hides much of the other classes.
    """
    compared = [f for f in examined.facts if f.labelled and sum(f.wrong.values()) <= COARSE_WRONG * f.labelled]
    wrong = _wrong(compared)
    if not wrong or any(f.coarse.counts.keys() & examined.expected.void for f in compared):
        return
    ((value, pixels),) = wrong.most_common(1)
    others = sum(sum(f.fine.counts.values()) - f.fine.counts.get(value, 0) for f in compared)
    if pixels > MOSTLY * wrong.total() and pixels > HIDDEN * others:
        shown = examined.expected.name(value)
        advice = f"look where the coarse masks have {shown}: {UNLABELLED}; if they were drawn so, all is well"
        for f in compared:
            if value in f.wrong:
                observed = f"no pixel is void, and {f.wrong[value]:,} of {shown} have another class in the fine mask"
                yield fault("coarse-never-void", f.coarse.file, observed, advice=advice)


def _wrong(facts: Sequence[Facts]) -> collections.Counter[int]:
    """Coarse id -> number of pixels with another class in the fine masks."""
    return sum((collections.Counter(f.wrong) for f in facts), collections.Counter())


def tags_contradict_mask(examined: Examined) -> Iterator[Finding]:
    """Classes with pixels and no tag, and tags without a pixel."""
    expected = examined.expected
    for f in examined.facts:
        if f.example.tags is None or f.fine is None:
            continue
        name = f.example.name
        drawn = f.fine.counts.keys() - expected.void - {expected.background}
        if expected.classes is not None:
            drawn &= expected.classes
        untagged, undrawn = sorted(drawn - f.example.tags), sorted(f.example.tags - drawn - {expected.background})
        if untagged:
            yield fault(
                "tags-contradict-mask",
                f.fine.file,
                f"the mask has {', '.join(map(expected.name, untagged))}, the tags of {name} do not",
                advice="correct the tags or the mask; a shifted list of tags shows up in many files at once",
            )
        if undrawn:
            # The tagged object may lie in a void region, or was lost when the mask was reduced.
            void = bool(expected.void & f.fine.counts.keys())
            yield fault(
                "tags-contradict-mask",
                f.fine.file,
                f"the tags of {name} have {', '.join(map(expected.name, undrawn))}, the mask does not",
                expected="pixels of every tagged class in the mask" + (", unless they are void" if void else ""),
                advice="correct the tags or the mask",
                certain=not void,
            )


def copies(examined: Examined) -> Iterator[Finding]:
    """The same image twice: a problem between splits, a warning within one."""
    first_of: dict[bytes, object] = {}
    for f in examined.facts:
        if f.digest is None:
            continue
        here, first = f.example, first_of.setdefault(f.digest, f.example)
        if first.split != here.split:
            observed = f"in {here.split or 'all'}: the same pixels as {first.image} in {first.split or 'all'}"
            yield fault("image-in-two-splits", here.image, observed)
        elif first is not here:
            yield fault("duplicate-image", here.image, f"the same pixels as {first.image}")


RULES: tuple[Callable[[Examined], Iterator[Finding]], ...] = (
    coverage.no_labels,
    colour_masks,
    palettes,
    numbering.shifted,
    numbering.without_class,
    numbering.first_id,
    numbering.gaps,
    numbering.too_deep,
    numbering.blended,
    void.void_classes,
    void.minus_one,
    void.outlines,
    void.unused_ignore,
    coverage.one_class,
    coverage.absent_classes,
    coarse_contradicts_fine,
    coarse_never_void,
    tags_contradict_mask,
    copies,
)
"""In the order of their findings in the report."""

NOTES: tuple[Callable[[Examined], Iterator[str]], ...] = (coverage.absent_notes, coverage.id_notes)
"""What is told and is no fault."""
