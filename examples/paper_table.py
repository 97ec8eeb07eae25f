"""A table as papers have it, by one sweep: detailed masks by the number of finely labelled images, mean and spread.

The dataset `scenes` is drawn by a program, with coarse masks for all its images. `coarse` is the coarse mask as it is,
`detailer` what is made of it and the image, after Katsman et al., "Semantic Segmentation with Scarce Data". The same
command goes on where a sweep stopped.

Command: python examples/paper_table.py --workdir table
"""

import argparse
import pathlib

from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.detailer import Config, DetailerStage
from scarce_jax.models.detailer import DetailerConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer
from scarce_jax.sweep import sweep

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--workdir", type=pathlib.Path, required=True)
parser.add_argument("--data-dir", type=pathlib.Path, help="prepared datasets; default ~/tensorflow_datasets")
parser.add_argument("--fine", type=int, nargs="+", default=[10, 25, 50], help="numbers of images with fine masks")
parser.add_argument("--seeds", type=int, default=2)
parser.add_argument("--steps", type=int, default=150)
parser.add_argument("--size", type=int, default=128, help="side of the images that are trained on")
args = parser.parse_args()

size = (args.size, args.size)
shared = dict(
    steps=args.steps,
    batch=8,
    size=size,
    augment=Augment(crop=size, scale=(0.75, 1.5)),
    optim=Optimizer(kind="adam", lr=2e-3, weight_decay=1e-4),
)
backbone = ResNetConfig(depth=18, width=16)
config = Config(
    dataset="scenes",
    budget=Budget(fine=50),
    detailer=DetailerStage(net=DetailerConfig(embedding=64, backbone=backbone), **shared),
    classifier=SegmenterStage(**shared),  # Only with compare=True, which also trains a net without coarse masks.
)
over = {"budget.fine": args.fine, "seed": list(range(args.seeds))}
table = sweep(config, over, args.workdir, data_dir=args.data_dir)

names = list(table["rows"][0]["results"])
print("| fine masks |", " | ".join(names), "|")
print("|---" * (1 + len(names)) + "|")
for row in table["rows"]:
    figures = [row["results"][name]["miou"] for name in names]
    cells = [f"{figure['mean']:.3f} ± {figure['half_range']:.3f}" for figure in figures]
    print(f"| {row['values']['budget.fine']} |", " | ".join(cells), "|")
print(f"\nmIoU, mean and half the range of {args.seeds} seeds; {args.workdir / 'curve.png'} shows it")
