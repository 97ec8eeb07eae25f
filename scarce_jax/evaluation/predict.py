"""Masks for single images at their native size, from whatever a result needs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.source import Rows
from scarce_jax.errors import InputError
from scarce_jax.evaluation import passes
from scarce_jax.evaluation.evaluate import choose_labels, place
from scarce_jax.evaluation.views import Scorer, native_canvas, native_row, native_scores, view_rows
from scarce_jax.recipe import PLAIN, Views


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One image's mask.

    Attributes:
      labels: uint8 [H, W], class ids at the image's own size; 255 where nothing is predicted (a coarse mask alone).
      confidence: uint8 [H, W], the largest class probability times 255; 255 where a coarse label was kept.
    """

    labels: np.ndarray
    confidence: np.ndarray


class Predictor:
    """Applies one result of a run to images.

    Attributes:
      classes: class names.
      palette: RGB triples (0..255), one per class.
      native_ids: the dataset's own mask value of each class, None where it is the class index.
      config: the run's resolved config.
      variables: role -> {"params", "batch_stats"}.
      needs_coarse: whether a coarse mask must come with every image.
    """

    def __init__(
        self,
        *,
        name: str,
        predict: Callable | None,
        transform: Callable,
        size: tuple[int, int] | None,
        needs_coarse: bool,
        composite: bool,
        nets: Mapping[str, Any],
        consts: Mapping[str, Any],
        classes: tuple[str, ...],
        palette: tuple[tuple[int, int, int], ...],
        native_ids: tuple[int, ...] | None,
        config: Any,
        without_coarse: Sequence[str],
        batch: int,
        mesh: Mesh,
        views: Views = PLAIN,
    ):
        self.name, self.classes, self.palette, self.native_ids, self.config = (
            name,
            classes,
            palette,
            native_ids,
            config,
        )
        self.needs_coarse = needs_coarse
        self.variables = {role: net.variables for role, net in nets.items()}
        self._composite, self._size, self._views = composite, size, views
        self._nets, self._consts, self._mesh, self._batch = nets, consts, mesh, batch
        self._without_coarse = list(without_coarse)
        self.scorer = Scorer(predict, transform, views, mesh) if predict else None
        self._labels = jax.jit(self._compile(self._label), static_argnames="canvas")
        self._probabilities = jax.jit(self._compile(self._probability), static_argnames="canvas")

    def _compile(self, finish: Callable) -> Callable:
        """`finish(scores at native size, rows, canvas)` on every device's own rows."""
        axis = self._mesh.axis_names[0]

        def run(scores, rows, *, canvas):
            def local(scores, rows):
                native = native_scores(self._views, scores, rows, canvas) if scores else None
                return finish(native, rows, (rows["native_height"].shape[0], *canvas))

            return jax.shard_map(local, mesh=self._mesh, in_specs=(P(axis), P(axis)), out_specs=P(axis))(scores, rows)

        return run

    def _run(self, program: Callable, rows: Mapping[str, jax.Array], canvas: tuple[int, int]) -> Any:
        scores = self.scorer(self._nets, rows, self._consts) if self.scorer else None
        return program(scores, rows, canvas=canvas)

    def _normalised(self, scores: jax.Array) -> jax.Array:
        return jax.nn.softmax(scores) if self._views.plain else scores

    def _label(self, scores: jax.Array | None, rows: dict, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        labels = choose_labels(scores, rows["overlay"] if self._composite else None, shape)
        confidence = jnp.zeros(shape) if scores is None else self._normalised(scores).max(-1)
        if self._composite:
            confidence = jnp.where(rows["overlay"] != 255, 1.0, confidence)
        return labels, jnp.round(confidence * 255).astype(jnp.uint8)

    def _probability(self, scores: jax.Array | None, rows: dict, shape: tuple[int, ...]) -> jax.Array:
        one_hot = jax.nn.one_hot(rows["overlay"], len(self.classes)) if self._composite else None
        if scores is None:
            return one_hot
        probabilities = self._normalised(scores)
        if one_hot is None:
            return probabilities
        return jnp.where((rows["overlay"] != 255)[..., None], one_hot, probabilities)

    def dispatch(self, rows: Mapping[str, np.ndarray], canvas: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
        """Class ids and confidences uint8 [B, *canvas], as in Prediction; does not wait for the device.

        Args:
          rows: what `row` makes, stacked; their number divides over the devices.
          canvas: `native_canvas` of the images.
        """
        return self._run(self._labels, mesh_lib.shard(self._mesh, dict(rows)), canvas)

    def check(self, coarse_given: bool) -> None:
        """Raises InputError where the result needs a coarse mask and none is given."""
        if self.needs_coarse and not coarse_given:
            others = f"; results that do not: {', '.join(self._without_coarse)}" if self._without_coarse else (
                "; every result of this run needs one"
            )  # fmt: skip
            raise InputError(f"result {self.name}: needs a coarse mask with every image, and none is given{others}")

    def row(self, image: np.ndarray, coarse: np.ndarray | None) -> dict[str, np.ndarray]:
        """An image as the compiled program takes it.

        Raises:
          InputError: not uint8 [H, W, 3], or a coarse mask of another size, dtype or with unknown ids.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(f"image: found {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3] (RGB)")
        self.check(coarse is not None)
        height, width = image.shape[:2]
        canvas = native_canvas(height, width)
        inputs = {"image": image}
        row = native_row(image, self._views)
        if self.needs_coarse:
            if coarse.shape != (height, width) or coarse.dtype != np.uint8:
                raise InputError(
                    f"coarse mask: found {coarse.dtype} {list(coarse.shape)}, expected uint8 {[height, width]} as the "
                    f"image"
                )
            unknown = sorted(set(np.unique(coarse)) - set(range(len(self.classes))) - {255})
            if unknown:
                last = len(self.classes) - 1
                raise InputError(f"coarse mask: id {unknown[0]} is no class; expected 0..{last}, or 255 for unlabelled")
            inputs["coarse"] = coarse
            row["overlay"] = place(coarse, canvas)
        size = self._size or (height, width)
        return row | view_rows(self._views, size, self._size is not None, functools.partial(Rows.sized, inputs))

    def stream(self, load: Callable[[int], dict], sizes: Sequence[tuple[int, int]], threads: int) -> Iterator:
        """(k, Prediction) for rows `load(k)` of images with these (height, width), batched over all devices."""
        groups = passes.by_canvas(sizes)
        for canvas, numbers, rows in passes.batches(load, groups, batch=self._batch, mesh=self._mesh, threads=threads):
            labels, confidence = (np.asarray(x) for x in self._run(self._labels, rows, canvas))
            for j, k in enumerate(numbers):
                height, width = sizes[k]
                yield k, Prediction(labels[j, :height, :width], confidence[j, :height, :width])

    def _single(self, image: np.ndarray, coarse: np.ndarray | None, program: Callable) -> Any:
        row = self.row(image, coarse)
        # Every device works on a copy: one program serves whatever the number of devices.
        rows = {key: np.stack([value] * self._mesh.size) for key, value in row.items()}
        return self._run(program, mesh_lib.shard(self._mesh, rows), native_canvas(*image.shape[:2]))

    def predict(self, image: np.ndarray, coarse: np.ndarray | None = None) -> np.ndarray:
        """Class ids of one image.

        Args:
          image: uint8 [H, W, 3], RGB.
          coarse: uint8 [H, W] class ids with 255 = unlabelled, where the result needs one.

        Returns:
          uint8 [H, W].

        Raises:
          InputError: an argument has another shape, dtype or range, or the coarse mask is missing.
        """
        labels, _ = self._single(image, coarse, self._labels)
        return np.asarray(labels)[0, : image.shape[0], : image.shape[1]]

    def probabilities(self, image: np.ndarray, coarse: np.ndarray | None = None) -> np.ndarray:
        """Class probabilities float32 [H, W, K] of one image; arguments and errors as `predict`.

        They sum to 1, except where a coarse mask alone predicts and has no label: there all are 0.
        """
        probabilities = self._single(image, coarse, self._probabilities)
        return np.asarray(probabilities)[0, : image.shape[0], : image.shape[1]]
