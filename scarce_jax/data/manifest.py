"""The label budget as a run keeps it: the ids of every role, and their hash."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping

from scarce_jax.data.files import write_atomically
from scarce_jax.errors import InputError

ROLES = ("fine", "coarse", "tags", "unlabelled")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The ids of every role in one split of one version of a dataset.

    Attributes:
      roles: for each of `ROLES` its example ids: `fine` are those whose fine masks may be used; `coarse` and `tags`
        all that have them; the others than `fine` are `unlabelled`. All in the order of the draw, so that the first
        n of a role are a draw of n.
      strong_categories: the classes that may have fine masks: an image is strong, and may be one of `fine`, if all its
        labels are among them. Empty where every class is.
      fine_per_class: class name -> how many of `fine` show it, by their tags. It follows from the rest and is no part
        of the hash.
    """

    dataset: str
    version: str
    split: str
    roles: Mapping[str, tuple[str, ...]]
    strong_categories: tuple[str, ...] = ()
    fine_per_class: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of all that was chosen: equal for equal manifests, everywhere."""
        return hashlib.sha256(_canonical(self._content()).encode()).hexdigest()

    @functools.cached_property
    def role_hashes(self) -> dict[str, str]:
        """Role -> SHA-256 (hex) of dataset, version, split and the role's ids in their order."""
        where = [self.dataset, self.version, self.split]
        return {
            role: hashlib.sha256(_canonical([*where, role, list(ids)]).encode()).hexdigest()
            for role, ids in self.roles.items()
        }

    def _content(self) -> dict:
        return {
            "dataset": self.dataset,
            "version": self.version,
            "split": self.split,
            "roles": {role: list(ids) for role, ids in self.roles.items()},
            "strong_categories": list(self.strong_categories),
        }

    def write(self, path: str | os.PathLike) -> None:
        """Writes JSON; the file appears whole or not at all."""
        with write_atomically(path) as aside:
            content = {**self._content(), "fine_per_class": dict(self.fine_per_class), "hash": self.hash}
            aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike) -> Manifest:
        """The manifest that `write` left.

        Raises:
          InputError: the file is missing or damaged, or its content does not give its hash.
        """
        try:
            content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
            stored = content["hash"]
            manifest = cls(
                dataset=content["dataset"],
                version=content["version"],
                split=content["split"],
                roles={role: tuple(ids) for role, ids in content["roles"].items()},
                strong_categories=tuple(content["strong_categories"]),
                fine_per_class=dict(content["fine_per_class"]),
            )
        except OSError as error:
            raise InputError(f"{path}: the label budget cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: damaged ({type(error).__name__}: {error}); restore it, or begin again in another --workdir"
            ) from error
        if manifest.hash != stored:
            raise InputError(
                f"{path}: its content has the hash {manifest.hash[:12]}, expected {str(stored)[:12]}: "
                "it was changed or damaged; restore it, or begin again in another --workdir"
            )
        return manifest


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
