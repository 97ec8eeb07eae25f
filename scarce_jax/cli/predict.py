"""`scarce-jax predict RUN PATH...`: masks and overlays for any image files."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from scarce_jax.cli.common import Flat, Folder, Name, RunFolder, Switch, parse
from scarce_jax.cli.views import PredictionFlags


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `predict`.

    Attributes:
      run: a run folder.
      paths: image files, or folders of them.
      out: folder for <stem>.png (class ids), <stem>_overlay.png and <stem>_confidence.png.
      result: which result; default the method's first. An unknown name lists them.
      coarse: folder with a coarse mask <stem>.png per image (class ids, 255 = unlabelled).
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
    prediction: Annotated[PredictionFlags, Flat] = dataclasses.field(default_factory=PredictionFlags)
    confidence: Switch = False
    native_ids: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Options, argv, "predict", "Writes a mask and an overlay for every image.")
    if not options.paths:
        print("scarce-jax predict: no PATH given; name image files, or folders of them", file=sys.stderr)
        return 2
    from scarce_jax import runs

    written = runs.predict(
        options.run,
        options.paths,
        options.out,
        result=options.result,
        coarse=options.coarse,
        confidence=options.confidence,
        native_ids=options.native_ids,
        views=options.prediction.views(),
        batch=options.prediction.batch,
    )
    print(f"{written['images']} images: masks and overlays of result {written['result']} are in {written['out']}")
    return 0
