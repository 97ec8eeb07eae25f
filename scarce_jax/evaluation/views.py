"""Predicting an image in several views: mirrored, at several scales, in windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from scarce_jax import memory
from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError
from scarce_jax.evaluation.native import SIZES, native_canvas
from scarce_jax.recipe import Predict, Views

LARGE = 16_000_000
"""Pixels that pass through a net at once, from which it is compared with the free memory before it runs."""

STRIDE = 2 / 3
"""Step from one window to the next, as a share of the window; the value of PSPNet's authors."""


def view_rows(
    views: Views,
    size: tuple[int, int],
    canvas: tuple[int, int] | None,
    sized: Callable[[tuple[int, int], tuple[int, int]], dict],
) -> dict[str, np.ndarray]:
    """Makes the part of a row that is predicted from: for each scale k the keys of `sized(size, canvas)` as "k/<key>".

    Args:
      views: give the scales.
      size: (height, width) of the image at scale 1.
      canvas: (height, width) of the canvas at scale 1, of all images; None if it depends on the image.
      sized: resizes the image and its masks, and pads them to a canvas.
    """
    row = {}
    for k, scale in enumerate(views.scales):
        target = _scaled(size, scale)
        scaled = sized(target, native_canvas(*target) if canvas is None else _scaled(canvas, scale))
        row |= {f"{k}/{key}": value for key, value in scaled.items()}
    return row


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def scale_rows(rows: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Selects the arrays of scale k from rows of `view_rows`, without the prefix."""
    return {key.removeprefix(f"{k}/"): value for key, value in rows.items() if key.startswith(f"{k}/")}


class Scorer:
    """Scores a batch of rows in all views: a compiled `(nets, rows, consts) -> scores`.

    The scores are a tuple of float [B, h, w, K], one per scale: class probabilities, or logits if the views are plain
    or average logits. Every device scores its own rows.

    Raises InputError, before the net runs, if it would take more memory than there is.

    Args:
      predict: `(nets, batch, consts) -> logits [B, h, w, K]`.
      transform: `(row, key, consts) -> row`, applied to each row first.
      views: the views to predict.
      mesh: a mesh of one axis.
      interpolation: as in `Source`; it makes probabilities of the logits of plain views.
    """

    def __init__(
        self, predict: Predict, transform: Callable, views: Views, mesh: Mesh, interpolation: str | None = None
    ):
        self._predict, self._transform, self.views = predict, transform, views
        self._plain = views.plain and interpolation is None
        self._checked: dict[tuple, Any] = {}
        axis = mesh.axis_names[0]
        specs = (P(), P(axis), P())
        self.compiled = jax.jit(jax.shard_map(self._score, mesh=mesh, in_specs=specs, out_specs=P(axis)))

    def __call__(self, nets: Any, rows: Mapping[str, jax.Array], consts: Any) -> tuple[jax.Array, ...]:
        # The other arrays have the shape of the native canvas, and would cause a compilation for each canvas.
        rows = {key: value for key, value in rows.items() if "/" in key}
        shapes = tuple(rows[f"{k}/image"].shape for k in range(len(self.views.scales)))
        if self._pixels(shapes) <= LARGE:
            return self.compiled(nets, rows, consts)
        if shapes not in self._checked:
            self._checked[shapes] = self._within_memory(shapes, self.compiled.lower(nets, rows, consts).compile())
        return self._checked[shapes](nets, rows, consts)

    def _pixels(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """Pixels that pass through the net at once; raises InputError for a window that would be nearly empty."""
        window = self.views.window
        if window is None:
            return max(math.prod(shape[:3]) for shape in shapes)
        # Compiling a net for a needlessly large window takes minutes, before its memory is known.
        largest = [2 * max(512, *sides) for sides in zip(*(shape[1:3] for shape in shapes), strict=True)]
        if window[0] > largest[0] or window[1] > largest[1]:
            raise InputError(
                f"window {window[0]},{window[1]}: nearly empty on images of {shapes[0][1]} x {shapes[0][2]}; expected "
                f"at most {largest[0]},{largest[1]}, or leave it out"
            )
        windows = (len(offsets(height, window[0])) * len(offsets(width, window[1])) for _, height, width, _ in shapes)
        return max(windows) * math.prod(window) * shapes[0][0]

    def _within_memory(self, shapes: Sequence[tuple[int, ...]], compiled: Any) -> Any:
        """Returns a compiled program; raises InputError if it takes more memory than there is."""
        stats = compiled.memory_analysis()
        if stats is not None:
            sizes = ", ".join(f"{height} x {width}" for _, height, width, _ in shapes)
            windows = "" if self.views.window is None else f" in windows of {'x'.join(map(str, self.views.window))}"
            what = f"predicting {shapes[0][0]} images at {sizes}{windows}"
            lower = "lower --batch or --scales, or make the images smaller"
            memory.check(stats.temp_size_in_bytes + stats.output_size_in_bytes, what, lower, jax.local_devices()[0])
        return compiled

    def _score(self, nets: Any, rows: Mapping[str, jax.Array], consts: Any) -> tuple[jax.Array, ...]:
        key = jax.random.key(0)
        by_scale = []
        for k in range(len(self.views.scales)):
            batch = jax.vmap(lambda row: self._transform(row, key, consts))(scale_rows(rows, k))
            if self._plain:
                by_scale.append(self._predict(nets, batch, consts))
                continue
            scores = self._windows(nets, batch, consts)
            if self.views.flip:
                mirrored = {name: mirror(value, batch["width"]) for name, value in batch.items()}
                scores += mirror(self._windows(nets, mirrored, consts), batch["width"])
                scores /= 2
            by_scale.append(scores)
        return tuple(by_scale)

    def _windows(self, nets: Any, batch: Mapping[str, jax.Array], consts: Any) -> jax.Array:
        """Returns what is averaged of one scale, class probabilities or logits, float32 [B, h, w, K]."""

        def predicted(batch: dict) -> jax.Array:
            logits = self._predict(nets, batch, consts).astype(jnp.float32)
            return logits if self.views.average == "logits" else jax.nn.softmax(logits)

        if self.views.window is None:
            return predicted(dict(batch))
        window, canvas = self.views.window, batch["image"].shape[1:3]
        corners = [(top, left) for top in offsets(canvas[0], window[0]) for left in offsets(canvas[1], window[1])]
        # All windows form one batch, because a loop over them would not fill the device.
        cut = [_cut(batch, corner, window) for corner in corners]
        scores = predicted({name: jnp.concatenate([part[name] for part in cut]) for name in cut[0]})
        total = jnp.zeros((len(batch["image"]), *canvas, scores.shape[-1]), jnp.float32)
        count = np.zeros((*canvas, 1), np.float32)
        for part, (top, left) in zip(jnp.split(scores, len(corners)), corners, strict=True):
            place = np.s_[top : top + window[0], left : left + window[1]]
            height, width = count[place].shape[:2]
            total = total.at[:, *place].add(part[:, :height, :width])
            count[place] += 1
        return total / count


def offsets(length: int, window: int) -> list[int]:
    """Returns the starts of windows along one axis; the last window is moved back to end with the image."""
    if length <= window:
        return [0]
    stride = max(1, int(np.ceil(window * STRIDE)))
    return [min(k * stride, length - window) for k in range(-(-(length - window) // stride) + 1)]


def _cut(batch: Mapping[str, jax.Array], corner: tuple[int, int], window: tuple[int, int]) -> dict[str, jax.Array]:
    """Cuts one window from every array of the image's height and width, and fills it beyond the image."""
    canvas = batch["image"].shape[1:3]
    cut = {}
    for name, value in batch.items():
        if value.shape[1:3] == canvas and value.ndim >= 3:
            part = value[:, corner[0] : corner[0] + window[0], corner[1] : corner[1] + window[1]]
            rest = [(0, w - p) for w, p in zip(window, part.shape[1:3], strict=True)]
            fill = IGNORE if value.dtype == jnp.uint8 else 0
            value = jnp.pad(part, [(0, 0), *rest, *[(0, 0)] * (value.ndim - 3)], constant_values=fill)
        elif name in SIZES:
            axis = SIZES.index(name)
            value = jnp.clip(value - corner[axis], 0, window[axis])
        cut[name] = value
    return cut


def mirror(value: jax.Array, width: jax.Array) -> jax.Array:
    """Mirrors [B, h, w, ...] left to right within each row's valid width [B]; returns other arrays unchanged."""
    if value.ndim < 3:
        return value
    column = jnp.arange(value.shape[2])
    index = jnp.where(column < width[:, None], width[:, None] - 1 - column, column)
    return jax.vmap(lambda x, at: jnp.take(x, at, axis=1))(value, index)
