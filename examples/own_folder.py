"""A segmenter from twenty masks of one's own: lay out a folder, check, prepare, train, and predict other photographs.

The photographs are drawn here, so that the script runs as it is: put your own in their place.

Command: python examples/own_folder.py --workdir own
"""

import argparse
import json
import pathlib

import scarce_jax
from scarce_jax import doctor
from scarce_jax.data.builders import prepare
from scarce_jax.data.builders.formats import Options
from scarce_jax.data.builders.scenes.compose import draw_scene
from scarce_jax.data.datasets import SCENES
from scarce_jax.data.images import write_png
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.supervised import Config
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--workdir", type=pathlib.Path, required=True)
parser.add_argument("--masks", type=int, default=20)
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--size", type=int, default=128, help="side of the images that are trained on")
args = parser.parse_args()

# PHOTOS/images/x.png and PHOTOS/masks/x.png, where class k of classes.json has the id k and 255 is void.
photos, more = args.workdir / "photos", args.workdir / "more"
for folder in (photos / "images", photos / "masks", more):
    folder.mkdir(parents=True, exist_ok=True)
for k in range(args.masks + 4):
    image, mask = draw_scene("train", k, version="1.0.0", size=128, coloured=0.95)
    write_png((photos / "images" if k < args.masks else more) / f"{k}.png", image)
    if k < args.masks:
        write_png(photos / f"masks/{k}.png", mask)
(photos / "classes.json").write_text(json.dumps({"classes": SCENES.classes, "background": "background"}))

options = Options(val="0.2")  # A fifth of the images with masks is held out to measure by.
print(doctor.check_source(photos, options))
print(prepare("folder/own", args.workdir / "data", photos, options=options))

size = (args.size, args.size)
stage = SegmenterStage(
    steps=args.steps,
    batch=8,
    size=size,
    augment=Augment(crop=size, scale=(0.75, 1.5)),
    net=PSPNetConfig(backbone=ResNetConfig(depth=18, width=16)),
    optim=Optimizer(kind="adam", lr=2e-3, weight_decay=1e-4),
)
run = args.workdir / "run"
summary = scarce_jax.train(Config(dataset="folder/own", segmenter=stage), run, data_dir=args.workdir / "data")
print(f"mIoU {summary['results']['segmenter']['miou']:.3f} on the images held out")
print(f"overlays are in {scarce_jax.predict(run, more, args.workdir / 'overlays')['out']}")
