"""Composing a picture of `scenes` and its mask: sea, clutter, creatures, light and camera."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable

import cv2
import numpy as np

from scarce_jax.data.builders.scenes import shapes
from scarce_jax.data.builders.scenes.draw import (
    TEXTURES,
    Light,
    Pose,
    Silhouette,
    Skin,
    noise,
    paint,
    pose,
    rasterise,
    soft_step,
)  # fmt: skip
from scarce_jax.data.schema import IGNORE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A class of objects.

    Attributes:
      draw: draws a silhouette.
      often: relative frequency.
      size: smallest and largest length, as a share of the image's side.
      texture: the texture that identifies the class; None if it may have any.
      home: "water": anywhere; "ground": below the horizon; "rooted": standing on the ground.
      tilt: largest rotation, in radians.
    """

    draw: Callable[[np.random.Generator], Silhouette]
    often: float
    size: tuple[float, float]
    texture: str | None = None
    home: str = "water"
    tilt: float = 0.5


KINDS: dict[str, Kind] = {
    "striped fish": Kind(draw=shapes.fish, often=16, size=(0.24, 0.58), texture="striped"),
    "spotted fish": Kind(draw=shapes.fish, often=13, size=(0.24, 0.58), texture="spotted"),
    "checked fish": Kind(draw=shapes.fish, often=9, size=(0.24, 0.58), texture="checked"),
    "starfish": Kind(draw=shapes.starfish, often=11, size=(0.22, 0.46), home="ground", tilt=3.2),
    "octopus": Kind(draw=shapes.octopus, often=9, size=(0.36, 0.64), tilt=0.8),
    "crab": Kind(draw=shapes.crab, often=9, size=(0.28, 0.52), home="ground", tilt=0.4),
    "jellyfish": Kind(draw=shapes.jellyfish, often=9, size=(0.3, 0.58), tilt=0.7),
    "eel": Kind(draw=shapes.eel, often=7, size=(0.5, 0.9), tilt=3.2),
    "kelp": Kind(draw=shapes.kelp, often=9, size=(0.45, 0.95), home="rooted", tilt=0.2),
    "coral": Kind(draw=shapes.coral, often=7, size=(0.35, 0.7), home="rooted", tilt=0.3),
    "shell": Kind(draw=shapes.shell, often=6, size=(0.11, 0.21), home="ground", tilt=3.2),
}
"""Class name -> kind. The class index is the position + 1; index 0 is the background."""

CRUMB = 24
"""Objects with fewer visible pixels are void, since they cannot be recognised."""


def _palette(rng: np.random.Generator, saturation: tuple[float, float] = (0.2, 0.8)) -> np.ndarray:
    """Draws six colours [6, 3] for creatures, ground and clutter of a picture, so that colour tells little."""
    hue = rng.random(6) * 180
    return _colours(hue, rng.uniform(*saturation, 6), rng.uniform(0.35, 0.95, 6))


def _own_palette(rng: np.random.Generator, which: int) -> np.ndarray:
    """Draws two colours [2, 3] near the hue of a kind; the hues of all kinds are evenly spaced."""
    hue = (which + 0.2 * rng.standard_normal(2)) * 180 / len(KINDS) % 180
    return _colours(hue, rng.uniform(0.6, 1, 2), rng.uniform(0.5, 1, 2))


def _colours(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Converts OpenCV hues (0..180), saturations and values (0..1) to RGB [N, 3]."""
    hsv = np.stack([hue, saturation * 255, value * 255], -1).astype(np.uint8)[None]
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0].astype(np.float32) / 255


def _skin(rng: np.random.Generator, palette: np.ndarray, kind: str, unit: float) -> Skin:
    """Draws a texture in two colours of the palette, whose lightness is made to differ visibly."""
    first, second = palette[rng.integers(len(palette), size=2)]
    first = first + rng.standard_normal(3, np.float32) * np.float32(0.06)
    second = 0.7 * second + 0.3 * first
    gap = float(rng.uniform(0.2, 0.45)) * (1 if rng.random() < 0.5 else -1)
    if not 0.08 < first.mean() + gap < 0.95:
        gap = -gap
    second += first.mean() + gap - second.mean()
    colours = np.clip(np.stack([first, second]), 0.03, 1)
    angle = rng.uniform(0, np.pi) if kind in ("mottled", "checked") else rng.normal(0, 0.2)
    if kind == "striped" and rng.random() < 0.5:
        angle += np.pi / 2
    return Skin(texture=kind, colours=colours, period=min(max(unit * rng.uniform(0.1, 0.17), 5), 14), angle=angle)


def _sea(rng: np.random.Generator, size: int, palette: np.ndarray, light: Light) -> tuple[np.ndarray, float]:
    """Paints the empty picture [size, size, 3]; also returns the height of the horizon (0 top, 1 bottom)."""
    x = np.arange(size, dtype=np.float32) / size
    y = x[:, None]
    slant = x + float(rng.uniform(-0.6, 0.6)) * y
    beams = soft_step(np.sin(slant * float(rng.uniform(12, 30)) + 4 * noise(rng, size, 2)), 1.2) * (1 - y)
    beams *= float(0.16 * rng.random())
    depths = 1.25 - 0.7 * y + 0.1 * noise(rng, size, 3, 2)

    style = rng.choice(["sand", "pebbles", "rock", "open"], p=[0.35, 0.25, 0.25, 0.15])
    low, high = {"sand": (0.2, 0.7), "pebbles": (-0.2, 0.6), "rock": (-0.5, -0.5), "open": (1.5, 1.5)}[str(style)]
    horizon = float(rng.uniform(low, high))
    tone = palette[rng.integers(len(palette))] * 0.6 + np.float32([0.45, 0.4, 0.32]) * 0.4
    other = palette[rng.integers(len(palette))] * 0.5 + tone * 0.5
    if style == "sand":
        distance = np.maximum(y - horizon, 0) + 0.2
        ripple = np.sin(float(rng.uniform(3, 8)) / distance + 5 * noise(rng, size, 3, 2) + float(rng.uniform(0, 6)))
        relief = 0.5 + 0.25 * ripple + 0.3 * noise(rng, size, 5, 4)
    elif style == "pebbles":
        relief = _pebbles(rng, size)
    else:
        cracks = np.abs(noise(rng, size, rng.uniform(3, 7), 4))
        relief = np.sqrt(np.clip(1.6 * cracks, 0, 1)) + 0.15 * noise(rng, size, 40)
    mix = np.clip(relief, 0, 1)
    edge = soft_step((y - horizon) + 0.1 * noise(rng, size, 4, 3), 22)
    far = 0.3 if style == "rock" else np.clip(1 - (y - horizon) * 1.6, 0, 1)
    clear = edge * (1 - light.haze * far)
    grain = clear * (1 + 0.12 * noise(rng, size, 60))
    shares = cv2.merge([grain * mix, grain * (1 - mix), edge - clear + depths * (1 - edge), beams * (1 - edge)])
    colours = np.stack([tone, other * 0.55, light.water, np.ones(3, np.float32)], 1)
    return cv2.transform(shares, colours), horizon


def _pebbles(rng: np.random.Generator, size: int) -> np.ndarray:
    relief = np.full((size, size), 0.15, np.float32)
    count = 260
    centres, tones = rng.random((count, 2)) * size, rng.uniform(0.3, 1, count)
    axes = np.abs(rng.normal(0, 5, (count, 2))) + 3
    for (cx, cy), (a, b), tone, turn in zip(centres, axes, tones, rng.random(count) * 180, strict=True):
        box = ((float(cx), float(cy)), (float(2 * a), float(2 * b)), float(turn))
        cv2.ellipse(relief, box, float(tone * 0.6), -1)
        cv2.ellipse(relief, ((cx - 1, cy - 1), (1.3 * a, 1.3 * b), float(turn)), float(tone), -1)
    return cv2.GaussianBlur(relief, (0, 0), 0.8)


def _clutter(
    rng: np.random.Generator, image: np.ndarray, palette: np.ndarray, light: Light, horizon: float, count: int,
    near: bool,
) -> np.ndarray:  # fmt: skip
    """Paints `count` background objects; returns their opacity, uint8 [size, size], the maximum over them."""
    size = image.shape[0]
    covered = np.zeros((size, size), np.uint8)
    draws = (shapes.grass, shapes.twig) if near else (shapes.boulder, shapes.boulder, shapes.grass, shapes.twig)
    for depth in np.sort(rng.uniform(0.1, 0.9, count))[::-1]:
        silhouette = draws[rng.integers(len(draws))](rng)
        length = size * rng.uniform(0.12, 0.45)
        upright = rng.random() < 0.7
        x, y = rng.uniform(0, 1), rng.uniform(0 if near else float(np.clip(horizon, 0, 0.75)), 1)
        angle = rng.normal(0, 0.25) if upright else rng.uniform(0, 6)
        at = pose(x * size, y * size, length, angle, depth=0.0 if near else float(depth))
        opacity = rasterise(silhouette, at, size)
        skin = _skin(rng, palette, str(rng.choice(TEXTURES, p=[0.4, 0.3, 0.1, 0.1, 0.1])), length)
        paint(image, opacity, silhouette, at, skin, light, rng)
        np.maximum(covered, opacity, out=covered)
    return covered


def _place(rng: np.random.Generator, kind: Kind, size: int, horizon: float, depth: float) -> Pose:
    length = size * rng.uniform(*kind.size) * (1.1 - 0.3 * depth)
    x, y = rng.uniform(0.05, 0.95), rng.uniform(0.08, 0.92)
    if kind.home == "ground":
        y = rng.uniform(float(np.clip(horizon + 0.1, 0.08, 0.7)), 0.92)
    elif kind.home == "rooted":
        y = rng.uniform(float(np.clip(horizon + 0.2, 0.6, 0.9)), 1.05) - 0.5 * length / size
    angle = rng.uniform(-kind.tilt, kind.tilt)
    return pose(x * size, y * size, length, angle, bool(rng.random() < 0.5), depth)


def _creatures(
    rng: np.random.Generator, image: np.ndarray, palette: np.ndarray, light: Light, horizon: float, coloured: float
) -> tuple[np.ndarray, list[int]]:
    """Paints two to six creatures, from far to near; a share `coloured` of them in colours of their kind.

    Returns:
      uint8 [size, size], the number of the visible creature (0 for none); and the class of each number.
    """
    size = image.shape[0]
    names = list(KINDS)
    often = np.array([k.often for k in KINDS.values()])
    count = int(rng.choice([2, 3, 4, 5, 6], p=[0.14, 0.24, 0.28, 0.2, 0.14]))
    chosen = rng.choice(len(names), count, p=often / often.sum())
    owner = np.zeros((size, size), np.uint8)
    labels, areas, seen = [0], np.array([size * size]), np.array([size * size])
    for which, depth in zip(chosen, np.sort(rng.uniform(0, 1, count))[::-1], strict=True):
        kind = KINDS[names[which]]
        silhouette = kind.draw(rng)
        for _ in range(12):
            at = _place(rng, kind, size, horizon, float(depth))
            opacity = rasterise(silhouette, at, size)
            solid = opacity > 127
            left = seen - np.bincount(owner[solid], minlength=len(seen))
            enough = np.count_nonzero(solid) >= max(0.05 * at.scale**2, CRUMB)
            if enough and np.all(left[1:] >= 0.45 * areas[1:]):
                break
        else:
            continue
        texture = kind.texture or str(rng.choice(TEXTURES, p=[0.34, 0.34, 0.12, 0.1, 0.1]))
        own = coloured and rng.random() < coloured
        colours = _own_palette(rng, int(which)) if own else palette
        paint(image, opacity, silhouette, at, _skin(rng, colours, texture, at.scale), light, rng)
        areas = np.append(areas, np.count_nonzero(solid))
        seen = np.append(left, areas[-1])
        labels.append(int(which) + 1)
        owner[solid] = len(labels) - 1
    return owner, labels


def _camera(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Adds caustic light, exposure, colour cast, vignette, particles, blur and noise; converts to uint8."""
    size = image.shape[0]
    net = np.maximum(1 - np.abs(noise(rng, size, rng.uniform(7, 12), 2)), 0) ** 4
    x = np.linspace(-1, 1, size, dtype=np.float32)
    falloff = 1 - float(rng.uniform(0, 0.15)) * (x * x + (x * x)[:, None])
    gain = (1 + float(rng.uniform(0, 0.35)) * (net - 0.3)) * falloff * float(rng.uniform(0.85, 1.3))
    image *= cv2.merge([gain * cast for cast in rng.uniform(0.9, 1.1, 3).tolist()])
    gamma = float(rng.uniform(0.7, 1.2))
    specks = np.zeros((size, size), np.uint8)
    for px, py in (rng.random((int(rng.integers(0, 25)), 2)) * size * 16).astype(int).tolist():
        cv2.circle(specks, (px, py), int(rng.integers(6, 22)), 255, -1, cv2.LINE_AA, 4)
    image[specks > 0] += specks[specks > 0, None] * np.float32(rng.uniform(0.1, 0.35) / 255)
    image = cv2.pow(np.clip(image, 0, 1, out=image), gamma)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2))
    grain = rng.standard_normal((size, size), np.float32) * np.float32(rng.uniform(0.005, 0.022))
    image += cv2.merge([grain] * 3)
    return cv2.convertScaleAbs(np.maximum(image, 0, out=image), alpha=255)


def draw_scene(
    split: str, index: int, *, version: str, size: int = 256, coloured: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a picture, which depends on the arguments alone.

    Args:
      split: the example's split.
      index: number of the example in its split.
      version: the dataset's version.
      size: side of the picture.
      coloured: probability that a creature has colours of its kind. Above 0, ground and clutter are pale.

    Returns:
      Image uint8 [size, size, 3] RGB, and mask uint8 [size, size] (0 = background, 255 = void).
    """
    rng = np.random.default_rng([zlib.crc32(f"scenes/{version}/{split}".encode()), index])
    palette = _palette(rng, (0.1, 0.4)) if coloured else _palette(rng)
    direction = np.array([rng.uniform(-0.7, 0.7), -0.6, 0.75])
    light = Light(
        direction=tuple((direction / np.linalg.norm(direction)).tolist()),
        ambient=rng.uniform(0.35, 0.65),
        water=np.float32([rng.uniform(0.05, 0.3), rng.uniform(0.3, 0.55), rng.uniform(0.4, 0.7)]),
        haze=rng.uniform(0.15, 0.6),
        shadow=rng.uniform(0.15, 0.5),
    )
    image, horizon = _sea(rng, size, palette, light)
    _clutter(rng, image, palette, light, horizon, int(rng.integers(3, 9)), near=False)
    owner, labels = _creatures(rng, image, palette, light, horizon, coloured)
    if rng.random() < 0.3:
        hiding = _clutter(rng, image, palette, light, horizon, int(rng.integers(1, 3)), near=True)
        owner[hiding > 127] = 0
    seen = np.bincount(owner.ravel(), minlength=len(labels))
    mask = np.where(seen < CRUMB, IGNORE, labels).astype(np.uint8)[owner]
    return _camera(rng, image), mask
