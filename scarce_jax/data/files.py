"""Reading text and JSON, checksums in JSON, and atomic writes."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import pathlib
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

from scarce_jax.errors import InputError

NOT_UTF8 = "not a text in UTF-8; if it is one in another encoding, save it again as UTF-8"

ASIDE = ".aside"
"""Suffix of a file while it is written; a crash may leave one behind."""

DEAD = 3600
"""Seconds after which a file that is written within moments, and without a lock, is that of a killed process."""


def read_lines(path: pathlib.Path, expected: str) -> list[str]:
    """Reads the lines of a UTF-8 text file; raises InputError, whose message has `expected`, if that fails."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {NOT_UTF8}; expected {expected}") from error
    except OSError as error:
        raise InputError(f"{path}: not a readable text file ({error.strerror}); expected {expected}") from error


def read_json(path: pathlib.Path, expected: str = "JSON that scarce-jax wrote") -> Any:
    """Reads a JSON file; raises InputError, whose message has `expected`, if it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected {expected}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {NOT_UTF8}; expected {expected}") from error
    # JSON that is nested too deeply ends in a RecursionError.
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error}); expected {expected}") from error


def write_json(path: str | os.PathLike, value: object) -> None:
    """Writes JSON atomically, and creates the file's folder."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as aside:
        aside.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


CHECKSUM = "checksum"
"""The last key of a JSON object that `seal` made."""


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """Adds a checksum to a JSON object, over all else in it. Tuples become lists."""
    plain = json.loads(json.dumps(value))
    return {**plain, CHECKSUM: _checksum(plain)}


def unseal(value: Any) -> dict[str, Any]:
    """Inverts `seal`; raises ValueError if the object has no checksum or another one."""
    if not isinstance(value, dict):
        raise ValueError(f"found a {type(value).__name__}, expected an object")
    plain = dict(value)
    stored = plain.pop(CHECKSUM, None)
    if stored is None:
        raise ValueError("it has no checksum")
    if stored != _checksum(plain):
        raise ValueError("its content does not match its checksum")
    return plain


def _checksum(plain: dict[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write_checked_json(path: str | os.PathLike, value: Mapping[str, Any]) -> None:
    """Writes a JSON object with a checksum, atomically, and creates the file's folder."""
    write_json(path, seal(value))


def read_checked_json(path: pathlib.Path, kind: Any, remedy: str = "") -> dict[str, Any]:
    """Reads a JSON object that `write_checked_json` wrote.

    Args:
      path: the file.
      kind: a dataclass or `dict` type: the object must have its fields, with values of their types, and may have
        others.
      remedy: what to do if the file is damaged, for the message.

    Raises:
      InputError: the file is missing or not JSON, its content does not match its checksum, or a key is missing or has a
        value of another type.
    """
    # Not at the top, because it takes a while and most users of this module read no such file.
    import pydantic

    advice = f"; {remedy}" if remedy else ""
    try:
        value = unseal(json.loads(path.read_bytes().decode()))
        pydantic.TypeAdapter(kind).validate_python(value)
    except FileNotFoundError as error:
        raise InputError(f"{path}: is missing{advice}") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg']}{advice}") from error
    # JSON that is nested too deeply ends in a RecursionError.
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: changed or damaged ({error}){advice}") from error
    return value


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary file to write to, which is renamed to `path` when the block ends without an error.

    Readers see the old file or the whole new one, even after a crash or a power cut. A link at `path` is replaced, and
    what it leads to stays as it is.

    Raises:
      OSError: the file cannot be written; its `filename` is `path`.
    """
    path = pathlib.Path(path)
    # Shortened, because a file system allows 255 bytes.
    aside = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}{ASIDE}")
    with naming(path):
        # Made here, under a name that nobody knows beforehand, so that a link cannot wait there.
        os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
        try:
            yield aside
            sync(aside)
            aside.replace(path)
            # The rename changes the folder, which must reach the disk too.
            sync(path.parent)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink()


def is_dead(status: os.stat_result) -> bool:
    """Whether a temporary file is so old (`DEAD`) that no process writes to it any more."""
    return time.time() - status.st_mtime > DEAD


def discard_asides(path: pathlib.Path) -> None:
    """Deletes what killed writes of a file left beside it; what another process may be writing stays."""
    for aside in path.parent.glob(f".{glob.escape(path.name[:40])}.*{ASIDE}"):
        with contextlib.suppress(OSError):
            if is_dead(aside.lstat()):
                aside.unlink()


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Gives errors of the file system inside the block the path: those of a write name no file, others may name one
    aside.
    """
    try:
        yield
    except OSError as error:
        error.filename = os.fspath(path)
        raise


def as_os_error(error: RuntimeError) -> Exception:
    """Returns the error of the file system that another library's error tells in its text; `error` if it tells none."""
    told = [code for code in errno.errorcode if os.strerror(code) in str(error)]
    return OSError(told[0], os.strerror(told[0])) if told else error


def sync(path: pathlib.Path) -> None:
    """Waits until a file or folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_plain_name(name: str) -> bool:
    """Whether a name stands for a file or folder directly in a folder, and leads nowhere else."""
    return name not in ("", ".", "..") and not {"/", "\\", "\0"} & set(name)
