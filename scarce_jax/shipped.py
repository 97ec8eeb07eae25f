"""The configs that come with the package, which are named without folder and suffix, such as `detailer_scenes`."""

from __future__ import annotations

import ast
import os
import pathlib
import runpy
from typing import Any

from scarce_jax.errors import InputError, nearest


def _folder(package: pathlib.Path) -> pathlib.Path:
    """Beside the package in a checkout, which an editable installation uses too; a wheel has them in the package."""
    inside = package / "configs"
    return inside if inside.is_dir() else package.with_name("configs")


FOLDER = _folder(pathlib.Path(__file__).parent)


def names() -> list[str]:
    """The names of all shipped configs, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.py"))


def path_of(name: str) -> pathlib.Path:
    """The file of a shipped config; raises InputError with the most similar name if there is none.

    Args:
      name: such as `detailer_scenes` or `detailer_scenes.py`.
    """
    stem = name.removesuffix(".py")
    if stem not in names():
        raise InputError(
            f"config {name}: none of this name comes with scarce-jax (`scarce-jax configs` lists those that do)"
            f"{nearest(stem, names())}"
        )
    return FOLDER / f"{stem}.py"


def locate(config: str | os.PathLike[str]) -> pathlib.Path:
    """The file of a config that a user names: that of this path, or else the shipped one of this name.

    Raises:
      InputError: there is neither.
    """
    path = pathlib.Path(config)
    if path.is_file():
        return path
    known = path.stem in names()
    if known and path.name == os.fspath(config):
        return path_of(path.name)
    if known:
        raise InputError(
            f"config {config}: no such file; the one that comes with scarce-jax is named without a folder: {path.stem}"
        )
    state = "a folder" if path.is_dir() else "no such file"
    own = path.with_name(f"{path.name}.py") if path.name else path
    raise InputError(
        f"config {config}: {state}; expected a Python file that defines `config`, or the name of one that comes with "
        f"scarce-jax (`scarce-jax configs` lists them)"
        f"{f'; did you mean {own}?' if own.is_file() else nearest(path.stem, names())}"
    )


def variables(name: str) -> dict[str, Any]:
    """Runs a shipped config, and returns its variables: `variables("detailer_scenes")["config"]` is its config.

    A config that changes a few settings of a shipped one starts from it this way, wherever its own file lies.

    Raises:
      InputError: there is no such shipped config.
    """
    return runpy.run_path(str(path_of(name)))


def summary(name: str) -> str:
    """The first line of the docstring of a shipped config, which is not run for it."""
    docstring = ast.get_docstring(ast.parse(path_of(name).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]
