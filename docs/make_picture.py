"""Draws docs/methods.png, README's picture, from a run of each method on the built-in pictures.

    python docs/make_picture.py detailer=RUN auxiliary=RUN transfer=RUN decoupled=RUN three_step=RUN [--data-dir DIR]

A column has an image of the validation split, what the method is given for such images in training, the mask that it
makes, and the true one. The image is the one of median quality: half of the others have a higher mIoU of their own, in
the mean of all runs on its dataset. The background is not coloured.
"""

import argparse
import json
import pathlib

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

import scarce_jax
from scarce_jax.data.images import resize_image
from scarce_jax.data.pictures import overlay
from scarce_jax.data.schema import IGNORE
from scarce_jax.data.source import Reader

SIDE, GAP, TOP, LEFT = 200, 8, 30, 86
ROWS = ("image", "given", "made", "truth")
BACKGROUND = 0
FONT = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 19)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="METHOD=RUN")
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).with_name("methods.png"))
    options = parser.parse_args()
    runs = dict(run.split("=", 1) for run in options.runs)
    datasets = {
        name: json.loads(pathlib.Path(run, "config.json").read_text())["config"]["dataset"]
        for name, run in runs.items()
    }
    predictors = {name: scarce_jax.load(run) for name, run in runs.items()}
    readers = {dataset: Reader(dataset, "val", options.data_dir) for dataset in datasets.values()}
    chosen = {
        dataset: median([predictors[name] for name in runs if datasets[name] == dataset], reader)
        for dataset, reader in readers.items()
    }
    columns = {}
    for name, predictor in predictors.items():
        example = readers[datasets[name]].read(chosen[datasets[name]])
        image = example["image"]
        masks = {"made": made(predictor, example), "truth": example["fine"]}
        if predictor.needs_coarse:
            masks["given"] = example["coarse"]
        elif name == "auxiliary":
            masks["given"] = scarce_jax.load(runs[name], "trusted").predict(image)
        tiles = {"image": image} | {row: coloured(image, mask, predictor.palette) for row, mask in masks.items()}
        if "given" not in tiles:
            names = [predictor.classes[k] for k in np.flatnonzero(example["tags"]) if k != BACKGROUND]
            tiles["given"] = words(["image tags:", *names])
        columns[name] = tiles
    draw(columns).save(options.out, optimize=True)


def made(predictor, example) -> np.ndarray:
    return predictor.predict(example["image"], example["coarse"] if predictor.needs_coarse else None)


def median(predictors, reader) -> int:
    """The position of the image whose own mIoU, in the mean of the predictors, is the median of the split."""
    quality = [
        np.mean([own_miou(made(predictor, example), example["fine"]) for predictor in predictors])
        for example in map(reader.read, range(len(reader)))
    ]
    return int(np.argsort(quality)[len(quality) // 2])


def own_miou(mask: np.ndarray, truth: np.ndarray) -> float:
    known = truth != IGNORE
    return np.mean(
        [
            ((mask == k) & (truth == k)).sum() / (((mask == k) | (truth == k)) & known).sum()
            for k in np.unique(truth[known])
        ]
    )


def coloured(image: np.ndarray, mask: np.ndarray, palette) -> np.ndarray:
    # The background stays as it is, so that what the masks say of the objects is what one sees.
    return overlay(image, np.where(mask == BACKGROUND, IGNORE, mask).astype(np.uint8), palette, 0.65)


def words(lines: list[str]) -> np.ndarray:
    tile = Image.new("RGB", (SIDE, SIDE), (238, 238, 238))
    pen = ImageDraw.Draw(tile)
    for number, line in enumerate(lines):
        pen.text((14, 14 + 27 * number), line, (40, 40, 40), FONT)
    return np.asarray(tile)


def draw(columns: dict[str, dict[str, np.ndarray]]) -> Image.Image:
    """The columns side by side, with the names of methods above and of rows at the left."""
    size = LEFT + len(columns) * (SIDE + GAP) - GAP, TOP + len(ROWS) * (SIDE + GAP) - GAP
    picture = Image.new("RGB", size, (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    for x, (name, tiles) in enumerate(columns.items()):
        left = LEFT + x * (SIDE + GAP)
        pen.text((left + SIDE / 2, TOP / 2 - 2), name, (0, 0, 0), FONT, anchor="mm")
        for y, row in enumerate(ROWS):
            picture.paste(Image.fromarray(resize_image(tiles[row], (SIDE, SIDE))), (left, TOP + y * (SIDE + GAP)))
    for y, row in enumerate(ROWS):
        pen.text((LEFT - 10, TOP + y * (SIDE + GAP) + SIDE / 2), row, (0, 0, 0), FONT, anchor="rm")
    return picture


if __name__ == "__main__":
    main()
