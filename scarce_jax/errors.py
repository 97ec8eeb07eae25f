"""Exceptions that are not bugs (wrong input, a request to stop), and parts of their messages."""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """A file, a folder or a config field that the user gave is wrong.

    The message names the file or field, what was found, what was expected and what to do. The command line prints it
    without a traceback and exits with status 1.
    """


class UsageError(InputError):
    """Flags or arguments that do not go together. The command line exits with status 2."""


class Interrupted(Exception):
    """The run was stopped by SIGTERM or Ctrl-C, after its state was saved."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns "; did you mean NAME?" with the most similar name, or "" if none is similar."""
    near = difflib.get_close_matches(name, list(names), 1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def some(names: Iterable[str], limit: int = 5) -> str:
    """Returns the first `limit` names, and ", ..." if there are more."""
    names = list(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def plural(count: int, what: str) -> str:
    """Returns "1 image" or "2 images"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def printable(text: object) -> str:
    """The text with control characters and bytes that are not UTF-8 escaped, for terminals and JSON."""
    clean = str(text).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in clean)
