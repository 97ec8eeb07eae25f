"""The one exception that means: what was given is wrong, and here is what to do about it."""


class InputError(Exception):
    """Something the user gave (a file, a folder, a config field) is wrong.

    The message names the file or field, what was found, what was expected and what to do. The command line prints it
    without a traceback and exits with status 1; Python callers catch it like any exception.
    """
