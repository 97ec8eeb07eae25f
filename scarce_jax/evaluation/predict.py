"""Predicting masks of single images at their native size."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.images import fitted
from scarce_jax.data.schema import IGNORE, DatasetInfo, mask_indices
from scarce_jax.data.source import Rows, pad
from scarce_jax.errors import InputError
from scarce_jax.evaluation.evaluate import choose_labels
from scarce_jax.evaluation.native import are_logits, bands, native_canvas, native_row, native_scores, rows_of_band
from scarce_jax.evaluation.views import Scorer, view_rows
from scarce_jax.ops.confidence import quantised
from scarce_jax.recipe import PLAIN, Eval, Maps

WAITING = 4
"""Number of batches of images that may wait until their canvas has a full batch."""

Payload = TypeVar("Payload")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The predicted mask of one image.

    Attributes:
      labels: uint8 [H, W], class ids at the image's native size; 255 where a coarse mask alone has no class, and where
        a result with a threshold (`recipe.Eval`) does not trust its class.
      confidence: uint8 [H, W], the largest class probability times 255; 255 where the coarse mask's class stands; of a
        result with a threshold the confidence that it is compared with.
    """

    labels: np.ndarray
    confidence: np.ndarray


@dataclasses.dataclass(frozen=True)
class PredictedMaps:
    """The maps of one image.

    Attributes:
      values: uint8 [H, W, M], values of 0..1 times 255, at the image's native size.
    """

    values: np.ndarray


class Predictor:
    """Applies one result of a run, or maps, to images.

    Attributes:
      name: name of the result or maps.
      map_names: names of the maps that it makes in place of masks; () for a result.
      size: (height, width) at which images are predicted; None for their native size.
      batch: images per device in `stream`.
      classes: class names.
      palette: an RGB triple (0..255) per class.
      native_ids: the value of each class in the dataset's own mask files; None if it is the class index.
      void_ids: values in these files that mean void, besides 255.
      devices: number of devices.
      config: the run's resolved config.
      variables: role -> {"params", "batch_stats"}.
      needs_coarse: whether every image needs a coarse mask.
    """

    def __init__(
        self,
        name: str,
        evaluation: Eval | Maps,
        *,
        nets: Mapping[str, Any],
        consts: Mapping[str, Any],
        info: DatasetInfo,
        config: Any,
        without_coarse: Sequence[str],
        mesh: Mesh,
    ):
        self.name, self.config = name, config
        self.size, self.batch = evaluation.source.size, evaluation.source.batch
        self._fit = evaluation.source.fit
        self.classes, self.palette, self.native_ids = info.classes, info.palette, info.native_ids
        self.void_ids, self.devices = info.void_ids, mesh.size
        self.variables = {role: net.variables for role, net in nets.items()}
        self._nets, self._consts, self._mesh = nets, consts, mesh
        self._without_coarse = list(without_coarse)
        predict, transform = evaluation.predict, evaluation.source.transform
        if isinstance(evaluation, Maps):
            self.needs_coarse = self._composite = False
            self.map_names, self._views, self._interpolation = evaluation.names, PLAIN, None
            self._kind, self._finished = PredictedMaps, self._compile(self._mapped)
        else:
            self.needs_coarse, self._composite = evaluation.needs_coarse, evaluation.composite
            self.map_names, self._views, self._interpolation = (), evaluation.views, evaluation.source.interpolation
            self._threshold = evaluation.threshold
            self._kind, self._finished = Prediction, self._compile(self._label)
        self.scorer = Scorer(predict, transform, self._views, mesh, self._interpolation) if predict else None
        self._probabilities = self._compile(self._probability)

    def _compile(self, finish: Callable) -> Callable:
        """Compiles `finish(scores of a band at native size or None, overlay or None)`; devices have their own rows."""
        axis = self._mesh.axis_names[0]

        def run(scores, rows, first_row, *, canvas):
            def local(scores, rows, first_row):
                overlay = rows_of_band(rows["overlay"], first_row, canvas[0]) if "overlay" in rows else None
                if not scores:
                    return finish(None, overlay)
                native = native_scores(self._views, scores, rows, canvas, first_row, self._interpolation)
                return finish(native, overlay)

            specs = (P(axis), P(axis), P())
            return jax.shard_map(local, mesh=self._mesh, in_specs=specs, out_specs=P(axis))(scores, rows, first_row)

        return jax.jit(run, static_argnames="canvas")

    def _run(self, program: Callable, rows: Mapping[str, jax.Array], canvas: tuple[int, int]) -> list[Any]:
        """The results of a program for the bands of a batch, from the top."""
        scores = self.scorer(self._nets, rows, self._consts) if self.scorer else None
        images = len(rows["native_height"]) // self._mesh.size
        height, first_rows = bands(images, canvas, len(self.map_names or self.classes), self._views)
        results = []
        for first_row in mesh_lib.replicate(self._mesh, [np.int32(row) for row in first_rows]):
            results.append(program(scores, rows, first_row, canvas=(height, canvas[1])))
            # A backend may run several bands at once, each with memory of its own.
            jax.block_until_ready(results[-2:-1])
        return results

    def _normalised(self, scores: jax.Array) -> jax.Array:
        logits = self._views.crf is None and are_logits(self._views, self._interpolation)
        return jax.nn.softmax(scores) if logits else scores

    def _label(self, scores: jax.Array | None, overlay: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        overlay = overlay if self._composite else None
        shape = overlay.shape if scores is None else scores.shape[:-1]
        labels = choose_labels(scores, overlay, shape, self._threshold)
        if self._threshold is not None:
            return labels, quantised(scores[..., -1])
        confidence = jnp.zeros(shape) if scores is None else self._normalised(scores).max(-1)
        if self._composite:
            confidence = jnp.where(overlay != IGNORE, 1.0, confidence)
        return labels, jnp.round(confidence * 255).astype(jnp.uint8)

    @staticmethod
    def _mapped(values: jax.Array, overlay: None) -> tuple[jax.Array]:
        return (jnp.round(jnp.clip(values, 0.0, 1.0) * 255).astype(jnp.uint8),)

    def _probability(self, scores: jax.Array | None, overlay: jax.Array | None) -> jax.Array:
        one_hot = jax.nn.one_hot(overlay, len(self.classes)) if self._composite else None
        if scores is None:
            return one_hot
        probabilities = self._normalised(scores if self._threshold is None else scores[..., :-1])
        if one_hot is None:
            return probabilities
        return jnp.where((overlay != IGNORE)[..., None], one_hot, probabilities)

    def dispatch(self, rows: Mapping[str, np.ndarray], canvas: tuple[int, int]) -> list[tuple[jax.Array, ...]]:
        """Predicts a batch; does not wait for the device, or of several bands for the last one.

        Args:
          rows: stacked results of `row`; B is a multiple of the number of devices.
          canvas: `native_canvas` of the images.

        Returns:
          The fields of `Prediction` or `PredictedMaps`, uint8 [B, h, W, ...], of bands of the canvas from the top.
        """
        return self._run(self._finished, mesh_lib.shard(self._mesh, dict(rows)), canvas)

    def indices(self, native_ids: bool) -> dict[int, int]:
        """Id in a mask file -> class index or 255.

        Args:
          native_ids: of the dataset's own mask files; otherwise of files of class indices. If the dataset's own ids are
            the indices, both have its void ids.
        """
        ids = self.native_ids if native_ids else None
        void_ids = self.void_ids if native_ids or self.native_ids is None else ()
        return mask_indices(range(len(self.classes)) if ids is None else ids, void_ids)

    def check(self, has_coarse: bool) -> None:
        """Raises InputError if the result needs a coarse mask and there is none."""
        if self.needs_coarse and not has_coarse:
            others = ", ".join(self._without_coarse)
            others = f"results that do not: {others}" if others else "every result of this run needs one"
            raise InputError(f"result {self.name}: needs a coarse mask with every image, and none is given; {others}")

    def row(self, image: np.ndarray, coarse: np.ndarray | None) -> dict[str, np.ndarray]:
        """Makes the row of an image for `dispatch`.

        Args:
          image: uint8 [H, W, 3], RGB.
          coarse: uint8 [H, W], class ids with 255 = void; ignored if the result does not need it.

        Raises:
          InputError: an argument has another type, shape, dtype or range, or the coarse mask is missing.
        """
        _check_array("image", image, "uint8 [H, W, 3] (RGB)")
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(f"image: found {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3] (RGB)")
        self.check(coarse is not None)
        height, width = image.shape[:2]
        canvas = native_canvas(height, width)
        inputs = {"image": image}
        row = native_row(image, self._views)
        if self.needs_coarse:
            _check_array("coarse mask", coarse, f"uint8 {[height, width]}, the size of the image")
            if coarse.shape != (height, width) or coarse.dtype != np.uint8:
                raise InputError(
                    f"coarse mask: found {coarse.dtype} {list(coarse.shape)}, expected uint8 "
                    f"{[height, width]}, the size of the image"
                )
            unknown = sorted(set(np.unique(coarse)) - set(range(len(self.classes))) - {255})
            if unknown:
                last = len(self.classes) - 1
                raise InputError(f"coarse mask: id {unknown[0]} is no class; expected 0..{last}, or 255 for void")
            inputs["coarse"] = coarse
            row["overlay"] = pad(coarse, canvas, IGNORE)
        size = fitted((height, width), self.size, self._fit)
        return row | view_rows(self._views, size, self.size, functools.partial(Rows.sized, inputs))

    def stream(
        self,
        load: Callable[[int], tuple[dict[str, np.ndarray] | None, Payload]],
        count: int,
        threads: int,
        batch: int | None = None,
    ) -> Iterator[tuple[int, Payload, Prediction | PredictedMaps | None]]:
        """Predicts many images in batches over all devices; each image is loaded once.

        Args:
          load: number of an image -> (its row, any payload); called in threads, in order, some images ahead. An image
            whose row is None is not predicted.
          count: number of images.
          threads: loading threads.
          batch: images per device, which changes no mask; default `self.batch`.

        Yields:
          (number, payload, Prediction, PredictedMaps or None). A batch holds images of one canvas, so the order is that
          in which batches fill.
        """
        total = (batch or self.batch) * self._mesh.size
        waiting: dict[tuple[int, int], list] = collections.defaultdict(list)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        for k, (row, payload) in enumerate(grain.MapDataset.range(count).map(load).to_iter_dataset(options)):
            if row is None:
                yield k, payload, None
                continue
            canvas = native_canvas(int(row["native_height"]), int(row["native_width"]))
            waiting[canvas].append((k, row, payload))
            # Bounds the memory of images that wait for their batch to fill.
            if sum(map(len, waiting.values())) >= WAITING * total:
                canvas = max(waiting, key=lambda canvas: len(waiting[canvas]))
            elif len(waiting[canvas]) < total:
                continue
            yield from self._batch(waiting.pop(canvas), canvas, total)
        for canvas, images in waiting.items():
            yield from self._batch(images, canvas, total)

    def _batch(
        self, images: list, canvas: tuple[int, int], total: int
    ) -> Iterator[tuple[int, Any, Prediction | PredictedMaps]]:
        """Predicts images of one canvas, in a batch that is filled with repeats of the last image."""
        rows = [row for _, row, _ in images]
        rows += rows[-1:] * (total - len(rows))
        stacked = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        parts = [_joined(part) for part in zip(*self.dispatch(stacked, canvas), strict=True)]
        for j, (k, row, payload) in enumerate(images):
            height, width = int(row["native_height"]), int(row["native_width"])
            yield k, payload, self._kind(*(part[j, :height, :width] for part in parts))

    def _single(self, image: np.ndarray, coarse: np.ndarray | None, program: Callable) -> list[Any]:
        row = self.row(image, coarse)
        # Every device predicts a copy, so that the batch can be split over the devices.
        rows = {key: np.stack([value] * self._mesh.size) for key, value in row.items()}
        return self._run(program, mesh_lib.shard(self._mesh, rows), native_canvas(*image.shape[:2]))

    def predict(self, image: np.ndarray, coarse: np.ndarray | None = None) -> np.ndarray:
        """Predicts the class ids of one image.

        Args:
          image: uint8 [H, W, 3], RGB.
          coarse: uint8 [H, W], class ids with 255 = void; required if `needs_coarse`.

        Returns:
          uint8 [H, W].

        Raises:
          InputError: an argument has another type, shape, dtype or range, or the coarse mask is missing; or the
            predictor makes maps.
        """
        self._expect(maps=False)
        labels = _joined([labels for labels, _ in self._single(image, coarse, self._finished)])
        return labels[0, : image.shape[0], : image.shape[1]]

    def maps(self, image: np.ndarray) -> np.ndarray:
        """Makes the maps of one image, in the order of `map_names`.

        Args:
          image: uint8 [H, W, 3], RGB.

        Returns:
          uint8 [H, W, M], values of 0..1 times 255.

        Raises:
          InputError: the image has another type, shape or dtype, or the predictor predicts masks.
        """
        self._expect(maps=True)
        values = _joined([values for (values,) in self._single(image, None, self._finished)])
        return values[0, : image.shape[0], : image.shape[1]]

    def _expect(self, maps: bool) -> None:
        if bool(self.map_names) != maps:
            pictures, method = ("maps", "`maps`") if self.map_names else ("masks", "`predict` or `probabilities`")
            raise InputError(f"result {self.name}: makes {pictures}; call {method}")

    def probabilities(self, image: np.ndarray, coarse: np.ndarray | None = None) -> np.ndarray:
        """Predicts the class probabilities of one image; arguments and errors as in `predict`.

        Returns:
          float32 [H, W, K]. They sum to 1, but are all 0 where a coarse mask alone predicts and is void.
        """
        self._expect(maps=False)
        probabilities = _joined(self._single(image, coarse, self._probabilities))
        return probabilities[0, : image.shape[0], : image.shape[1]]


def _joined(bands: Sequence[jax.Array]) -> np.ndarray:
    """Puts arrays [B, h, W, ...] below each other: [B, H, W, ...]."""
    arrays = [np.asarray(band) for band in bands]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)


def _check_array(name: str, array: Any, expected: str) -> None:
    """Raises InputError unless `array` is one of numpy with at least one pixel."""
    if isinstance(array, str | os.PathLike):
        raise InputError(f"{name}: found the path {os.fspath(array)!r}, expected {expected}; read the file first")
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name}: found a {type(array).__name__}, expected {expected}, as a numpy array")
    if not array.size:
        raise InputError(f"{name}: found {array.dtype} {list(array.shape)}, which is empty; expected {expected}")
