"""One self-contained HTML file about one or several runs."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from scarce_jax.errors import InputError
from scarce_jax.report.compare import compare
from scarce_jax.report.files import read_run
from scarce_jax.report.gallery import Gallery
from scarce_jax.report.measure import measure, show_inferred
from scarce_jax.report.page import write_page
from scarce_jax.run_folder import import_modules, open_result

__all__ = ["report"]


def report(
    runs: Sequence[str | os.PathLike],
    out: str | os.PathLike | None = None,
    *,
    results: Sequence[str] = (),
    images: int = 12,
    data_dir: str | os.PathLike | None = None,
    split: str | None = None,
    batch: int | None = None,
    allow_import: bool = False,
) -> dict[str, Any]:
    """Writes one HTML file about runs, finished or not; it needs no network.

    A result of each run is predicted for every image of the split, for the confusion matrix and to choose the images to
    show; the masks of further results are shown beside it. Masks that stages inferred for training images are shown
    too, if a result measures them. What cannot be computed is left out, and the file says why.

    Args:
      runs: run folders.
      out: the file; default RUN/report.html for one run, and report.html in the current folder for several.
      results: names of the results to predict, the first of which has the confusion matrix; default the main one. A run
        that lacks one of them is shown without it.
      images: number of images to show for each split: the best, the worst and others evenly between.
      data_dir: folder of prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      split: default the split that each run's config measures on.
      batch: images per device, which changes no result; default each config's.
      allow_import: import the Python modules that the run folders name, as in `runs.evaluate`.

    Returns:
      {"report": path, "bytes": size of the file, "images": number shown, "left_out": [what is left out, and why]}.

    Raises:
      InputError: a run does not exist, is given twice or has a damaged file, no run has one of `results`, or `out` is
        not a file in a folder that exists.
    """
    folders = [pathlib.Path(run) for run in runs]
    _check(folders, images)
    if allow_import:
        for folder in folders:
            import_modules(folder)
    described = [read_run(folder) for folder in folders]
    default = (folders[0] if len(folders) == 1 else pathlib.Path()) / "report.html"
    path = default if out is None else pathlib.Path(out)
    named = path.suffix.lower() in (".html", ".htm")
    if path.is_dir() or not path.parent.is_dir() or not named:
        # Another ending may be that of a file which would be replaced.
        there = f"there is no folder {path.parent}" if named else "does not end in .html"
        fault = "is a folder" if path.is_dir() else there
        raise InputError(f"--out {path}: {fault}; expected the name of an HTML file in a folder that exists")
    for result in results:
        _check_result(folders, result, split=split, data_dir=data_dir)
    galleries: list[Gallery] = []
    left_out = []
    for number, (folder, run) in enumerate(zip(folders, described, strict=True)):
        run["name"] = folder.name if [f.name for f in folders].count(folder.name) == 1 else str(folder)
        run["measured"] = None
        for result in results or (None,):
            try:
                measured = measure(
                    folder, number, galleries, images=images, data_dir=data_dir, result=result, split=split, batch=batch
                )
            except InputError as error:
                of = "" if result is None else f" of {result}"
                left_out.append(f"{run['name']}: confusion matrix and images{of} are left out; {error}")
            else:
                run["measured"] = run["measured"] or measured
        try:
            show_inferred(folder, number, galleries, images=images, data_dir=data_dir)
        except InputError as error:
            left_out.append(f"{run['name']}: inferred masks of training images are left out; {error}")
        unfinished = [stage["name"] for stage in run["stages"] if not stage["done"]]
        if unfinished:
            left_out.append(f"{run['name']}: the run is not finished ({', '.join(unfinished)})")
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
        raise InputError("report: no run given; give at least one run folder")
    if images < 0:
        raise InputError(f"--images {images}: expected 0 or more")
    seen: dict[pathlib.Path, pathlib.Path] = {}
    for folder in folders:
        if folder.resolve() in seen:
            raise InputError(f"{seen[folder.resolve()]} and {folder} are the same run; give it once")
        seen[folder.resolve()] = folder


def _check_result(folders: Sequence[pathlib.Path], result: str, **options: Any) -> None:
    """Raises InputError if no run has a result, for the reason of the first; `options` are those of `open_result`."""
    errors = []
    for folder in folders:
        try:
            open_result(folder, result, **options)
        except InputError as error:
            errors.append(error)
    if len(errors) == len(folders):
        raise errors[0]
