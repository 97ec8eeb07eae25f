"""The two exceptions that are no fault of the program: what was given is wrong, or the user asked to stop."""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Something the user gave (a file, a folder, a config field) is wrong.

    The message names the file or field, what was found, what was expected and what to do. The command line prints it
    without a traceback and exits with status 1; Python callers catch it like any exception.
    """


class Interrupted(Exception):
    """The run was asked to stop (SIGTERM, Ctrl-C), and its state is saved."""


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean NAME?` with the name most like this one, as the end of a message; empty where none is like it."""
    near = difflib.get_close_matches(name, list(names), 1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
