"""Exceptions that are not faults of the program: wrong input, and a request to stop."""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """A file, a folder or a config field of the user's is wrong.

    The message names the file or field, what was found, what was expected and what to do. The command line prints it
    without a traceback and exits with status 1; Python callers catch it like any exception.
    """


class Interrupted(Exception):
    """The user asked the run to stop (SIGTERM, Ctrl-C), and its state is saved."""


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error message, "; did you mean NAME?" with the most similar name, or "" where none is similar."""
    near = difflib.get_close_matches(name, list(names), 1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
