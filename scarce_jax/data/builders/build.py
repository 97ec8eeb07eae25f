"""Preparing a dataset: whatever happens, nothing half-built stays behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator

from scarce_jax.data.builders.base import SegmentationBuilder
from scarce_jax.data.builders.prepared import (
    METADATA,
    Prepared,
    builder_class,
    data_root,
    dataset_dir,
    is_prepared,
    load_prepared,
    read_metadata,
)
from scarce_jax.errors import InputError


def prepare(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    source: str | os.PathLike[str] | None = None,
    *,
    again: bool = False,
) -> Prepared:
    """Builds a dataset, or finds it built; whatever happens, nothing half-built stays behind.

    Processes that prepare the same dataset wait for one another.

    Args:
      name: of the dataset.
      data_dir: where it is built; None is `default_data_dir()`.
      source: the folder of its published files; needed unless the dataset is built already or generated.
      again: build it also where it is there; it is replaced when the new one is complete.

    Raises:
      InputError: the name is unknown, the source is missing or not needed, or one of its files is wrong.
    """
    builder, config = builder_class(name)
    target, root = dataset_dir(name, data_dir), data_root(data_dir)
    if is_prepared(name, data_dir) and not again:
        return load_prepared(name, data_dir)
    aside = f".{name.replace('/', '-')}."
    try:
        with _new_folders_undone(root), _only_one(root / f"{aside}lock"):
            _discard_remains(target, [path for path in root.glob(f"{aside}*") if path.is_dir()])
            if again or not is_prepared(name, data_dir):
                folder = _checked_source(name, builder, source)
                with _new_folders_undone(target.parent), tempfile.TemporaryDirectory() as downloads:

                    def build(data_dir: str | pathlib.Path) -> None:
                        instance = builder(data_dir=data_dir, source=folder, config=config)
                        instance.download_and_prepare(download_dir=downloads)

                    if target.exists():
                        # On the same disk, because it is renamed into its place.
                        with tempfile.TemporaryDirectory(prefix=aside, dir=root) as new:
                            build(new)
                            _replace(target, pathlib.Path(new) / target.relative_to(root))
                    else:
                        build(root)
    except OSError as error:
        raise InputError(f"{target}: dataset {name} cannot be written there ({error})") from error
    return load_prepared(name, data_dir)


def _replace(target: pathlib.Path, new: pathlib.Path) -> None:
    """Puts a complete dataset in its place; `_discard_remains` undoes a replacement that was cut short."""
    old = _replaced(target)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _replaced(target: pathlib.Path) -> pathlib.Path:
    return target.with_name(f"replaced.{target.name}")


def _checked_source(
    name: str, builder: type[SegmentationBuilder], source: str | os.PathLike[str] | None
) -> pathlib.Path | None:
    if not builder.HOLDS:
        if source is not None:
            raise InputError(f"--source {source}: dataset {name} is generated and takes no source; leave it out")
        return None
    if source is None:
        raise InputError(f"dataset {name} needs --source DIR, a folder that holds {builder.HOLDS}")
    folder = pathlib.Path(source).expanduser()
    if not folder.is_dir():
        fault = "a file" if folder.exists() else "missing"
        raise InputError(f"--source {folder}: {fault}, expected a folder that holds {builder.HOLDS}")
    return folder


def _discard_remains(target: pathlib.Path, asides: Iterable[pathlib.Path]) -> None:
    """Removes what a killed build or an interrupted copy left; never a dataset that somebody else's builder made."""
    for remains in (*asides, *target.parent.glob(f"incomplete.*_{target.name}")):
        shutil.rmtree(remains)
    old = _replaced(target)
    if old.exists():
        if target.exists():
            shutil.rmtree(old)
        else:
            old.rename(target)
    if not target.exists() or read_metadata(target) is not None:
        return
    if (target / "dataset_info.json").exists():
        try:
            ours = "coarse_from" in json.loads((target / METADATA).read_text())
        except FileNotFoundError:
            ours = False
        except ValueError:
            ours = True
        if not ours:
            raise InputError(f"{target}: holds another tfds dataset of this name; choose another --data-dir")
    shutil.rmtree(target)


@contextlib.contextmanager
def _new_folders_undone(folder: pathlib.Path) -> Iterator[None]:
    """Makes `folder`; if the block fails, removes it and its parents as far as they are new and empty."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for path in new:
                path.rmdir()
        raise


@contextlib.contextmanager
def _only_one(path: pathlib.Path) -> Iterator[None]:
    """Holds a lock file, which the system releases should this process die."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
        fcntl.flock(handle, fcntl.LOCK_EX)
        # Its last holder deletes the file; whoever waited for it then holds a lock that nobody else will meet.
        if path.exists() and path.stat().st_ino == os.fstat(handle.fileno()).st_ino:
            break
        handle.close()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        handle.close()
