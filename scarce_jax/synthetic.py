"""A stage without data: rows with random content, and the abstract arguments of its compiled program."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.schema import IGNORE, DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.evaluation.views import view_rows
from scarce_jax.recipe import Artifact, Eval, Infer, Mean, Net, NetState, Recipe, Source, Stage, Train
from scarce_jax.runtime import Runtime
from scarce_jax.training import state as state_lib
from scarce_jax.training.batches import fits
from scarce_jax.training.infer import compile_predict, predict_rows
from scarce_jax.training.packing import pack
from scarce_jax.training.step import make_step

MASKS = ("fine", "coarse", "label")


class SyntheticRows:
    """Rows of a `Source` with random content; the attributes are those of `data.source.Rows`.

    Args:
      count: number of rows.
      native: (height, width) of the images, for a source that keeps native sizes.
    """

    def __init__(
        self, source: Source, recipe: Recipe, info: DatasetInfo, count: int, native: tuple[int, int] | None = None
    ):
        self.size, self.fields, self.labels = source.size, source.fields, source.labels
        self.indices = range(count)
        self.spec = row_spec(source, recipe, info, native)
        self.canvas = self.spec["image"].shape[:2]
        self._classes = len(info.classes)
        self.reader = self  # A `Source.weight` reads `tags` of the reader.

    def __len__(self) -> int:
        return len(self.indices)

    @functools.cached_property
    def tags(self) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 2, (len(self), self._classes), np.uint8) | np.eye(
            len(self), self._classes, dtype=np.uint8
        )

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([1, k])

        def draw(name: str, spec: jax.ShapeDtypeStruct) -> np.ndarray:
            if name in ("height", "width"):
                return np.int32(self.canvas[name == "width"])
            if name == "tags":
                return self.tags[k]
            if name in MASKS or (spec.dtype == np.uint8 and len(spec.shape) == 2):
                mask = rng.integers(0, self._classes + 1, spec.shape, np.uint8)
                return np.where(mask == self._classes, np.uint8(IGNORE), mask)
            if jnp.issubdtype(spec.dtype, np.integer):
                return rng.integers(0, 256 if name == "image" else 2, spec.shape, spec.dtype)
            return rng.random(spec.shape).astype(spec.dtype)

        return {name: draw(name, spec) for name, spec in self.spec.items()}


def row_spec(
    source: Source, recipe: Recipe, info: DatasetInfo, native: tuple[int, int] | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every entry in one row of a source.

    Args:
      native: (height, width) of the images, for a source that keeps native sizes.

    Raises:
      InputError: the source reads records that a function on the host makes, whose shapes are not known before it runs;
        or images at native size, and `native` is None.
    """
    canvas = source.size or native
    if canvas is None:
        raise InputError(f"source {source.dataset}/{source.split}: reads images at native size; give a size instead")
    mask = jax.ShapeDtypeStruct(canvas, jnp.uint8)
    spec = {"image": jax.ShapeDtypeStruct((*canvas, 3), jnp.uint8)}
    spec |= {name: jax.ShapeDtypeStruct((), jnp.int32) for name in ("height", "width")}
    for field in source.fields:
        if isinstance(field, Artifact):
            entry = inferred(recipe, info, field, native)
            spec[field.name] = mask if entry.dtype == jnp.uint8 and len(entry.shape) == 2 else entry
        else:
            spec[field] = jax.ShapeDtypeStruct((len(info.classes),), jnp.uint8) if field == "tags" else mask
    if source.labels:
        spec["label"] = mask
    return spec


def inferred(
    recipe: Recipe, info: DatasetInfo, artifact: Artifact, native: tuple[int, int] | None = None
) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a field of the records, or of the mean, that an `Infer` stage leaves.

    Raises:
      InputError: a function on the host makes the records, so their shapes are not known before it runs.
    """
    stage = recipe.stage(artifact.stage)
    if stage.finish is not None:
        raise InputError(
            f"stage {stage.name}: its records are made on the host, so the shape of {artifact.name!r} is not known "
            f"before the stage runs; choose a stage that does not read it"
        )

    rows = _placed(_inference_spec(stage, recipe, info, native), None, 1)
    consts = abstract_consts(stage, recipe, info)
    values = jax.eval_shape(functools.partial(predict_rows, stage), abstract_nets(stage.nets), rows, consts)[
        artifact.name
    ]
    return jax.ShapeDtypeStruct(values.shape[1:], jnp.float32 if isinstance(stage.write, Mean) else values.dtype)


def _inference_spec(
    stage: Infer, recipe: Recipe, info: DatasetInfo, native: tuple[int, int] | None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every entry in one row that an `Infer` stage predicts from, in all its views."""
    if stage.views.plain:
        return row_spec(stage.source, recipe, info, native)

    def sized(size: tuple[int, int], canvas: tuple[int, int]) -> dict[str, jax.ShapeDtypeStruct]:
        return row_spec(dataclasses.replace(stage.source, size=size), recipe, info)

    return view_rows(stage.views, stage.source.size, stage.source.size, sized)


def abstract_nets(nets: Mapping[str, Net]) -> dict[str, NetState]:
    """Shapes and dtypes of every net, without optimizer state."""
    return {role: state_lib.abstract_net(net) for role, net in nets.items()}


def abstract_consts(stage: Stage | Eval, recipe: Recipe, info: DatasetInfo) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a stage's constants."""
    return {
        name: inferred(recipe, info, value)
        if isinstance(value, Artifact)
        else jax.ShapeDtypeStruct(np.shape(value), np.asarray(value).dtype)
        for name, value in stage.consts.items()
    }


def ones_for_artifacts(stage: Stage | Eval, recipe: Recipe, info: DatasetInfo, mesh: Mesh) -> dict[str, jax.Array]:
    """A stage's constants, replicated, with ones in place of artifacts of earlier stages."""
    specs = abstract_consts(stage, recipe, info)
    values = {
        name: np.ones(specs[name].shape, specs[name].dtype) if isinstance(value, Artifact) else value
        for name, value in stage.consts.items()
    }
    return mesh_lib.replicate(mesh, values)


def _placed(tree: Any, sharding: jax.sharding.Sharding | None, *leading: int) -> Any:
    """The abstract arrays with further leading axes and a sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*leading, *x.shape), x.dtype, sharding=sharding), tree)


def lower(
    stage: Stage, recipe: Recipe, info: DatasetInfo, mesh: Mesh, native: tuple[int, int] | None = None
) -> jax.stages.Lowered:
    """The program of a stage, lowered for abstract arguments: a training step, or the prediction of one batch."""
    everywhere, split = mesh_lib.replicated(mesh), mesh_lib.split(mesh)
    consts = _placed(abstract_consts(stage, recipe, info), everywhere)
    nets = abstract_nets(stage.nets)
    if isinstance(stage, Infer):
        rows = _inference_spec(stage, recipe, info, native)
        rows["counts"] = jax.ShapeDtypeStruct((), jnp.bool_)
        batch = _placed(rows, split, stage.source.batch * mesh.size)
        return compile_predict(stage, mesh).lower(_placed(nets, everywhere), batch, consts)
    steps = number_of_steps(stage)
    for role, net in stage.nets.items():
        if net.optim:
            opt = jax.eval_shape(state_lib.transformation(net, steps).init, nets[role].params)
            nets[role] = nets[role].replace(opt_state=opt)
    state = state_lib.TrainState(step=jax.ShapeDtypeStruct((), jnp.int32), nets=nets)
    state = jax.eval_shape(functools.partial(pack, optimizers=stage.optimizers), state)
    key = jax.eval_shape(lambda: jax.random.key(0))
    draws = {}
    for name, source in stage.sources.items():
        drawn = {"row": jax.ShapeDtypeStruct((), jnp.int32), "decoded": row_spec(source, recipe, info, native)}
        draws[name] = _placed(drawn, split, source.batch)
    keys = dict.fromkeys((*stage.sources, "loss"), key)
    state, keys = (_placed(x, everywhere) for x in (state, keys))
    return make_step(stage, steps, stage.sources, mesh).lower(state, draws, keys, consts)


def resident_bytes(
    source: Source,
    recipe: Recipe,
    info: DatasetInfo,
    count: int,
    runtime: Runtime,
    mesh: Mesh,
    memory: int | None = None,
) -> int:
    """Bytes of `count` decoded examples of a source on each device; 0 if the source streams.

    Args:
      memory: bytes of a device that is not at hand.
    """
    rows = SyntheticRows(source, recipe, info, count)
    resident = runtime.resident if source.resident is None else source.resident
    if not (fits(rows, mesh, memory) if resident is None else resident):
        return 0
    return count * sum(math.prod(x.shape) * x.dtype.itemsize for x in rows.spec.values())


def number_of_steps(stage: Train) -> int:
    """Number of steps for the schedule of the learning rate, which does not change the cost of a program."""
    return stage.steps if isinstance(stage.steps, int) else 1000


def peak_bytes(compiled: jax.stages.Compiled) -> int | None:
    """Bytes of a compiled program on one device: arguments, results, temporary values and code; None if unknown."""
    stats = compiled.memory_analysis()
    if stats is None:
        return None
    buffers = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    return int(buffers + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes)
