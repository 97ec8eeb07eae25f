"""The label doctor: reads every image and mask of a dataset and says what is wrong with them, by file."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

from tqdm import tqdm

from scarce_jax.data.schema import IGNORE
from scarce_jax.doctor.agree import check_coarse, check_copies, check_tags
from scarce_jax.doctor.colours import check_colours
from scarce_jax.doctor.examine import Example, Facts, Fault, examine, examine_arrays
from scarce_jax.doctor.ids import Expected, check_empty, check_ids
from scarce_jax.doctor.layouts import pair_folders
from scarce_jax.doctor.report import Finding, Findings, Report
from scarce_jax.doctor.source import expected_classes, source_examples
from scarce_jax.errors import InputError

MEASURED = 100
"""Masks, evenly spread over all, whose shapes are measured too; more would tell no more."""

__all__ = ["Finding", "Report", "check_folders", "check_prepared", "check_source"]


def check_folders(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str],
    coarse: str | os.PathLike[str] | None = None,
    *,
    classes: str | int | os.PathLike[str] | None = None,
    ignore: int = IGNORE,
) -> Report:
    """Checks a folder of images and one of masks, matched by name without suffix.

    Subfolders are searched; if the first one of a name is train, val or test, it is a split of its own.

    Args:
      coarse: a folder of coarse masks.
      classes: their number, or a file of their names; None: any id may be a class.
      ignore: the id of void pixels, besides 255.

    Raises:
      InputError: a folder is missing or without images, or `classes` is none.
    """
    start = time.monotonic()
    if not 0 <= ignore <= 65535:
        raise InputError(f"--ignore {ignore}: expected an id from 0 to 65535")
    findings = Findings()
    folders = [None if folder is None else pathlib.Path(folder).expanduser() for folder in (images, masks, coarse)]
    examples = pair_folders(*folders, "", findings)
    named = Expected() if classes is None else expected_classes(classes)
    expected = dataclasses.replace(named, ignore=(*named.ignore, ignore), settable=True)
    places = dict.fromkeys({example.split for example in examples}, folders[1])
    return _checked(str(folders[0]), examples, expected, places, findings, start)


def check_source(source: str | os.PathLike[str]) -> Report:
    """Checks a folder in the layout of the `folder` builder: classes.json, and images, masks and coarse by split.

    Raises:
      InputError: the folder, its classes.json or its images are missing or unreadable.
    """
    start = time.monotonic()
    folder = pathlib.Path(source).expanduser()
    findings = Findings()
    examples, expected, places = source_examples(folder, findings)
    return _checked(str(folder), examples, expected, places, findings, start)


def check_prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> Report:
    """Checks every example of a prepared dataset.

    Raises:
      InputError: it is unknown or not prepared; the message has the command that prepares it.
    """
    from scarce_jax.data.builders import dataset_dir, load_info
    from scarce_jax.data.source import Reader

    start = time.monotonic()
    info = load_info(name, data_dir)
    readers = {split: Reader(name, split, data_dir) for split in info.splits}
    examples = [
        Example(
            split=split,
            name=name,
            tags=None if name in reader.lacking["tags"] else frozenset(tags.nonzero()[0].tolist()),
        )
        for split, reader in readers.items()
        for name, tags in zip(reader.ids, reader.tags, strict=True)
    ]
    expected = Expected(names=info.classes, palette=info.palette, background=info.background)
    places = dict.fromkeys(readers, dataset_dir(name, data_dir))

    def read(example: Example, deep: bool) -> Facts:
        facts = Facts(example=example, faults=[])
        reader = readers[example.split]
        try:
            arrays = reader.read(reader.index[example.name])
        except InputError as error:
            facts.faults.append(
                Fault(
                    kind="damaged-file",
                    file=example.where,
                    found=str(error).partition(";")[0],
                    expected="an example that can be decoded",
                    advice="prepare the dataset again",
                )
            )
            return facts
        files = {key: f"{example.where} ({key})" for key in ("fine", "coarse")}
        examine_arrays(facts, arrays["image"], arrays["fine"], arrays["coarse"], expected.void, deep, files)
        return facts

    return _checked(f"dataset {name}", examples, expected, places, Findings(), start, read)


def _checked(
    name: str,
    examples: Sequence[Example],
    expected: Expected,
    places: dict[str, object],
    findings: Findings,
    start: float,
    read: Callable[[Example, bool], Facts] | None = None,
) -> Report:
    """Reads all examples in threads, and applies every rule."""
    read = read or functools.partial(examine, void=expected.void)
    facts = list(_read_all(examples, read))
    for fault in (fault for f in facts for fault in f.faults):
        findings.add(**dataclasses.asdict(fault))
    check_colours(facts, findings)
    notes = check_ids(facts, expected, findings)
    check_empty(facts, expected, places, findings)
    check_coarse(facts, expected, findings)
    check_tags(facts, expected, findings)
    check_copies(facts, findings)
    all_findings = findings.all()
    contents = {
        "image": [f.digest for f in facts],
        "mask": [f.fine for f in facts],
        "coarse": [f.coarse for f in facts],
    }
    files = {
        kind: sum(getattr(f.example, kind) is not None or x is not None for f, x in zip(facts, held, strict=True))
        for kind, held in contents.items()
    }
    return Report(
        name=name,
        images=files["image"],
        masks=files["mask"],
        coarse=files["coarse"],
        unlabelled=files["image"] - files["mask"],
        seconds=time.monotonic() - start,
        problems=tuple(finding for finding in all_findings if finding.certain),
        warnings=tuple(finding for finding in all_findings if not finding.certain),
        notes=tuple(notes),
    )


def _read_all(examples: Sequence[Example], read: Callable[[Example, bool], Facts]) -> Iterator[Facts]:
    every = max(1, len(examples) // MEASURED)
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    try:
        results = pool.map(lambda k: read(examples[k], deep=k % every == 0), range(len(examples)))
        # disable=None: a progress bar on a terminal alone.
        yield from tqdm(results, "checking", total=len(examples), unit=" images", leave=False, disable=None)
    finally:
        pool.shutdown(cancel_futures=True)
