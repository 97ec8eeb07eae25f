"""Painting for `scenes`: noise, textures, rasterised silhouettes, and shaded objects.

Colours are float32 RGB in 0..1, images float32 [H, W, 3], opacities uint8 [H, W] in 0..255.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np

SUBPIXEL = 4
"""Fractional bits of coordinates for OpenCV."""

TEXTURES = ("plain", "mottled", "striped", "spotted", "checked")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of a silhouette in object units: a polygon where `widths` is None, else a tube along `points`.

    Attributes:
      points: float [N, 2], (x, y). The object is about one unit long and centred on the origin.
      widths: float [N], diameters of the tube, or None.
      cut: whether the piece is removed from the parts before it.
    """

    points: np.ndarray
    widths: np.ndarray | None = None
    cut: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Silhouette:
    """An object in its own units: the outline as `parts`, and `eyes` as (x, y, diameter)."""

    parts: Sequence[Part]
    eyes: Sequence[tuple[float, float, float]] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skin:
    """The surface of an object: a texture in two colours, its period in pixels and its direction in radians."""

    texture: str
    colours: np.ndarray  # [2, 3]
    period: float
    angle: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pose:
    """The place of an object.

    Attributes:
      matrix: [2, 3], maps object units to pixels (x, y).
      scale: pixels per object unit.
      depth: 0 (near) to 1 (far).
    """

    matrix: np.ndarray
    scale: float
    depth: float


def pose(x: float, y: float, size: float, angle: float = 0.0, flip: bool = False, depth: float = 0.0) -> Pose:
    """Makes a pose: centre (x, y) in pixels, size in pixels per unit, angle in radians; `flip` mirrors first."""
    c, s = math.cos(angle) * size, math.sin(angle) * size
    mirror = -1.0 if flip else 1.0
    return Pose(matrix=np.array([[c * mirror, -s, x], [s * mirror, c, y]]), scale=size, depth=depth)


def noise(rng: np.random.Generator, size: int, cells: float, octaves: int = 1) -> np.ndarray:
    """Draws smooth noise, float32 [size, size], about -1..1, with about `cells` bumps per side."""
    # Low octaves are summed at a quarter of the size, because enlarging the sum costs less than each octave.
    small = np.zeros((size // 4, size // 4), np.float32)
    fast: list[np.ndarray] = []
    for octave in range(octaves):
        n = int(np.ceil(cells * 2**octave)) + 3
        grid = (rng.random((n, n), np.float32) * 2 - 1) / 2**octave
        if n <= size // 10:
            small += cv2.resize(grid, small.shape, interpolation=cv2.INTER_CUBIC)
        else:
            fast.append(cv2.resize(grid, (size, size), interpolation=cv2.INTER_LINEAR))
    return sum(fast, cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR))


def soft_step(x: np.ndarray, sharpness: float) -> np.ndarray:
    """A sigmoid: 0 for x well below zero, 1 well above."""
    return 0.5 + 0.5 * np.tanh(sharpness * x)


def texture(rng: np.random.Generator, kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Share of the second colour, 0..1, at surface coordinates `u`, `v` in periods; of their shape."""
    if kind == "plain":
        return 0.2 * (np.sin(u * 0.7 + rng.random() * 6) * np.sin(v * 0.7 + rng.random() * 6)) + 0.2
    if kind == "mottled":
        a, b, c, d = rng.random(4) * 2 * np.pi
        waves = np.sin(2.1 * u + a + 1.7 * np.sin(1.3 * v + b)) + np.sin(2.7 * v + c + 1.9 * np.sin(1.7 * u + d))
        return soft_step(waves - 0.3, 1.5)
    wobble = 0.12 * rng.random()
    u = u + wobble * np.sin(1.9 * v + rng.random() * 6)
    v = v + wobble * np.sin(2.3 * u + rng.random() * 6)
    if kind == "striped":
        return soft_step(np.sin(2 * np.pi * u) + 0.6 * (rng.random() - 0.5), 2.5)
    if kind == "checked":
        return soft_step(np.sin(np.pi * u) * np.sin(np.pi * v), 5.0)
    if kind == "spotted":
        row = np.floor(v)
        du = u + 0.5 * (row % 2) - 0.5
        du, dv = du - np.floor(du) - 0.5, v - row - 0.5
        return soft_step(0.26 + 0.08 * rng.random() - np.hypot(du, dv), 14.0)
    raise ValueError(f"texture {kind!r} is none of {', '.join(TEXTURES)}")


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.rint(points * 2**SUBPIXEL).astype(np.int32)


def _tube(canvas: np.ndarray, points: np.ndarray, widths: np.ndarray) -> None:
    step = np.empty_like(points)
    step[1:-1], step[0], step[-1] = points[2:] - points[:-2], points[1] - points[0], points[-1] - points[-2]
    length = np.sqrt((step * step).sum(1, keepdims=True)) + 1e-6
    half = step[:, ::-1] * ((-0.5, 0.5) / length) * widths[:, None]
    left, right = _fixed(points + half), _fixed(points - half)
    for quad in np.stack([left[:-1], left[1:], right[1:], right[:-1]], 1):
        cv2.fillConvexPoly(canvas, quad, 255, cv2.LINE_AA, SUBPIXEL)
    radii = np.rint(widths / 2 * 2**SUBPIXEL).astype(int)
    # Discs round the ends, and fill the notches at the joints of wide tubes.
    discs = widths > 5
    discs[0] = discs[-1] = True
    for centre, radius in zip(_fixed(points[discs]).tolist(), radii[discs].tolist(), strict=True):
        cv2.circle(canvas, centre, radius, 255, -1, cv2.LINE_AA, SUBPIXEL)


def rasterise(silhouette: Silhouette, at: Pose, size: int) -> np.ndarray:
    """Rasterises a silhouette: anti-aliased opacity, uint8 [size, size]."""
    canvas = np.zeros((size, size), np.uint8)
    for part in silhouette.parts:
        points = part.points @ at.matrix[:, :2].T + at.matrix[:, 2]
        piece = np.zeros_like(canvas) if part.cut else canvas
        if part.widths is None:
            cv2.fillPoly(piece, [_fixed(points)], 255, cv2.LINE_AA, SUBPIXEL)
        else:
            _tube(piece, points, np.maximum(part.widths * at.scale, 1.2))
        if part.cut:
            np.minimum(canvas, 255 - piece, out=canvas)
    return canvas


@dataclasses.dataclass(frozen=True, kw_only=True)
class Light:
    """The light of an image.

    Attributes:
      direction: unit vector, z towards the viewer.
      ambient: share of ambient light, 0..1.
      water: colour of the water, [3].
      haze: share of the water's colour in far objects, 0..1.
      shadow: darkness of shadows, 0..1.
    """

    direction: tuple[float, float, float]
    ambient: float
    water: np.ndarray
    haze: float
    shadow: float


def paint(
    image: np.ndarray, opacity: np.ndarray, silhouette: Silhouette, at: Pose, skin: Skin, light: Light,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Paints an object onto `image` in place: shadow, textured and rounded surface, haze by depth, eyes."""
    x, y, w, h = cv2.boundingRect(opacity)
    if not w:
        return
    size, pad = image.shape[0], 8
    x0, y0, x1, y1 = max(x - pad, 0), max(y - pad, 0), min(x + w + pad, size), min(y + h + pad, size)
    view, alpha = image[y0:y1, x0:x1], opacity[y0:y1, x0:x1]
    canvas = image.reshape(-1, 3)

    shift = np.float32([[1, 0, -4 * light.direction[0]], [0, 1, 5]])
    fall = cv2.warpAffine(cv2.blur(cv2.blur(alpha, (5, 5)), (5, 5)), shift, alpha.shape[::-1])
    shadow = 1 - fall * np.float32(light.shadow / 255)
    cv2.multiply(view, cv2.merge([shadow] * 3), dst=view)

    where = np.flatnonzero(opacity)  # Only the N pixels of the silhouette, since thin objects fill little of their box.
    rows, columns = np.divmod(where, size)
    c, s = (f(skin.angle) * at.scale / skin.period for f in (math.cos, math.sin))
    to_skin = (np.array([[c, s], [-s, c]]) @ np.linalg.inv(at.matrix[:, :2])).astype(np.float32)
    pixels = np.stack([columns - at.matrix[0, 2], rows - at.matrix[1, 2]]).astype(np.float32)
    share = texture(rng, skin.texture, *(to_skin @ pixels))[:, None]
    colour = skin.colours[0] + (skin.colours[1] - skin.colours[0]) * share  # [N, 3]

    # The surface is a cushion over the silhouette, shaded by its slope.
    height = cv2.distanceTransform(cv2.compare(alpha, 127, cv2.CMP_GT), cv2.DIST_L2, 3)
    reach = max(float(height.max()), 1.0)
    height = cv2.GaussianBlur(cv2.sqrt(height * reach), (0, 0), 0.7 + 0.06 * reach)
    inside = (rows - y0) * alpha.shape[1] + columns - x0
    gx, gy = (cv2.Scharr(height, cv2.CV_32F, *axis, scale=1 / 32).ravel()[inside] for axis in ((1, 0), (0, 1)))
    lx, ly, lz = light.direction
    facing = (lz - gx * lx - gy * ly) / np.sqrt(gx * gx + gy * gy + 1)
    haze = light.haze * at.depth
    colour *= ((1 - haze) * (light.ambient + (1 - light.ambient) * np.maximum(facing, 0)))[:, None]
    colour += ((1 - haze) * 0.25 * np.maximum(facing - 0.85, 0))[:, None] + light.water * haze
    _blend(canvas, where, colour, opacity.ravel()[where])

    for ex, ey, diameter in silhouette.eyes:
        centre = _fixed(at.matrix[:, :2] @ (ex, ey) + at.matrix[:, 2]).tolist()
        radius = max(diameter * at.scale / 2, 1.0)
        for r, tone in ((radius, 0.92), (radius * 0.55, 0.05)):
            dot = np.zeros_like(opacity)
            cv2.circle(dot, centre, int(r * 2**SUBPIXEL), 255, -1, cv2.LINE_AA, SUBPIXEL)
            where = np.flatnonzero(np.minimum(dot, opacity))
            _blend(canvas, where, np.float32(tone * (1 - haze)) + light.water * haze, dot.ravel()[where])


def _blend(canvas: np.ndarray, where: np.ndarray, colour: np.ndarray, opacity: np.ndarray) -> None:
    """Blends `colour` [N, 3] or [3] into the pixels `where` [N] of `canvas` [H * W, 3]; opacity uint8 [N]."""
    below = canvas[where]
    canvas[where] = below + (colour - below) * (opacity * np.float32(1 / 255))[:, None]
