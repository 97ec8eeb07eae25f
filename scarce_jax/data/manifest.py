"""The manifest of a run: which examples have which role under the label budget."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping

from scarce_jax.data.files import read_checked_json, write_checked_json

REMEDY = "restore it, or run the train command again, which writes it anew"

ROLES = ("fine", "coarse", "tags", "unlabelled")


@dataclasses.dataclass
class _Content:
    dataset: str
    version: str
    split: str
    roles: dict[str, list[str]]
    strong_categories: list[str]
    fine_per_class: dict[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The ids of every role in one split of one version of a dataset.

    Attributes:
      roles: role (one of `ROLES`) -> example ids. `fine`: examples whose fine masks may be used. `coarse` and `tags`:
        all examples that have them. `unlabelled`: all examples that are not in `fine`. Every role is in the order of
        the draw, so its first n ids are a draw of n.
      strong_categories: the classes that may have fine masks; empty if all classes may.
      fine_per_class: class name -> number of `fine` examples whose tags include it. Not part of the hash.
    """

    dataset: str
    version: str
    split: str
    roles: Mapping[str, tuple[str, ...]]
    strong_categories: tuple[str, ...] = ()
    fine_per_class: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of dataset, version, split, roles and strong categories."""
        return _hash(self._content())

    @functools.cached_property
    def role_hashes(self) -> dict[str, str]:
        """Role -> SHA-256 (hex) of dataset, version, split and the role's ids in order."""
        where = (self.dataset, self.version, self.split)
        return {role: _hash((*where, role, ids)) for role, ids in self.roles.items()}

    def _content(self) -> dict:
        return {x.name: getattr(self, x.name) for x in dataclasses.fields(self) if x.name != "fine_per_class"}

    def write(self, path: str | os.PathLike) -> None:
        """Writes the manifest as JSON, atomically."""
        write_checked_json(path, {**self._content(), "fine_per_class": self.fine_per_class, "hash": self.hash})

    @classmethod
    def read(cls, path: str | os.PathLike) -> Manifest:
        """Reads a manifest that `write` wrote.

        Raises:
          InputError: the file is missing, changed or damaged.
        """
        content = read_checked_json(pathlib.Path(path), _Content, REMEDY)
        return cls(
            dataset=content["dataset"],
            version=content["version"],
            split=content["split"],
            roles={role: tuple(ids) for role, ids in content["roles"].items()},
            strong_categories=tuple(content["strong_categories"]),
            fine_per_class=content["fine_per_class"],
        )


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
