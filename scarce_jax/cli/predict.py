"""`scarce-jax predict RUN PATH...`: writes masks and overlays for image files."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from scarce_jax.cli.common import Flat, Folder, Name, RunFolder, Switch, parse, shown
from scarce_jax.cli.views import PredictionFlags
from scarce_jax.errors import plural


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `predict`.

    Attributes:
      run: a run folder.
      paths: image files, or folders of them.
      out: folder for <stem>.png (class ids), <stem>_overlay.png and <stem>_confidence.png.
      result: name of the result; default the method's first. An unknown name lists all.
      coarse: folder with a coarse mask <stem>.png for each image (class ids, 255 = unlabelled).
      confidence: also write the confidence, 0..255.
      native_ids: write the dataset's own mask values instead of class ids.
      allow_import: import the Python module that the run folder names; only for folders you trust.
    """

    run: RunFolder
    paths: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional, shown("PATH...")] = ()
    out: Annotated[pathlib.Path, tyro.conf.arg(metavar="DIR")]
    result: Name = None
    coarse: Folder = None
    prediction: Annotated[PredictionFlags, Flat] = dataclasses.field(default_factory=PredictionFlags)
    confidence: Switch = False
    native_ids: Switch = False
    allow_import: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Options, argv, "predict", "Writes a mask and an overlay for every image.")
    if not options.paths:
        print("scarce-jax predict: no PATH given; give image files, or folders of them", file=sys.stderr)
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
        allow_import=options.allow_import,
        **options.prediction.arguments(),
    )
    images = plural(written["images"], "image")
    print(f"{images}: masks and overlays of result {written['result']} are in {written['out']}")
    return 0
