"""`scarce-jax predict RUN PATH...`: masks and overlays for any image files."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import tyro

from scarce_jax.cli.common import Folder, Name, RunFolder, Scales, Switch, Window, parse, views_from
from scarce_jax.data.files import SUFFIXES
from scarce_jax.errors import InputError


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `predict`.

    Attributes:
      run: a run folder.
      paths: image files, or folders of them.
      out: folder for <stem>.png (class ids), <stem>_overlay.png and <stem>_confidence.png.
      result: which result; default the method's first. An unknown name lists them.
      coarse: folder with a coarse mask <stem>.png per image (class ids, 255 = unlabelled).
      flip: also predict the mirrored image, and average the probabilities.
      scales: predict at these factors of the result's size, and average.
      window: predict in windows of this size that slide over the image, and average where they overlap.
      crf: refine by the image's colours with a dense CRF of these parameters; an unknown name lists them.
      confidence: also write the confidence, 0..255.
      native_ids: write the dataset's own mask values instead of class ids.
    """

    run: RunFolder
    paths: Annotated[
        tuple[pathlib.Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH...", help_behavior_hint="")
    ] = ()
    out: Annotated[pathlib.Path, tyro.conf.arg(metavar="DIR")]
    result: Name = None
    coarse: Folder = None
    flip: Switch = False
    scales: Scales = None
    window: Window = None
    crf: Name = None
    confidence: Switch = False
    native_ids: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Options, argv, "predict", "Writes a mask and an overlay for every image.")
    if not options.paths:
        print("scarce-jax predict: no PATH given; name image files, or folders of them", file=sys.stderr)
        return 2
    files = find_images(options.paths)
    from scarce_jax import runs
    from scarce_jax.data.images import overlay, read_image, read_mask, write_png

    predictor = runs.load(options.run, options.result, views=views_from(options))
    predictor.check(options.coarse is not None)
    masks = {file: options.coarse / f"{file.stem}.png" for file in files} if predictor.needs_coarse else {}
    missing = [mask for mask in masks.values() if not mask.is_file()]
    if missing:
        raise InputError(
            f"{missing[0]}: no such coarse mask ({len(missing)} of {len(files)} are missing); result {predictor.name} "
            f"needs one per image, named as the image with .png"
        )
    kinds = ("", "_overlay", *(["_confidence"] if options.confidence else []))
    check_outputs(options.out, files, list(masks.values()), kinds)

    def row(k: int) -> dict[str, np.ndarray]:
        image = read_image(files[k])
        coarse = read_mask(masks[files[k]]) if masks else None
        try:
            return predictor.row(image, coarse)
        except InputError as error:
            raise InputError(f"{masks.get(files[k], files[k])}: {error}") from error

    # Every input is read once before anything is written, so that a bad file leaves no half-done folder.
    sizes = []
    for k in range(len(files)):
        found = row(k)
        sizes.append((int(found["native_height"]), int(found["native_width"])))
    values = np.arange(256, dtype=np.uint8)
    if options.native_ids and predictor.native_ids is not None:
        values[: len(predictor.native_ids)] = predictor.native_ids
    options.out.mkdir(parents=True, exist_ok=True)
    for k, prediction in predictor.stream(row, sizes, os.cpu_count() or 1):
        shown = overlay(read_image(files[k]), prediction.labels, predictor.palette)
        made = {"": values[prediction.labels], "_overlay": shown, "_confidence": prediction.confidence}
        for kind in kinds:
            write_png(output(options.out, files[k], kind), made[kind])
    print(f"{len(files)} images: masks and overlays of result {predictor.name} are in {options.out}")
    return 0


def output(folder: pathlib.Path, file: pathlib.Path, kind: str) -> pathlib.Path:
    """Where a picture of this kind ("" the mask, "_overlay", "_confidence") of an image goes."""
    return folder / f"{file.stem}{kind}.png"


def check_outputs(
    folder: pathlib.Path, files: Sequence[pathlib.Path], masks: Sequence[pathlib.Path], kinds: Sequence[str]
) -> None:
    """Raises InputError where a picture would be written over an input, or over another one's picture."""
    inputs = {path.resolve() for path in (*files, *masks)}
    made: dict[pathlib.Path, pathlib.Path] = {}
    for file in files:
        for kind in kinds:
            path = output(folder, file, kind)
            if path.resolve() in inputs:
                raise InputError(f"--out {folder}: {path} is an input and would be lost; choose another folder")
            if path in made:
                raise InputError(f"{made[path]} and {file}: both would write {path}; rename one of them")
            made[path] = file


def find_images(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """The image files among the paths, folders searched one level deep, in order.

    Raises:
      InputError: a path does not exist, nothing is found, or two files have one stem.
    """
    files: list[pathlib.Path] = []
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        files += inside
    if not files:
        raise InputError(f"{', '.join(map(str, paths))}: no image found; expected files ending in {sorted(SUFFIXES)}")
    seen: dict[str, pathlib.Path] = {}
    for file in files:
        if file.stem in seen:
            raise InputError(f"{seen[file.stem]} and {file}: equal stems would write one file; rename one of them")
        seen[file.stem] = file
    return files
