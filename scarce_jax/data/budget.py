"""The label budget: drawing the examples of a training split that have fine masks."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from annotated_types import DocInfo

from scarce_jax.data.categories import SPLIT_SETS, expand, is_strong
from scarce_jax.data.manifest import Manifest
from scarce_jax.data.schema import FIELD_WORDS
from scarce_jax.errors import InputError, nearest, some
from scarce_jax.ranges import Count, CountOrZero, InsideOne, Seed

_GOLDEN = 0.6180339887498949
# Published lists of Cityscapes have names of image files; example ids are without this suffix.
_LIST_SUFFIXES = ("_leftImg8bit",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """How many images have fine masks, and how they are drawn.

    Only images that have a fine mask are drawn. Budgets of equal `draw` and `seed` are nested: the images of a smaller
    budget are the first images of a larger one.

    Attributes:
      fine: a number of images; a fraction of the images with a fine mask, above 0 and below 1; "all"; or the path of a
        text file with one image per line, which begins with the id or the image's path, as in published lists.
      per_class: use instead of `fine`: draw images until each class is in at least this many, rare classes first.
      draw: "random": in an order that depends on `seed` and each id alone, so that it is the same in every version of
        the data. "stride": evenly spaced over the ids in natural order, for the frames of videos.
      strong_categories: if not empty, only images whose labels are all among these classes, not counting the
        background, may have fine masks; images without labels may not. The name of a split-set of `data.categories`
        stands for its classes.
      seed: seed of the draw. It is independent of the seed of the run, so that runs share a subset.
    """

    fine: CountOrZero | InsideOne | Annotated[str, DocInfo("'all', or the path of a list")] = "all"
    per_class: Count | None = None
    draw: Literal["random", "stride"] = "random"
    strong_categories: tuple[str, ...] = ()
    seed: Seed = 0

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.per_class is not None and self.fine != "all":
            yield "per_class", f"None beside --budget.fine {self.fine!r}, because both choose images; give one of them"


def draw_manifest(
    budget: Budget,
    ids: Sequence[str],
    tags: np.ndarray,
    classes: Sequence[str],
    dataset: str,
    version: str,
    split: str,
    forbidden_ids: Collection[str] = (),
    background: int | None = None,
    lacking: Mapping[str, Collection[str]] | None = None,
) -> Manifest:
    """Draws the examples of every role. The result does not depend on the order of `ids`.

    Args:
      budget: the label budget.
      ids: the ids of the split.
      tags: uint8 [N, K], multi-hot, one row per id; the background's column is 0.
      classes: the K class names.
      dataset: name of the dataset.
      version: the version of the prepared dataset.
      split: the training split.
      forbidden_ids: ids of the examples that evaluations measure.
      background: index of the background class, which `per_class` ignores.
      lacking: "fine", "coarse" or "tags" -> ids of the examples that do not have it.

    Raises:
      InputError: more images are requested than there are, a fraction amounts to no image, a listed id or a strong
        category is unknown, a listed image has no fine mask or shows a class that is not strong, a class is in too few
        images, or an evaluation measures an id of the training split.
    """
    tags = np.asarray(tags).astype(bool)
    if tags.shape != (len(ids), len(classes)):
        raise ValueError(f"tags have shape {tags.shape}, expected {len(ids)} examples x {len(classes)} classes")
    if len(set(ids)) != len(ids):
        raise InputError(f"{dataset}/{split}: {len(ids) - len(set(ids))} ids occur twice; prepare the dataset again")
    leaked = sorted(set(ids) & set(forbidden_ids))
    if leaked:
        raise InputError(
            f"{dataset}/{split}: {len(leaked)} of {len(ids)} training examples are also measured by an "
            f"evaluation ({some(leaked)}); choose another split for training or evaluation"
        )
    where = f"{dataset}/{split}"
    row = dict(zip(ids, tags, strict=True))
    order = _draw_order(ids, budget)
    strong_categories = expand(budget.strong_categories)
    strong = _strong_classes(strong_categories, classes)
    lacking = {field: set((lacking or {}).get(field, ())) for field in FIELD_WORDS}
    eligible = [i for i in order if i not in lacking["fine"]]
    if strong_categories:
        eligible = [i for i in eligible if is_strong(row[i], strong)]
    if budget.per_class is not None:
        wanted = strong.copy()
        if background is not None:
            wanted[background] = False
        fine = _per_class(eligible, row, budget.per_class, wanted, classes, where)
    elif isinstance(budget.fine, str) and budget.fine != "all":
        fine = _listed(budget.fine, row, set(forbidden_ids), lacking["fine"], where, split)
        if not strong.all():
            _check_strong(budget.fine, fine, row, strong, classes)
    else:
        fine = eligible[: _count(budget, len(eligible), bool(lacking["fine"]), where)]
    chosen = set(fine)
    roles = {
        "fine": tuple(fine),
        "coarse": tuple(i for i in order if i not in lacking["coarse"]),
        "tags": tuple(i for i in order if i not in lacking["tags"]),
        "unlabelled": tuple(i for i in order if i not in chosen),
    }
    counts = sum((row[i] for i in fine), np.zeros(len(classes), int))
    return Manifest(
        dataset=dataset,
        version=str(version),
        split=split,
        roles=roles,
        strong_categories=strong_categories,
        fine_per_class={name: int(counts[k]) for k, name in enumerate(classes) if k != background},
    )


def _draw_order(ids: Sequence[str], budget: Budget) -> list[str]:
    """Returns all ids in the order of the draw; every budget takes the first ones that are eligible."""
    if budget.draw == "random":
        # By hash, not by a random permutation, so that ids keep their order when examples are added or removed, or
        # NumPy changes its generators.
        return sorted(ids, key=lambda i: (hashlib.sha256(f"{budget.seed}:{i}".encode()).digest(), i))
    ids = sorted(ids, key=_natural_key)
    # The seed determines the start. Steps by the golden ratio keep the starts of a few seeds far apart.
    start = int(len(ids) * ((budget.seed * _GOLDEN) % 1.0))
    return [ids[(start + position) % len(ids)] for position in _spread(len(ids))]


def _natural_key(text: str) -> tuple:
    """Sort key with frame_9 before frame_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)], text


def _spread(n: int) -> list[int]:
    """Returns 0..n-1 in van der Corput order (bit-reversed binary fractions), so that every prefix is spread evenly.

    Neighbouring numbers of a prefix of m are less than 2 n / m + 1 apart. An exact stride would have equal gaps, but
    its budgets would not be nested.
    """
    bits = max(n - 1, 0).bit_length()
    reversed_bits = (int(f"{k:0{bits}b}"[::-1], 2) if bits else 0 for k in range(1 << bits))
    return list(dict.fromkeys(value * n >> bits for value in reversed_bits)) if n else []


def _count(budget: Budget, available: int, some_lack: bool, where: str) -> int:
    """The number of images of `Budget.fine`."""
    kind = "images with a fine mask" if some_lack else "images"
    if budget.strong_categories:
        kind = f"{kind} whose labels are all strong"
    if budget.fine == "all":
        count = available
    elif isinstance(budget.fine, float):
        count = round(budget.fine * available)
        if count == 0:
            raise InputError(
                f"budget.fine is {budget.fine}, of the {available} {kind} of {where}, which gives none; "
                f"{1 / available if available else 1:.2g} would give one"
            )
    else:
        count = budget.fine
    if count > available:
        raise InputError(f"budget.fine asks for {count} {kind}, {where} has {available}; lower it")
    if budget.strong_categories and not available:
        raise InputError(f"{where} has no {kind} ({', '.join(budget.strong_categories)}); choose other categories")
    return count


def _strong_classes(named: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """The strong classes, bool [K]; all if none is named."""
    for name in named:
        if name not in classes:
            raise InputError(
                f"budget.strong_categories: no class {name!r}{nearest(name, [*classes, *SPLIT_SETS])}; the classes are "
                f"{', '.join(classes)}, and the names of split-sets {', '.join(SPLIT_SETS)}"
            )
    return np.array([not named or name in named for name in classes])


def _check_strong(
    path: str, fine: Iterable[str], row: Mapping[str, np.ndarray], strong: np.ndarray, classes: Sequence[str]
) -> None:
    """Raises InputError if a listed image shows a class that is not strong."""
    for example_id in fine:
        if not is_strong(row[example_id], strong):
            labels = [classes[k] for k in np.flatnonzero(row[example_id])]
            raise InputError(
                f"{path}: {example_id!r} shows {', '.join(labels) or 'no class'}, "
                "expected strong categories only; remove it from the list"
            )


def _per_class(
    order: Sequence[str],
    row: Mapping[str, np.ndarray],
    k: int,
    wanted: np.ndarray,
    classes: Sequence[str],
    where: str,
) -> list[str]:
    """Draws images greedily, in k rounds: each round gives the next image to every class that has too few.

    The rarest class comes first, since its images usually show common classes too. The sequence of k is the beginning
    of that of k + 1, so that budgets are nested.
    """
    tags = np.stack([row[i] for i in order]) if order else np.zeros((0, len(classes)), bool)
    totals = tags.sum(axis=0)
    short = [f"{classes[c]} ({totals[c]})" for c in np.flatnonzero(wanted & (totals < k))]
    if short:
        raise InputError(
            f"budget.per_class asks for {k} images of every class, {where} has fewer of {', '.join(short)}; lower it"
        )
    members = [np.flatnonzero(tags[:, c]) for c in range(len(classes))]
    rarest_first = sorted(np.flatnonzero(wanted), key=lambda c: totals[c])
    counts = np.zeros(len(classes), int)
    taken: dict[int, None] = {}
    for already in range(k):
        for c in rarest_first:
            if counts[c] == already:
                position = next(int(m) for m in members[c] if int(m) not in taken)
                taken[position] = None
                counts += tags[position]
    return [order[position] for position in taken]


def _listed(
    path: str, row: Mapping[str, np.ndarray], forbidden: set[str], without_mask: set[str], where: str, split: str
) -> list[str]:
    """Reads the ids of a text file, in order, each once."""
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(
            f"budget.fine is {path!r}: not a number, a fraction or 'all', and not a readable text file of ids ({error})"
        ) from error
    listed: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        names = list(_names(line.strip(), split))
        known = next((name for name in names if name in row or name in forbidden), None)
        if known is None:
            raise InputError(f"{path}, line {number}: {where} has no example {names[-1]!r}{nearest(names[-1], row)}")
        if known in forbidden:
            raise InputError(
                f"{path}, line {number}: {known!r} is measured by an evaluation; expected ids of {where} only"
            )
        if known in without_mask:
            raise InputError(f"{path}, line {number}: {known!r} has no fine mask; remove it from the list")
        listed[known] = None
    if not listed:
        raise InputError(f"{path}: has no ids; expected one per line")
    return list(listed)


def _names(line: str, split: str) -> Iterator[str]:
    """Yields the ids that a line may mean: the line, its first word, and shorter and shorter ends of that path.

    Ids of a `folder` dataset are "SPLIT/STEM"; in a list they may be "SPLIT/images/STEM" or the stem alone.
    """
    first = line.split()[0]
    yield line
    yield first
    yield f"{split}/{first}"
    parts = os.path.splitext(first)[0].strip("/").split("/")
    for start in range(len(parts)):
        end = "/".join(parts[start:])
        yield end
        for middle in range(start + 2, len(parts)):
            yield "/".join([parts[start], *parts[middle:]])
        yield f"{split}/{end}"
    for suffix in _LIST_SUFFIXES:
        yield parts[-1].removesuffix(suffix)
