"""From a `Source` to the rows of a step: opening it, resident or streaming, and the part that runs on the device."""

from __future__ import annotations

import dataclasses
import functools
import logging
import pathlib
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.budget import Manifest
from scarce_jax.data.order import Order
from scarce_jax.data.records import Records
from scarce_jax.data.schema import CALLED
from scarce_jax.data.source import Field, GrantedField, Reader, RecordField, Rows, load_all, stream
from scarce_jax.errors import InputError
from scarce_jax.recipe import Artifact, Confident, Recipe, Source, id_parts
from scarce_jax.training.state import named_key

log = logging.getLogger("scarce_jax")

CPU_RESIDENT_BYTES = 2 << 30
RESIDENT_SHARE = 0.25
CANVAS_WASTE = 3.0


@dataclasses.dataclass
class Inputs:
    """What the sources of one run are opened with; readers and records are opened once."""

    data_dir: str | None
    run_dir: pathlib.Path
    manifest: Manifest | None
    recipe: Recipe

    def __post_init__(self):
        self.reader = functools.lru_cache(maxsize=None)(self._reader)
        self.records = functools.lru_cache(maxsize=None)(self._records)
        self._told: set[str] = set()

    def _reader(self, dataset: str, split: str) -> Reader:
        return Reader(dataset, split, self.data_dir)

    def _records(self, stage: str) -> Records:
        return Records(self.run_dir / stage / "records")

    def ids(self, source: Source, hidden_truth: bool = False) -> tuple[str, ...]:
        """The example ids of a source, in order: those that have every field that it reads, and one of its labels.

        Args:
          hidden_truth: whether labels count that the budget does not grant (see `Eval`).

        Raises:
          InputError: there are none, or fewer than it takes.
        """
        where = f"{source.dataset}/{source.split}"
        given = tuple(dict.fromkeys(name for part in id_parts(source) for name in self._part(source, part)))
        kind = " and ".join(x if isinstance(x, str) else f"{x.stage} records" for x in id_parts(source))
        ids, lacking = given, []
        for fields in (*((field,) for field in (*source.fields, *source.having)), source.labels):
            having = [self._having(field, source, fields is source.labels, hidden_truth) for field in fields]
            left = tuple(i for i in ids if any(i in one for one in having)) if fields else ids
            if len(left) < len(ids):
                lacking.append(" or ".join(map(_called, fields)))
            ids = left
        if lacking:
            what = ", ".join(dict.fromkeys(lacking))
            if not ids:
                raise InputError(
                    f"{where}: none of its {len(given)} images ({kind}) has all that is read here; they lack: {what}; "
                    f"add some to the source and prepare it with --again, or read another split"
                )
            gone = len(given) - len(ids)
            self._tell(f"{where}: {gone} of {len(given)} images ({kind}) are left out because they lack: {what}")
        if source.take is not None:
            if source.take > len(ids):
                raise InputError(f"{source.take} {kind} images asked of {where}, which has {len(ids)}")
            ids = ids[: source.take]
        if not ids:
            reader = self.reader(source.dataset, source.split)
            if source.ids in CALLED and not reader.has[source.ids].any():
                raise InputError(
                    f"{where}: none of its {len(reader)} images has a {CALLED[source.ids]}, and a stage reads those "
                    f"that have; add some to the source and prepare it with --again"
                )
            raise InputError(f"no {kind!r} images in {where}; check the budget")
        return ids

    def _part(self, source: Source, part: str | Artifact) -> tuple[str, ...]:
        if isinstance(part, Artifact):
            # A pass over data leaves one entry per example it read, so its own source says which.
            return self.ids(self.recipe.stage(part.stage).source)
        if part == "all":
            return self.reader(source.dataset, source.split).ids
        return self.manifest.roles[part]

    def _having(
        self, field: str | Artifact | Confident, source: Source, as_label: bool, hidden_truth: bool
    ) -> Container[str]:
        """The ids of the examples that have a field, of a label those to which the budget grants it."""
        if isinstance(field, Confident):
            field = field.label
        if isinstance(field, Artifact):
            return frozenset(self.ids(self.recipe.stage(field.stage).source))
        opened = self._label(source, field, hidden_truth) if as_label else field
        if isinstance(opened, GrantedField):
            return opened.ids
        reader = self.reader(source.dataset, source.split)
        return reader.index.keys() - reader.lacking[field]

    def _tell(self, message: str) -> None:
        """Logs a message the first time."""
        if message not in self._told:
            self._told.add(message)
            log.warning(message)

    def open(self, source: Source, hidden_truth: bool = False) -> Rows:
        """The source's rows, in the order of its ids; arguments as of `ids`."""
        reader = self.reader(source.dataset, source.split)
        return Rows(
            reader=reader,
            indices=[reader.index[name] for name in self.ids(source, hidden_truth)],
            fields=tuple(self.field(f) for f in source.fields),
            labels=tuple(self._label(source, f, hidden_truth) for f in source.labels),
            size=source.size,
        )

    def _label(self, source: Source, label: str | Artifact | Confident, hidden_truth: bool) -> Field:
        if isinstance(label, Confident):
            records = self.records(label.label.stage)
            return RecordField(records, label.label.name, label.confidence.name, label.threshold)
        manifest = self.manifest
        if hidden_truth or manifest is None or label not in manifest.roles or "all" in id_parts(source):
            return self.field(label)
        # In the split that the budget is about, a label is there for those it grants it to; "all" looks behind it.
        if (manifest.dataset, manifest.split) != (source.dataset, source.split):
            return self.field(label)
        return GrantedField(label, frozenset(manifest.roles[label]))

    def field(self, field: str | Artifact) -> Field:
        """A field of the example, or of the records of a stage, joined by example id."""
        return RecordField(self.records(field.stage), field.name) if isinstance(field, Artifact) else field


def _called(field: str | Artifact | Confident) -> str:
    if isinstance(field, Confident):
        field = field.label
    return CALLED[field] if isinstance(field, str) else str(field)


class TrainInput:
    """The rows of every step of one source.

    `batches` gives them alike whether the source streams or is resident. Then `arrays` are all its decoded examples,
    replicated, from which every device picks its rows.
    """

    def __init__(
        self,
        source: Source,
        rows: Rows,
        seed: int,
        name: str,
        mesh: Mesh,
        threads: int,
        resident: bool | None,
    ):
        self._rows, self._mesh, self._threads = rows, mesh, threads
        self.size = source.batch
        self.transform = source.transform
        weights = source.weight(rows.reader.tags[list(rows.indices)]) if source.weight else None
        self._order = Order(len(rows), zlib.crc32(f"{seed}/{name}".encode()), weights)
        self.key = named_key(seed, name, "transform")
        wanted = resident if source.resident is None else source.resident
        self.resident = fits(rows, mesh) if wanted is None else wanted
        self.arrays = mesh_lib.replicate(mesh, load_all(rows, threads)) if self.resident else {}

    def batches(
        self, start: int, steps: int, dispatches: Iterable[tuple[int, int]] | None = None
    ) -> Iterator[dict[str, Any]]:
        """What steps `start`, `start` + 1, ... take, on the devices: `decoded` rows, and each one's `row` of the batch.

        Args:
          dispatches: (first step, number of steps) of each item, which gets a first axis of that length where it is
            above 1; only where the source is resident. None: one step each.
        """
        local = mesh_lib.local_rows(self.size)
        numbers = np.arange(self.size, dtype=np.int32)[local]
        if self.resident:
            for first, count in dispatches or ((step, 1) for step in range(start, steps)):
                index = np.stack([self._order.batch(first + k, self.size)[local] for k in range(count)])
                axis = int(count > 1)
                if not axis:
                    index = index[0]
                placed = {"row": np.broadcast_to(numbers, index.shape), "index": index}
                placed = mesh_lib.shard(self._mesh, placed, axis)
                yield {"row": placed["row"], "decoded": _pick(self._mesh, axis)(self.arrays, placed["index"])}
            return
        shard = (jax.process_index(), jax.process_count())
        decoded = stream(
            lambda p: self._rows[self._order[p]],
            steps * self.size,
            self.size,
            shard=shard,
            start=start,
            threads=self._threads,
        )
        for batch in decoded:
            yield mesh_lib.shard(self._mesh, {"row": numbers, "decoded": batch})


@functools.lru_cache(maxsize=8)
def _pick(mesh: Mesh, axis: int) -> Callable:
    """The jitted `(arrays, index) -> rows` of each device's own part of an index, which is split along `axis`.

    A program of its own, since its shapes tell the number of examples: another budget then compiles no step anew.
    """
    spec = P(*[None] * axis, mesh_lib.AXIS)

    def pick(arrays: Mapping[str, jax.Array], index: jax.Array) -> dict[str, jax.Array]:
        return {name: x[index] for name, x in arrays.items()}

    return jax.jit(jax.shard_map(pick, mesh=mesh, in_specs=(P(), spec), out_specs=spec))


def fits(rows: Rows, mesh: Mesh) -> bool:
    """Whether a source should be resident: its canvases fit, and are not mostly padding."""
    height, width = rows.canvas
    if rows.size is None:
        areas = rows.reader.sizes[list(rows.indices)].prod(axis=1, dtype=np.int64)
        if height * width > CANVAS_WASTE * areas.mean():
            return False
    masks = len(rows.fields) + bool(rows.labels)
    needed = len(rows) * height * width * (3 + masks)
    device = mesh.devices.flat[0]
    if device.platform == "cpu":
        return needed * len(mesh.local_devices) <= CPU_RESIDENT_BYTES
    memory = (device.memory_stats() or {}).get("bytes_limit", 0)
    return needed <= RESIDENT_SHARE * memory


def make_batch(
    mesh: Mesh, transform: Callable, draw: Mapping[str, Any], key: jax.Array, consts: Any
) -> dict[str, jax.Array]:
    """One source's global batch inside the step, made of what `TrainInput.batches` gives: rows transformed.

    Every device does its own rows (`shard_map`), so no image ever crosses devices, and a row's key depends on its
    number in the global batch, so the result does not depend on how many devices there are.
    """

    def local(draw, key, consts):
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(draw["row"])
        return jax.vmap(lambda row, k: transform(row, k, consts))(draw["decoded"], keys)

    specs = (P(mesh_lib.AXIS), P(), P())
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(mesh_lib.AXIS))(draw, key, consts)
