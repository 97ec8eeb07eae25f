"""Loading initial weights from outside the run: a net of another run, or a file of weights."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import traverse_util
from jax.sharding import Mesh

from scarce_jax.errors import InputError, plural
from scarce_jax.models import weights
from scarce_jax.recipe import FromRun, NetState, Pretrained
from scarce_jax.training import checkpoint, folder

_FEW = 8
"""Number of unused arrays up to which a log line names all of them."""


@dataclasses.dataclass(frozen=True)
class ImportedArrays:
    """The arrays that a net takes from an origin.

    Attributes:
      values: path ("params/backbone/conv1/kernel") -> array. The other arrays of the net keep their initial values.
      drawn: paths of these other parameters, shortened to a module's name if all of the module is drawn.
      facts: for DONE: the origin, its content, and the unused parts of it. Of a file of weights also "file", its
        layout, geometry and normalisation and what it states about itself; "used", its keys -> path and shape of each
        array; and the reason for each key of "unused".
    """

    values: dict[str, Any]
    drawn: tuple[str, ...]
    facts: dict[str, Any]

    def __str__(self) -> str:
        initial = f"at initial values: {', '.join(self.drawn) or 'none'}"
        unused = list(self.facts["unused"])
        if len(unused) > _FEW:
            parts = collections.Counter(re.split(r"[./]", key)[0] for key in unused)
            unused = [f"{part} ({plural(count, 'array')})" for part, count in parts.items()]
        return (
            f"{len(self.values)} arrays of {self.facts['source']}; {initial}; not used: {', '.join(unused) or 'none'}"
        )


def content(origin: FromRun | Pretrained) -> dict[str, Any]:
    """Describes the content of an origin as JSON values, independent of its path.

    Raises:
      InputError: it is missing, unfinished or unreadable.
    """
    if isinstance(origin, Pretrained):
        return {"weights": weights.file_hash(weights.locate(origin.source))}
    text = json.dumps(_read(origin, checkpoint.saved_checksums), sort_keys=True)
    return {"net": hashlib.sha256(text.encode()).hexdigest(), "pattern": origin.pattern}


def take(
    origin: FromRun | Pretrained, net: NetState, mesh: Mesh, backbone: weights.Backbone | None = None
) -> ImportedArrays:
    """Loads the arrays that a net takes from an origin, and checks them.

    Args:
      origin: a net of another run, or weights.
      net: abstract arrays of the net.
      mesh: devices to restore a net of another run on.
      backbone: geometry and normalisation of the net's backbone; None checks neither.

    Raises:
      InputError: the origin is missing or damaged, or does not fit the net.
    """
    shapes = weights.flat_shapes(net.variables)
    facts: dict[str, Any] = {"source": str(origin), "content": content(origin)}
    if isinstance(origin, Pretrained):
        imported = weights.import_weights(weights.locate(origin.source), shapes, backbone)
        values = imported.values
        facts |= {"file": imported.facts, "used": imported.used, "unused": imported.unused}
    else:
        _check_stage(origin)
        values, unused = _from_run(origin, shapes, mesh)
        if backbone is not None and any(path.split("/")[1] == weights.TRUNK for path in values):
            weights.check_backbone(f"init_from {origin}", _settings(origin), backbone)
        facts["unused"] = list(unused)
    drawn = _shorten([name for name in shapes if name not in values], shapes)
    return ImportedArrays(values, drawn, {**facts, "arrays": len(values), "drawn": list(drawn)})


def backbone_flag(config: Mapping[str, Any], stage: str, origin: FromRun | Pretrained) -> str:
    """The flag of the backbone of a stage, as "--segmenter.net.backbone".

    Args:
      config: the method's config as in config.json.
      stage: name of the stage. Where the config has no such field, that of the first stage with this origin is meant.
      origin: what its net starts from.
    """
    fields = [k for k, v in config.items() if isinstance(v, Mapping) and v.get("init_from") == str(origin)]
    field = stage if stage in config or not fields else fields[0]
    return f"--{field.replace('_', '-')}.{'' if weights.TRUNK in config.get(field, {}) else 'net.'}{weights.TRUNK}"


def _check_stage(origin: FromRun) -> None:
    """Raises InputError if what the stage recorded, or the net that it left, is damaged, or holds a link."""
    run = pathlib.Path(origin.run)
    part = f"nets/{_folder(origin).name}/"
    try:
        folder.refuse_links(run / origin.stage)
        done = folder.read_done(run, origin.stage)
        files = {name: value for name, value in done["files"].items() if name.startswith(part)}
        folder.check_files(run, origin.stage, {"files": files})
    except InputError as error:
        raise InputError(f"init_from {origin}: {error}") from error


def _settings(origin: FromRun) -> dict[str, str | None]:
    """Geometry and normalisation of the backbone of a net of another run, as far as it has one."""
    description = folder.read_description(pathlib.Path(origin.run), origin.stage)
    module = description.get("nets", {}).get(origin.net, {}).get("module", {})
    return weights.settings(module.get(weights.TRUNK) or {})


def _folder(origin: FromRun) -> pathlib.Path:
    run = pathlib.Path(origin.run)
    if not (run / "config.json").exists():
        raise InputError(f"init_from {origin}: {run} is not a run folder (it has no config.json)")
    if not (run / origin.stage / "DONE").exists():
        stages = sorted(path.parent.name for path in run.glob("*/DONE"))
        raise InputError(
            f"init_from {origin}: {run} has no finished stage {origin.stage!r}; finished: {', '.join(stages) or 'none'}"
        )
    net = run / origin.stage / "nets" / origin.net
    if not net.is_dir():
        nets = sorted(path.name for path in net.parent.glob("*"))
        raise InputError(f"init_from {origin}: no net {origin.net!r}; the stage left {', '.join(nets) or 'none'}")
    return net


def _read(origin: FromRun, read: Callable, *args: Any) -> Any:
    """Calls `read(folder of the net, *args)`; raises InputError if the checkpoint is damaged."""
    try:
        return read(_folder(origin), *args)
    except checkpoint.DamagedCheckpoint as error:
        raise InputError(f"init_from {origin}: {error}; train it again, or choose another net") from error


def _from_run(
    origin: FromRun, shapes: Mapping[str, tuple[int, ...]], mesh: Mesh
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns arrays by path, and the paths of the other net's arrays that were not used."""
    saved = _read(origin, checkpoint.saved_checksums)
    fits = {name for name in shapes if name in saved and tuple(saved[name][1]) == shapes[name]}
    if origin.pattern is not None:
        wanted = [name for name in shapes if re.search(origin.pattern, name.partition("/")[2])]
        if not wanted:
            raise InputError(
                f"init_from {origin}: no array of the net matches the pattern {origin.pattern!r}; expected a part of a "
                f"path such as {', '.join(name.partition('/')[2] for name in sorted(shapes)[:3])}"
            )
        wrong = [name for name in wanted if name not in fits]
        if wrong:
            shown = "; ".join(f"{n} is {_shape(saved, n)}, expected {list(shapes[n])}" for n in wrong[:3])
            raise InputError(f"init_from {origin}: {len(wrong)} of {len(wanted)} arrays do not fit: {shown}")
        fits = set(wanted)
    if not fits:
        raise InputError(
            f"init_from {origin}: no array of the net is in it with the same path and shape; it has "
            f"{sorted(saved)[:3]} ..., expected {sorted(shapes)[:3]} ..."
        )
    like = {path: jax.ShapeDtypeStruct(shape, dtype) for path, (_, shape, dtype) in saved.items()}
    tree = {"params": {}, "batch_stats": {}, **traverse_util.unflatten_dict(like, sep="/")}
    loaded = _read(origin, checkpoint.load, checkpoint.replicated_like(tree, mesh))
    flat = traverse_util.flatten_dict(loaded, sep="/")
    return {name: flat[name] for name in sorted(fits)}, _shorten([path for path in saved if path not in fits], saved)


def _shape(saved: Mapping[str, list], name: str) -> str:
    return str(saved[name][1]) if name in saved else "absent"


def _shorten(paths: Sequence[str], among: Mapping[str, Any]) -> tuple[str, ...]:
    """Drops the collection from paths, and replaces all paths of a module by its name if all are listed."""
    listed = {path.partition("/")[2] for path in paths}
    others = {path.partition("/")[2].split("/")[0] for path in among if path.partition("/")[2] not in listed}
    return tuple(sorted({p if p.split("/")[0] in others else p.split("/")[0] for p in listed}))
