"""The files of a run folder: their content, their checksums, and what belongs together."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from scarce_jax.data.files import is_plain_name, read_checked_json, read_json, write_checked_json
from scarce_jax.data.records import MEAN
from scarce_jax.data.schema import Byte, NativeId
from scarce_jax.errors import InputError
from scarce_jax.training import fingerprint as fp

log = logging.getLogger("scarce_jax")

FORMAT = 2
"""Number of the format; it is in config.json."""

CONFIG, MANIFEST, STAGE, DONE, SUMMARY = "config.json", "manifest.json", "stage.json", "DONE", "summary.json"

_BLOCK = 1 << 20


@dataclasses.dataclass
class _Dataset:
    name: str
    versions: dict[str, str]


@dataclasses.dataclass
class Facts:
    """What config.json holds at least."""

    format: int
    method: str
    config: dict[str, Any]
    dataset: _Dataset
    classes: list[str]
    palette: list[tuple[Byte, Byte, Byte]]
    background: int | None
    native_ids: list[NativeId] | None
    steps: dict[str, int | None]
    devices: list[str]
    versions: dict[str, str | None]
    git_revision: str | None
    command: list[Any]
    void_ids: list[NativeId] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Done:
    """What DONE holds at least. `files` has size and CRC-32 of what the stage left; the CRC-32 of records is None."""

    name: str
    kind: str
    fingerprint: str
    seconds: float
    read: dict[str, Any]
    files: dict[str, tuple[int, int | None]]
    steps: int | None = None
    examples: int | None = None
    init_from: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class _Named:
    name: str


@dataclasses.dataclass
class Summary:
    """What summary.json holds at least."""

    seconds: float
    stages: list[_Named]
    results: dict[str, dict[str, Any]]
    tables: dict[str, Any]


class OtherFormat(InputError):
    """A run folder has a format that this version cannot read."""


def _check_format(path: pathlib.Path) -> None:
    facts = read_json(path)
    found = facts.get("format") if isinstance(facts, dict) else None
    if found == FORMAT:
        return
    if isinstance(found, int) and found < FORMAT:
        advice = "an older scarce-jax made it: use that version, or train again in another --workdir"
    else:
        advice = "a newer scarce-jax made it, or the file is damaged: update scarce-jax, or restore it"
    raise OtherFormat(f"{path}: format {found!r}, expected {FORMAT}; {advice}")


def read_facts(run_dir: pathlib.Path) -> dict[str, Any]:
    """Reads the config.json of a run, whose content is that of `Facts`.

    Raises:
      InputError: `run_dir` is not a run folder, has another format or holds a link, pipe or device, or the file is
        changed or damaged.
    """
    path = run_dir / CONFIG
    if not path.exists():
        raise InputError(f"{run_dir}: not a run folder (it has no config.json); expected what `scarce-jax train` made")
    refuse_links(run_dir)
    _check_format(path)
    remedy = "restore it, or run the train command again, which writes it anew"
    facts = read_checked_json(path, Facts, remedy)
    classes, background = len(facts["classes"]), facts["background"]
    fit = {len(facts[key]) for key in ("palette", "native_ids") if facts[key] is not None} == {classes}
    if not (fit and (background is None or 0 <= background < classes)):
        raise InputError(f"{path}: classes, palette, background and native_ids do not fit together; {remedy}")
    return facts


def read_summary(run_dir: pathlib.Path) -> dict[str, Any] | None:
    """Reads summary.json, whose content is that of `Summary`; None if there is none.

    Raises:
      InputError: the file is changed or damaged.
    """
    path = run_dir / SUMMARY
    remedy = "run the train command again, which measures the results anew"
    return read_checked_json(path, Summary, remedy) if path.exists() else None


def read_description(run_dir: pathlib.Path, stage: str) -> dict[str, Any]:
    """Reads the stage.json of a stage; raises InputError if it is missing, changed or damaged."""
    return read_checked_json(run_dir / stage / STAGE, dict[str, Any], _redo(stage))


def read_done(run_dir: pathlib.Path, stage: str) -> dict[str, Any] | None:
    """Reads the DONE of a stage, whose content is that of `Done`; None if the stage is not finished.

    Raises:
      InputError: DONE or stage.json is missing, changed or damaged, or they are not of the same stage.
    """
    if not is_plain_name(stage):
        raise InputError(f"{run_dir}: a stage is called {stage!r}, expected the name of a folder in it")
    path = run_dir / stage / DONE
    if not path.exists():
        return None
    done = read_checked_json(path, Done, _redo(stage))
    if done["fingerprint"] != fp.fingerprint(read_description(run_dir, stage)):
        raise InputError(f"{path}: its fingerprint is not that of {path.with_name(STAGE)}; {_redo(stage)}")
    return done


def write_done(folder: pathlib.Path, done: Mapping[str, Any]) -> None:
    """Writes the DONE of a stage, with a list of the files that the stage left."""
    files = {
        path.relative_to(folder).as_posix(): (path.stat().st_size, _crc(path) if summed else None)
        for path, summed in _left(folder)
    }
    write_checked_json(folder / DONE, {**done, "files": files})


def check_files(run_dir: pathlib.Path, stage: str, done: Mapping[str, Any]) -> None:
    """Checks that a finished stage still has the files that its DONE lists.

    Nets and means are read whole, so that Orbax, whose messages name no file, is handed none that is damaged. Of
    records only the sizes are compared: each has a checksum, which is compared when it is used.

    Raises:
      InputError: a file is missing, has another size, or is damaged.
    """
    for name, (size, crc) in done["files"].items():
        path = run_dir / stage / name
        if not all(map(is_plain_name, name.split("/"))) or not path.is_file():
            raise InputError(f"{path}: is missing, and {stage}/DONE lists it; {_redo(stage)}")
        if path.stat().st_size != size:
            raise InputError(f"{path}: has {path.stat().st_size} bytes, expected {size}; {_redo(stage)}")
        if crc is not None and _crc(path) != crc:
            raise InputError(f"{path}: damaged (its checksum differs); {_redo(stage)}")


def begun(run_dir: pathlib.Path, stage: str) -> bool:
    """Whether a stage has left anything but a half-written file, which a kill may leave before stage.json."""
    folder = run_dir / stage
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


def refuse_links(run_dir: pathlib.Path) -> None:
    """Raises InputError if a run folder holds a symbolic link, a pipe or a device; the folder itself may be a link."""
    if run_dir.is_dir() and (found := _find_other(run_dir)):
        raise InputError(
            f"{found}: a link, pipe or device, expected files and folders alone in a run folder, because what is read "
            f"and written would lie outside it; put what it leads to in its place, or remove it"
        )


def _find_other(folder: pathlib.Path) -> pathlib.Path | None:
    """Finds an entry that is neither a file nor a folder."""
    try:
        with os.scandir(folder) as scanned:
            entries = list(scanned)
    except FileNotFoundError:  # A command that trains in the run folder has deleted it meanwhile.
        return None
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if found := _find_other(pathlib.Path(entry.path)):
                return found
        elif not entry.is_file(follow_symlinks=False):
            return pathlib.Path(entry.path)
    return None


def check_before_training(run_dir: pathlib.Path) -> None:
    """Raises InputError if `train` must not write to a folder: it holds links, or a run of another format.

    A damaged config.json is named in a warning, because it is written anew.
    """
    refuse_links(run_dir)
    if not (run_dir / CONFIG).exists():
        return
    try:
        read_facts(run_dir)
    except OtherFormat:
        raise
    except InputError as error:
        log.warning("%s", error)


def _redo(stage: str) -> str:
    return f"restore it, or run the train command again with --redo {stage}"


def _left(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, bool]]:
    """The files that a stage left, and whether their content is summed."""
    for path in sorted(folder.glob("nets/**/*")):
        if path.is_file():
            yield path, True
    if (folder / MEAN).exists():
        yield folder / MEAN, True
    for path in sorted(folder.glob("records/*.arrayrecord")):
        yield path, False


def _crc(path: pathlib.Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc
