"""Draws docs/detailer_scenes.png from a run of configs/detailer_scenes.py: python docs/make_picture.py RUN

One row per image of the validation split: photograph, coarse mask (what the detailer is given), its prediction, truth.
"""

import sys

import numpy as np

import scarce_jax
from scarce_jax.data.images import resize_image, write_png
from scarce_jax.data.pictures import overlay
from scarce_jax.data.source import Reader

ROWS, SIDE, GAP = (3, 12, 28, 57), 224, 6

predictor = scarce_jax.load(sys.argv[1])
reader = Reader("scenes", "val", None)
lines = []
for number in ROWS:
    example = reader.read(reader.index[f"val_{number:04d}"])
    image, coarse = example["image"], example["coarse"]
    masks = (coarse, predictor.predict(image, coarse), example["fine"])
    # The background stays as it is, so that what the masks say of the objects is what one sees.
    shown = [overlay(image, np.where(mask == 0, 255, mask).astype(np.uint8), predictor.palette, 0.65) for mask in masks]
    tiles = [resize_image(tile, (SIDE, SIDE)) for tile in (image, *shown)]
    lines.append(np.concatenate([np.pad(t, ((0, 0), (0, GAP), (0, 0)), constant_values=255) for t in tiles], 1))
picture = np.concatenate([np.pad(line, ((0, GAP), (0, 0), (0, 0)), constant_values=255) for line in lines])
write_png("docs/detailer_scenes.png", picture[:-GAP, :-GAP])
