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

from scarce_jax.data.builders.files import ranges
from scarce_jax.data.schema import IGNORE
from scarce_jax.doctor.examine import examine_arrays, examine_files
from scarce_jax.doctor.facts import Examined, Example, Expected, Facts
from scarce_jax.doctor.findings import Finding, fault, group
from scarce_jax.doctor.layouts import pair_folders
from scarce_jax.doctor.report import Report
from scarce_jax.doctor.rules import RULES
from scarce_jax.doctor.source import expected_classes, source_examples
from scarce_jax.errors import InputError

MEASURED = 100
"""Number of masks, evenly spread, whose outlines are measured: it is slow, and these are enough to decide."""

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
    expected = Expected() if classes is None else expected_classes(classes)
    expected = dataclasses.replace(expected, ignore=(*expected.ignore, ignore), settable=True)
    return _check(str(folders[0]), examples, expected, folders[1], faults)


def check_source(source: str | os.PathLike[str]) -> Report:
    """Checks a folder in the layout of the `folder` builder: classes.json, and images, masks and coarse by split.

    Raises:
      InputError: the folder, its classes.json or its images are missing or unreadable.
    """
    folder = pathlib.Path(source).expanduser()
    faults: list[Finding] = []
    return _check(str(folder), *source_examples(folder, faults), folder, faults)


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
    expected = Expected(names=info.classes, background=info.background)
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

    def examine(example: Example, deep: bool) -> Facts:
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

    return _check(f"dataset {name}", examples, expected, dataset_dir(name, data_dir), [], examine)


def _check(
    name: str,
    examples: Sequence[Example],
    expected: Expected,
    where: pathlib.Path,
    faults: list[Finding],
    examine: Callable[[Example, bool], Facts] | None = None,
) -> Report:
    """Reads all examples in threads, and applies every rule; `faults` are those of file names."""
    start = time.monotonic()
    examine = examine or (lambda example, deep: examine_files(example, expected.void, deep))
    examined = Examined(facts=_examine_all(examples, examine), expected=expected, where=where)
    per_file = itertools.chain.from_iterable(facts.faults for facts in examined.facts)
    per_rule = itertools.chain.from_iterable(rule(examined) for rule in RULES)
    unknown = f"ids {ranges(examined.used)} are in the masks; --classes N or a file of names also checks their range"
    return Report(
        name=name,
        images=len(examples),
        masks=sum(example.mask is not None for example in examples),
        coarse=sum(example.coarse is not None for example in examples),
        seconds=time.monotonic() - start,
        findings=group([*faults, *per_file, *per_rule]),
        notes=(unknown,) if expected.names is None and examined.used else (),
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
