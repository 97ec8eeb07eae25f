"""Orbax checkpoints, verified by a checksum per array.

Orbax writes atomically, but does not detect flipped bits when it loads. So every save stores the CRC-32, shape and
dtype of each array in the metadata of the checkpoint, and every load verifies them.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pathlib
import re
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import serialization, traverse_util
from orbax.checkpoint import v1 as ocp

from scarce_jax import mesh as mesh_lib
from scarce_jax.errors import InputError
from scarce_jax.recipe import NetState

log = logging.getLogger("scarce_jax")


class DamagedCheckpoint(Exception):
    """A checkpoint cannot be read, or differs from what was saved."""


def _leaves(tree: Any) -> dict[str, Any]:
    """Arrays by path, of any tree that Flax can convert to nested dicts."""
    flat = traverse_util.flatten_dict(serialization.to_state_dict(tree), sep="/")
    return {path: leaf for path, leaf in flat.items() if hasattr(leaf, "shape")}


def _checksums(tree: Any) -> dict[str, list]:
    checksums = {}
    for path, leaf in _leaves(tree).items():
        array = np.ascontiguousarray(np.asarray(leaf))
        checksums[path] = [zlib.crc32(array.view(np.uint8).reshape(-1)), list(leaf.shape), str(array.dtype)]
    return checksums


class Saving:
    """A save in progress."""

    def __init__(self, path: pathlib.Path, response: ocp.AsyncResponse):
        self._path, self._response = path, response

    def result(self) -> None:
        """Waits until the checkpoint is on disk; raises InputError if the disk is full or cannot be written."""
        with _storage_failures_explained(self._path):
            self._response.result()


@contextlib.contextmanager
def _storage_failures_explained(path: pathlib.Path) -> Iterator[None]:
    """Deletes a checkpoint whose save failed, and turns errors of the file system into InputError."""
    try:
        yield
    except Exception as error:
        # Other threads of the failed save may still write, and so make the folder again.
        for _ in range(20):
            remove_unfinished(path.parent)
            time.sleep(0.1)
            if not _unfinished(path.parent):
                break
        reason = _storage_failure(error, path.parent)
        if reason is None:
            raise
        raise InputError(
            f"{path}: cannot be saved, {reason}; make room or choose another --workdir, then run the same command "
            f"again: it resumes from the newest complete checkpoint"
        ) from error


def _storage_failure(error: BaseException | None, folder: pathlib.Path) -> str | None:
    """The reason of the file system anywhere in the chain of causes, in words; None if there is none."""
    while error is not None:
        code = getattr(error, "errno", None)
        text = str(error)
        if code in (errno.ENOSPC, errno.EDQUOT) or re.search("No space left|RESOURCE_EXHAUSTED|quota", text):
            return f"no space left ({shutil.disk_usage(folder).free >> 10} KiB free)"
        if code in (errno.EACCES, errno.EROFS, errno.EPERM) or re.search("Permission denied|Read-only", text):
            return "the folder cannot be written"
        error = error.__cause__ or error.__context__
    return None


def save_async(path: pathlib.Path, tree: Any) -> Saving:
    """Starts saving a tree of arrays. They are copied before it returns, so they may be donated afterwards.

    Raises:
      InputError: the disk is full or cannot be written.
    """
    path = path.absolute()
    metadata = {"scarce_jax": {"format": 1, "checksums": _checksums(tree)}}
    with _storage_failures_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        state = serialization.to_state_dict(tree)
        return Saving(path, ocp.save_async(path, state, overwrite=True, custom_metadata=metadata))


def saved_checksums(path: pathlib.Path) -> dict[str, list]:
    """Reads [CRC-32, shape, dtype] of every saved array, by path; raises DamagedCheckpoint."""
    try:
        with _silent():
            checksums = ocp.metadata(path.absolute()).custom_metadata["scarce_jax"]["checksums"]
        return {
            name: [int(crc), [int(n) for n in shape], str(dtype)] for name, (crc, shape, dtype) in checksums.items()
        }
    except Exception as error:
        raise DamagedCheckpoint(f"{path}: its metadata cannot be read ({_first_line(error)})") from error


def load(path: pathlib.Path, like: Any) -> Any:
    """Loads what `save_async` saved, and verifies it.

    Args:
      path: the checkpoint.
      like: a tree of ShapeDtypeStructs with shardings, which determine the devices.

    Raises:
      DamagedCheckpoint: the checkpoint is incomplete or unreadable, or an array differs from what was saved.
    """
    saved = saved_checksums(path)
    expected = _leaves(like)
    if set(saved) != set(expected):
        differing = sorted(set(saved) ^ set(expected))
        raise DamagedCheckpoint(f"{path}: {len(differing)} arrays are missing or unknown, among them {differing[:3]}")
    for name, leaf in expected.items():
        if list(leaf.shape) != saved[name][1]:
            raise DamagedCheckpoint(f"{path}: {name} has shape {saved[name][1]}, expected {list(leaf.shape)}")
    try:
        with _silent():
            tree = ocp.load(path.absolute(), serialization.to_state_dict(like))
        loaded = serialization.from_state_dict(like, tree)
        checksums = _checksums(loaded)
    except Exception as error:
        raise DamagedCheckpoint(f"{path}: cannot be read ({_first_line(error)})") from error
    for name, checksum in saved.items():
        if checksums[name] != checksum:
            raise DamagedCheckpoint(f"{path}: {name} is not what was saved (its checksum differs)")
    return loaded


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps Orbax from logging the failure that is about to be raised."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def remove_unfinished(folder: pathlib.Path) -> None:
    """Deletes the leftovers of interrupted saves and deletions."""
    if mesh_lib.is_primary():
        for path in _unfinished(folder):
            shutil.rmtree(path, ignore_errors=True)


def _unfinished(folder: pathlib.Path) -> list[pathlib.Path]:
    if not folder.is_dir():
        return []
    return [p for p in folder.iterdir() if ".orbax-checkpoint-tmp" in p.name or p.name.startswith(".deleted-")]


class Checkpoints:
    """The checkpoints within one stage, one folder per step; the newest `keep` are kept."""

    def __init__(self, folder: pathlib.Path, keep: int = 2):
        self.folder, self._keep = folder, keep
        self._saving: Saving | None = None
        remove_unfinished(folder)
        mesh_lib.barrier(f"checkpoints {folder}")

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, newest first."""
        if not self.folder.is_dir():
            return []
        return sorted((int(p.name) for p in self.folder.iterdir() if p.name.isdigit()), reverse=True)

    def save(self, step: int, tree: Any) -> None:
        """Starts saving, once the previous save has finished."""
        self.wait()
        self._saving = save_async(self.folder / str(step), tree)

    def wait(self) -> None:
        """Waits until the last save is on disk, and deletes older checkpoints."""
        if self._saving is None:
            return
        saving, self._saving = self._saving, None
        saving.result()
        if mesh_lib.is_primary():
            _remove(self.folder / str(step) for step in self.steps()[self._keep :])

    def load_newest(self, like: Any) -> tuple[int, Any] | None:
        """Loads the newest intact checkpoint: (step, tree), or None. Damaged ones are logged and deleted."""
        damaged = []
        for step in self.steps():
            try:
                tree = load(self.folder / str(step), like)
            except DamagedCheckpoint as error:
                log.warning("damaged checkpoint, using the one before it: %s", error)
                damaged.append(self.folder / str(step))
                continue
            if mesh_lib.is_primary():
                _remove(damaged)
            return step, tree
        return None


def _remove(paths: Iterable[pathlib.Path]) -> None:
    """Renames before deleting, so that a kill in between leaves no half-deleted checkpoint under a valid name."""
    for path in paths:
        aside = path.with_name(f".deleted-{path.name}-{os.getpid()}")
        path.rename(aside)
        shutil.rmtree(aside)


def save_nets(folder: pathlib.Path, nets: Mapping[str, NetState]) -> None:
    """Saves one Orbax item `{"params", "batch_stats"}` per net, and waits until all are on disk."""
    for saving in [save_async(folder / role, net.variables) for role, net in nets.items()]:
        saving.result()


def load_net(path: pathlib.Path, like: NetState, mesh: jax.sharding.Mesh) -> NetState:
    """Loads a net that `save_nets` saved, replicated over the mesh; raises DamagedCheckpoint."""
    variables = load(path, replicated_like(like.variables, mesh))
    return NetState(params=variables["params"], batch_stats=variables["batch_stats"])


def replicated_like(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Returns the `like` of `load`: shapes and dtypes of `tree`, replicated over the mesh."""
    sharding = mesh_lib.replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
