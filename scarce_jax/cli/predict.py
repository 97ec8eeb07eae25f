"""`scarce-jax predict RUN PATH...`: writes masks and overlays, or maps, for image files or a split."""

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
      paths: image files, or folders of them; subfolders are searched, and kept below --out.
      out: folder for <stem>.png (class ids, as palette indices), <stem>_overlay.png (with a legend below the image) and
        <stem>_confidence.png; of maps for <stem>_<map>.png (grey) and <stem>_<map>_overlay.png.
      split: predict this split of the run's dataset in place of PATH; pictures have the names of the examples.
      result: name of the result, or of maps; default the method's first result. An unknown name lists all.
      coarse: folder with a coarse mask for each image, in the same subfolder and of the same name with any suffix
        (class ids; 255 and the dataset's void ids = unlabelled); default with --split the dataset's own.
      no_overlays: write no overlays, as evaluation servers want it.
      confidence: also write the confidence, 0..255: the largest class probability; of the result trusted of the method
        auxiliary, whose masks are void where it is low, that of the auxiliary net.
      native_ids: masks, coarse ones too, have the dataset's own mask values instead of class ids.
      keep_going: leave out files that cannot be read, list them at the end, and exit with status 1.
      data_dir: prepared datasets, for --split; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      allow_import: import the Python module that the run folder names; only for folders you trust.
    """

    run: RunFolder
    paths: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional, shown("PATH...")] = ()
    out: Annotated[pathlib.Path, tyro.conf.arg(metavar="DIR")]
    split: Name = None
    result: Name = None
    coarse: Folder = None
    prediction: Annotated[PredictionFlags, Flat] = dataclasses.field(default_factory=PredictionFlags)
    no_overlays: Switch = False
    confidence: Switch = False
    native_ids: Switch = False
    keep_going: Switch = False
    data_dir: Folder = None
    allow_import: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Options, argv, "predict", "Writes a mask and an overlay, or maps, for every image.")
    if not options.paths and options.split is None:
        print("scarce-jax predict: no PATH given; give image files, folders of them, or --split", file=sys.stderr)
        return 2
    from scarce_jax import runs

    written = runs.predict(
        options.run,
        options.paths,
        options.out,
        split=options.split,
        result=options.result,
        coarse=options.coarse,
        overlays=not options.no_overlays,
        confidence=options.confidence,
        native_ids=options.native_ids,
        keep_going=options.keep_going,
        data_dir=options.data_dir,
        allow_import=options.allow_import,
        **options.prediction.arguments(),
    )
    images, left_out = plural(written["images"], "image"), written["left_out"]
    if written["images"]:
        pictures = f"{'maps' if written['maps'] else 'masks'}{'' if options.no_overlays else ' and overlays'}"
        print(f"{images}: {pictures} of result {written['result']} are in {written['out']}")
    else:
        print("no image was predicted, and nothing was written")
    if left_out:
        # After the line above, also where both streams are one file.
        sys.stdout.flush()
        print(f"scarce-jax: {plural(len(left_out), 'file')} left out:", *left_out, sep="\n  ", file=sys.stderr)
    return 1 if left_out else 0
