"""Preparing a dataset, so that a failed build leaves nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator

from scarce_jax.data.builders.base import SegmentationBuilder
from scarce_jax.data.builders.folder import Folder
from scarce_jax.data.builders.formats import Options
from scarce_jax.data.builders.listing import changes
from scarce_jax.data.builders.metadata import DamagedDataset, read_metadata
from scarce_jax.data.builders.prepared import (
    Prepared,
    builder_class,
    data_root,
    dataset_dir,
    import_builder,
    is_prepared,
    load_prepared,
    prepare_command,
)
from scarce_jax.data.files import as_os_error
from scarce_jax.errors import InputError

log = logging.getLogger("scarce_jax")


def prepare(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    source: str | os.PathLike[str] | None = None,
    *,
    again: bool = False,
    options: Options | None = None,
) -> Prepared:
    """Builds a dataset, unless it is prepared already. A failed build leaves nothing behind.

    Processes that prepare the same dataset wait for one another. One that is prepared already is compared with `source`
    by the names, sizes, times and contents of the files.

    Args:
      name: the dataset's name.
      data_dir: where datasets are prepared; None is `default_data_dir()`.
      source: folder of the dataset's published files; needed unless the dataset is prepared already or generated.
      again: build it even if it is prepared already; the old one is replaced once the new one is complete.
      options: how the source of `folder/NAME` is read; None finds out.

    Raises:
      InputError: the name is unknown, the source is missing or not needed, one of its files is wrong, the dataset is
        prepared already from other files, or it cannot be written.
    """
    import_builder(name)
    builder, config = builder_class(name)
    settings = {} if options is None else {"options": options}
    if settings and not issubclass(builder, Folder):
        raise InputError(f"dataset {name} has one layout; the flags of formats and folders are for folder/NAME alone")
    if source is None and options is not None:
        if (options.images is None) != (options.masks is None):
            raise InputError("without --source DIR, --images DIR and --masks DIR go together; give both")
        source = options.images
    target, root = dataset_dir(name, data_dir), data_root(data_dir)
    aside = f".{name.replace('/', '-')}."
    if is_prepared(name, data_dir) and not again:
        if any(root.glob(f"{aside}*")):
            # A killed build of --again left them, or one is at work; in a folder of another user they stay.
            with contextlib.suppress(OSError), _only_one(root / f"{aside}lock", wait=False):
                _discard_remains(target, [path for path in root.glob(f"{aside}*") if path.is_dir()])
        _compare(name, builder, target, data_dir, source, options)
        return load_prepared(name, data_dir)
    try:
        with _new_folders_undone(root), _only_one(root / f"{aside}lock"):
            _discard_remains(target, [path for path in root.glob(f"{aside}*") if path.is_dir()])
            if again or not is_prepared(name, data_dir):
                folder = _checked_source(name, builder, source)
                # In the same root, because it is renamed to `target`.
                with tempfile.TemporaryDirectory(prefix=aside, dir=root) as new, _new_folders_undone(target.parent):
                    instance = builder(data_dir=new, source=folder, config=config, **settings)
                    instance.download_and_prepare(download_dir=pathlib.Path(new, "downloads"))
                    _replace(target, pathlib.Path(new) / target.relative_to(root))
            else:  # Another process has prepared it meanwhile.
                _compare(name, builder, target, data_dir, source, options)
    except (OSError, RuntimeError) as error:
        reason = error if isinstance(error, OSError) else as_os_error(error)
        if not isinstance(reason, OSError):
            raise
        raise InputError(
            f"{target}: dataset {name} cannot be written there ({reason}); make room or choose another --data-dir, and "
            f"run the command again"
        ) from error
    return load_prepared(name, data_dir)


def _compare(
    name: str,
    builder: type[SegmentationBuilder],
    target: pathlib.Path,
    data_dir: str | os.PathLike[str] | None,
    source: str | os.PathLike[str] | None,
    options: Options | None,
) -> None:
    """Raises InputError if the files of a given source are others than those that a dataset was prepared from."""
    folder = None if source is None else _checked_source(name, builder, source)
    flags, others = (options.flags, options.others) if options is not None else ((), ())
    if folder is not None and (found := changes(folder, target, flags, others)):
        anew = prepare_command(name, data_dir, again=True, source=source, flags=flags)
        how = ", or by other flags" if "--" in found else ""
        raise InputError(
            f"dataset {name} was prepared before, from files that differ from those in {folder}{how}: {found}; nothing "
            f"was changed. To prepare it from these: {anew}"
        )


def _replace(target: pathlib.Path, new: pathlib.Path) -> None:
    """Moves a complete dataset to `target`; `_discard_remains` undoes a replacement that was interrupted."""
    old = target.with_name(f"replaced.{target.name}")
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _checked_source(
    name: str, builder: type[SegmentationBuilder], source: str | os.PathLike[str] | None
) -> pathlib.Path | None:
    if not builder.HOLDS:
        if source is not None:
            raise InputError(f"--source {source}: dataset {name} is generated and has no source; leave the flag out")
        return None
    if source is None:
        raise InputError(f"dataset {name} needs --source DIR, a folder that holds {builder.HOLDS}")
    folder = pathlib.Path(source).expanduser()
    if not folder.is_dir():
        fault = "a file" if folder.exists() else "missing"
        raise InputError(f"--source {folder}: {fault}, expected a folder that holds {builder.HOLDS}")
    return folder


def _discard_remains(target: pathlib.Path, asides: Iterable[pathlib.Path]) -> None:
    """Deletes what interrupted builds left; raises InputError if another builder made a dataset at `target`."""
    for remains in (*asides, *target.parent.glob(f"incomplete.*_{target.name}")):
        shutil.rmtree(remains)
    old = target.with_name(f"replaced.{target.name}")
    if old.exists():
        if target.exists():
            shutil.rmtree(old)
        else:
            old.rename(target)
    if not target.exists():
        return
    try:
        if read_metadata(target) is not None:
            return
    except DamagedDataset as error:
        log.info("built anew: %s", error)
    shutil.rmtree(target)


@contextlib.contextmanager
def _new_folders_undone(folder: pathlib.Path) -> Iterator[None]:
    """Creates `folder`; if the block fails, removes it and its parents, if they are new and empty."""
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
def _only_one(path: pathlib.Path, wait: bool = True) -> Iterator[None]:
    """Holds a file lock, which the system releases if this process dies; BlockingIOError if it may not wait for it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            raise
        # The last holder has deleted the file. A lock on the deleted file would exclude nobody, so try again.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(handle.fileno()).st_ino:
                break
        handle.close()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        handle.close()
