"""Opening sources: which examples they have, and which labels of each are read."""

from __future__ import annotations

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Container, Sequence

import numpy as np

from scarce_jax.data.budget import Manifest
from scarce_jax.data.records import Records
from scarce_jax.data.schema import FIELD_WORDS
from scarce_jax.data.source import ExampleField, Field, Reader, RecordField, Rows
from scarce_jax.errors import InputError, plural
from scarce_jax.recipe import Artifact, Chosen, MostConfident, Read, Recipe, Source

log = logging.getLogger("scarce_jax")


@dataclasses.dataclass
class Inputs:
    """Opens the sources of one run. Readers and records are cached."""

    data_dir: str | None
    run_dir: pathlib.Path
    manifest: Manifest | None
    recipe: Recipe

    def __post_init__(self):
        self.reader = functools.cache(lambda dataset, split: Reader(dataset, split, self.data_dir))
        self.records = functools.cache(lambda stage: Records(self.run_dir / stage / "records"))
        self._warn_once = functools.cache(log.warning)
        self._values: dict[Artifact, dict[str, float]] = {}
        # Fitting reads all records.
        self._fitted = functools.cache(self._fit)

    def ids(self, source: Source, hidden_truth: bool = False) -> tuple[str, ...]:
        """Returns the example ids of a source, in order: those that have every field and one of the labels.

        Args:
          source: the source.
          hidden_truth: whether labels count that the budget does not grant (see `Eval`).

        Raises:
          InputError: there are none, none in the source's part, or fewer than `Source.take`.
        """
        where = f"{source.dataset}/{source.split}"
        candidates = tuple(dict.fromkeys(name for part in source.id_parts for name in self._ids_of(source, part)))
        if source.part is not None:
            candidates = source.part.of(candidates, where)
        kind = source.ids_in_words
        ids, lacking = candidates, []
        for fields in (*((field,) for field in (*source.fields, *source.having)), source.labels):
            holders = [self._holders(field, source, fields is source.labels, hidden_truth) for field in fields]
            complete = tuple(name for name in ids if any(name in having for having in holders)) if fields else ids
            if len(complete) < len(ids):
                lacking.append(" or ".join(map(_in_words, fields)))
            ids = complete
        if lacking:
            what = ", ".join(dict.fromkeys(lacking))
            if not ids:
                raise InputError(
                    f"{where}: none of its {len(candidates)} images ({kind}) has all fields that a stage reads; they "
                    f"lack: {what}; add some to the source and prepare it with --again, or use another split "
                    f"({self._flag_of(source)})"
                )
            out = len(candidates) - len(ids)
            self._warn_once(
                f"{where}: {out} of {len(candidates)} images ({kind}) are left out because they lack: {what}"
            )
        if source.take is not None:
            if source.take > len(ids):
                raise InputError(
                    f"{where}: {len(ids)} {kind} images, expected the {source.take} that a stage takes; let it take "
                    f"fewer (--student.images), or leave more without fine masks (--budget.fine)"
                )
            ids = ids[: source.take]
        if not ids:
            reader = self.reader(source.dataset, source.split)
            if source.ids in FIELD_WORDS and not reader.has[source.ids].any():
                raise InputError(
                    f"{where}: none of its {len(reader)} images has a {FIELD_WORDS[source.ids]}, which a stage needs; "
                    f"add some to the source and prepare it with --again"
                )
            raise InputError(f"{where}: no {kind} images, expected at least one; check the budget")
        return ids

    def _flag_of(self, source: Source) -> str:
        """The flag that chooses the split of a source."""
        trained = self.manifest is not None and self.manifest.split == source.split
        return "--train-split" if trained else "--eval-split; of a finished run: --split"

    def known(self, source: Source) -> bool:
        """Whether the ids are known before any stage ran: they do not depend on values in records."""
        fields = (*source.id_parts, *source.fields, *source.labels)
        if any(isinstance(field, Chosen) for field in fields):
            return False
        artifacts = {_artifact(field).stage for field in fields if not isinstance(field, str)}
        return all(self.known(self.recipe.stage(name).source) for name in artifacts)

    def _ids_of(self, source: Source, part: str | Artifact | Chosen) -> tuple[str, ...]:
        if not isinstance(part, str):
            artifact = _artifact(part)
            # A stage leaves records of the examples of its source.
            ids = self.ids(self.recipe.stage(artifact.stage).source)
            return ids if part is artifact else self._choose(part, ids)
        if part == "all":
            return self.reader(source.dataset, source.split).ids
        return self.manifest.roles[part]

    def _choose(self, part: Chosen, ids: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the ids whose records have a large enough value; raises InputError if there are none."""
        if part.artifact not in self._values:
            records = self.records(part.artifact.stage)
            self._values[part.artifact] = {name: float(records.read(name)[part.artifact.name]) for name in ids}
        values = self._values[part.artifact]
        chosen = tuple(name for name in ids if values[name] >= part.at_least)
        if not chosen:
            lower = f"--{part.flag}" if part.flag else "the threshold"
            raise InputError(
                f"{part.artifact}: {len(ids)} values up to {max(values.values()):.3g}, expected some of "
                f"{part.at_least:g} or more; lower {lower}, or train longer what gives them"
            )
        return chosen

    def _holders(
        self, field: str | Artifact | Read, source: Source, is_label: bool, hidden_truth: bool
    ) -> Container[str]:
        """Returns the ids of the examples that have a field; for a label, of those that the budget grants it to."""
        if not isinstance(field, str):
            return frozenset(self.ids(self.recipe.stage(_artifact(field).stage).source))
        granted = self._granted(source, field, hidden_truth) if is_label else None
        if granted is not None:
            return granted
        reader = self.reader(source.dataset, source.split)
        return reader.index.keys() - reader.lacking[field]

    def _granted(self, source: Source, label: str, hidden_truth: bool) -> frozenset[str] | None:
        """Returns the ids of the examples that the budget grants a label to; None if it does not restrict the source.

        It restricts sources of the split that it is drawn from, unless their ids are "all".
        """
        manifest = self.manifest
        if hidden_truth or manifest is None or label not in manifest.roles or "all" in source.id_parts:
            return None
        if (manifest.dataset, manifest.split) != (source.dataset, source.split):
            return None
        return frozenset(manifest.roles[label])

    def open(self, source: Source, hidden_truth: bool = False) -> Rows:
        """Opens the rows of a source, in the order of its ids; arguments as in `ids`."""
        reader = self.reader(source.dataset, source.split)
        return Rows(
            reader=reader,
            indices=[reader.index[name] for name in self.ids(source, hidden_truth)],
            fields=tuple(self.field(field) for field in source.fields),
            labels=tuple(self.label(source, label, hidden_truth) for label in source.labels),
            size=source.size,
            fit=source.fit,
        )

    def label(self, source: Source, label: str | Artifact | Read, hidden_truth: bool = False) -> Field:
        """Opens one of the labels of a source, of the examples that the budget grants it to; arguments as in `ids`."""
        if isinstance(label, str):
            return ExampleField(label, self._granted(source, label, hidden_truth))
        return self.field(label)

    def field(self, field: str | Artifact | Read) -> Field:
        """Opens a field of the dataset, or of the records of a stage."""
        if isinstance(field, str):
            return ExampleField(field)
        artifact = _artifact(field)
        records, read = self.records(artifact.stage), field.read if isinstance(field, Read) else None
        return RecordField(records, artifact.name, self._fitted(artifact.stage, read))

    def _fit(self, stage: str, read: Callable | MostConfident | None) -> Callable | None:
        """What computes an array from an entry of the records of a stage."""
        if not isinstance(read, MostConfident):
            return read
        records = self.records(stage)
        return read.fitted(map(records.read, records.ids))


def _artifact(field: Artifact | Read | Chosen) -> Artifact:
    return field if isinstance(field, Artifact) else field.artifact


def _in_words(field: str | Artifact | Read) -> str:
    return FIELD_WORDS[field] if isinstance(field, str) else str(_artifact(field))


def draws(source: Source, reader: Reader, indices: Sequence[int]) -> np.ndarray | None:
    """How often each of a source's examples is drawn per epoch, float [N]; None draws each once.

    Raises:
      InputError: none is drawn.
    """
    if source.weight is None:
        return None
    weights = source.weight(reader.tags[list(indices)])
    if weights.sum() < 0.5:
        raise InputError(
            f"{source.dataset}/{source.split}: none of its {plural(len(indices), 'image')} ({source.ids_in_words}) "
            f"shows a class by which they are drawn; choose other images with --budget.fine, --budget.seed or "
            f"--train-split"
        )
    return weights
