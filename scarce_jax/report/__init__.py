"""One self-contained HTML file about one or several runs."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from scarce_jax.errors import InputError
from scarce_jax.report.compare import compare
from scarce_jax.report.files import read_run
from scarce_jax.report.measure import Gallery, measure, show_inferred
from scarce_jax.report.page import write_page

__all__ = ["report"]


def report(
    runs: Sequence[str | os.PathLike],
    out: str | os.PathLike | None = None,
    *,
    images: int = 12,
    data_dir: str | os.PathLike | None = None,
    split: str | None = None,
    batch: int | None = None,
) -> dict[str, Any]:
    """Writes what runs did, finished or not, into one HTML file that needs no network.

    The main result of each run is predicted once for every image of the split, for the confusion matrix and to choose
    the images that are shown. Masks that its stages inferred of training images, and that results measure, are shown
    too. Where that cannot be done the file does without, and says why.

    Args:
      runs: run folders.
      out: the file; default RUN/report.html for one run, else report.html in the current folder.
      images: how many images to show of each split, the best, the worst and evenly between.
      data_dir: where datasets are prepared; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      split: default the split that each run's config measures on.
      batch: images per device, which changes no result; default each config's.

    Returns:
      {"report": path, "bytes": size of the file, "images": shown, "left_out": [what is not in it and why]}.

    Raises:
      InputError: no such run, one given twice, a damaged file of a run, or a place that cannot be written.
    """
    folders = [pathlib.Path(run) for run in runs]
    _check(folders, images)
    described = [read_run(folder) for folder in folders]
    path = (
        pathlib.Path(out) if out is not None else (folders[0] if len(folders) == 1 else pathlib.Path()) / "report.html"
    )
    if path.is_dir() or not path.parent.is_dir():
        fault = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise InputError(f"--out {path}: {fault}; expected the name of an HTML file in a folder that exists")
    galleries: list[Gallery] = []
    left_out = []
    for number, (folder, run) in enumerate(zip(folders, described, strict=True)):
        run["name"] = folder.name if [f.name for f in folders].count(folder.name) == 1 else str(folder)
        try:
            run["measured"] = measure(
                folder, number, galleries, images=images, data_dir=data_dir, split=split, batch=batch
            )
        except InputError as error:
            run["measured"] = None
            left_out.append(f"{run['name']}: no confusion matrix and no images, because of this: {error}")
        try:
            show_inferred(folder, number, galleries, images=images, data_dir=data_dir)
        except InputError as error:
            left_out.append(f"{run['name']}: no inferred masks of training images, because of this: {error}")
        unfinished = [stage["name"] for stage in run["stages"] if not stage["done"]]
        if unfinished:
            left_out.append(f"{run['name']}: not finished ({', '.join(unfinished)}); the report says what is done")
    shown = [gallery.content() for gallery in galleries if images]
    content = {"runs": described, **compare(described), "galleries": shown, "left_out": left_out}
    size = write_page(path, content)
    return {
        "report": str(path),
        "bytes": size,
        "images": sum(len(gallery["pictures"]) for gallery in shown),
        "left_out": left_out,
    }


def _check(folders: Sequence[pathlib.Path], images: int) -> None:
    if not folders:
        raise InputError("report: no run given; name at least one run folder")
    if images < 0:
        raise InputError(f"--images {images}: expected 0 or more")
    seen: dict[pathlib.Path, pathlib.Path] = {}
    for folder in folders:
        if folder.resolve() in seen:
            raise InputError(f"{seen[folder.resolve()]} and {folder}: are the same run; name it once")
        seen[folder.resolve()] = folder
