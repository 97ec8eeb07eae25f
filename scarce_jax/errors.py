"""The two exceptions that are no fault of the program: what was given is wrong, or the user asked to stop."""


class InputError(Exception):
    """Something the user gave (a file, a folder, a config field) is wrong.

    The message names the file or field, what was found, what was expected and what to do. The command line prints it
    without a traceback and exits with status 1; Python callers catch it like any exception.
    """


class Interrupted(Exception):
    """The run was asked to stop (SIGTERM, Ctrl-C), and its state is saved."""
