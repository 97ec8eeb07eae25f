"""The label doctor: reads every image and mask of a dataset, and finds the files that are wrong."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Sequence

from tqdm import tqdm

from scarce_jax.data.builders.formats import Layout, Options
from scarce_jax.data.schema import IGNORE
from scarce_jax.doctor.examine import examine_arrays, examine_files
from scarce_jax.doctor.facts import Examined, Example, Expected, Facts
from scarce_jax.doctor.findings import Finding, fault, group
from scarce_jax.doctor.layouts import pair_folders
from scarce_jax.doctor.report import Report
from scarce_jax.doctor.rules import NOTES, RULES
from scarce_jax.doctor.source import (
    examine,
    examples_of,
    expected_classes,
    expected_of,
    new_palettes,
    read_for_check,
    with_classes,
)
from scarce_jax.errors import InputError

MEASURED = 100
"""Number of masks, evenly spread, whose outlines are measured: it is slow, and these are enough to decide."""

__all__ = ["Finding", "Report", "check_folders", "check_prepared", "check_source", "read_layout"]


def check_folders(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str],
    coarse: str | os.PathLike[str] | None = None,
    *,
    classes: str | int | os.PathLike[str] | None = None,
    ignore: int = IGNORE,
) -> Report:
    """Checks a folder of images and one of masks, matched by name without suffix.

    Subfolders are searched; a first one called train, val or test is a split.

    Args:
      coarse: a folder of coarse masks.
      classes: number of classes, or a file with their names; None if any id may be a class.
      ignore: the id of void pixels, besides 255.

    Raises:
      InputError: a folder is missing or has no images, or `classes` or `ignore` is wrong.
    """
    if not 0 <= ignore <= 65535:
        raise InputError(f"--ignore {ignore}: expected an id from 0 to 65535")
    faults: list[Finding] = []
    folders = [None if folder is None else pathlib.Path(folder).expanduser() for folder in (images, masks, coarse)]
    examples = pair_folders(*folders, "", faults)
    expected = Expected()
    if classes is not None:
        listed = expected_classes(classes)
        expected, examples = expected_of(listed), with_classes(examples, listed)
    expected = dataclasses.replace(expected, ignore=(*expected.ignore, ignore), settable=True)
    return _check(str(folders[0]), examples, expected, folders[1], faults)


def check_source(source: str | os.PathLike[str], options: Options | None = None) -> Report:
    """Checks a source folder of `folder/NAME`, in any format that `prepare` reads.

    Args:
      options: how it is read; None finds out.

    Raises:
      InputError: the folder is of no known format, or its classes or its images are missing or unreadable.
    """
    folder = pathlib.Path(source).expanduser()
    faults: list[Finding] = []
    found = read_for_check(folder, options or Options(), faults)
    report = _check(str(folder), found.examples, found.expected, folder, faults, found.read, found.notes)
    return dataclasses.replace(report, findings=(*report.findings, *found.ambiguous(folder)))


def check_prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> Report:
    """Checks every example of a prepared dataset.

    Raises:
      InputError: the dataset is unknown or not prepared; the message has the command that prepares it.
    """
    from scarce_jax.data.builders import dataset_dir, import_builder, load_info
    from scarce_jax.data.source import Reader

    import_builder(name)
    info = load_info(name, data_dir)
    readers = {split: Reader(name, split, data_dir) for split in info.splits}
    expected = Expected(names=info.classes, background=info.background, plain=False)
    examples = []
    for split, reader in readers.items():
        for example_id, tags in zip(reader.ids, reader.tags, strict=True):
            where = example_id if example_id.startswith(f"{split}/") else f"{split}/{example_id}"
            lacking = {field for field, ids in reader.lacking.items() if example_id in ids}
            example = Example(
                split=split,
                name=example_id,
                image=where,
                mask=None if "fine" in lacking else f"{where} (fine)",
                coarse=None if "coarse" in lacking else f"{where} (coarse)",
                tags=None if "tags" in lacking else frozenset(tags.nonzero()[0].tolist()),
            )
            examples.append(example)

    def read(example: Example, deep: bool) -> Facts:
        facts, reader = Facts(example=example), readers[example.split]
        try:
            record = reader.read(reader.index[example.name])
            arrays = [record[key] for key in ("image", "fine", "coarse")]
        except InputError as error:
            reason = str(error).partition(";")[0]
            changes = {"expected": "an example that can be decoded", "advice": "prepare the dataset again"}
            facts.faults.append(fault("damaged-file", example.image, reason, **changes))
            return facts
        return examine_arrays(facts, *arrays, expected.void, deep)

    return _check(f"dataset {name}", examples, expected, dataset_dir(name, data_dir), [], read)


def read_layout(layout: Layout) -> list[Facts]:
    """What the files of a layout hold, where its classes are not known yet: ids and colours as they stand."""
    return _examine_all(examples_of(layout), lambda example, deep: examine_files(example, frozenset({IGNORE}), False))


def _check(
    name: str,
    examples: Sequence[Example],
    expected: Expected,
    where: pathlib.Path,
    faults: list[Finding],
    read: Callable[[Example, bool], Facts] | None = None,
    notes: tuple[str, ...] = (),
) -> Report:
    """Reads all examples in threads, and applies every rule; `faults` are those of file names."""
    start = time.monotonic()
    palettes = new_palettes()
    read = read or (lambda example, deep: examine(example, expected.void, deep, palettes))
    examined = Examined(facts=_examine_all(examples, read), expected=expected, where=where, faults=tuple(faults))
    per_file = itertools.chain.from_iterable(facts.faults for facts in examined.facts)
    per_rule = itertools.chain.from_iterable(rule(examined) for rule in RULES)
    return Report(
        name=name,
        images=len(examples),
        masks=sum(example.mask is not None for example in examples),
        coarse=sum(example.coarse is not None for example in examples),
        seconds=time.monotonic() - start,
        findings=group([*faults, *per_file, *per_rule]),
        notes=(*notes, *itertools.chain.from_iterable(note(examined) for note in NOTES)),
    )


def _examine_all(examples: Sequence[Example], examine: Callable[[Example, bool], Facts]) -> list[Facts]:
    every = max(1, len(examples) // MEASURED)
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    try:
        # Pillow warns about huge pictures and odd metadata, neither of which makes the pixels wrong.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = pool.map(lambda k: examine(examples[k], k % every == 0), range(len(examples)))
            # disable=None: a progress bar on a terminal alone.
            return list(tqdm(results, "checking", total=len(examples), unit=" images", leave=False, disable=None))
    finally:
        pool.shutdown(cancel_futures=True)
