"""The command line: `scarce-jax COMMAND`, also `python -m scarce_jax COMMAND`."""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from scarce_jax.errors import InputError, Interrupted, UsageError, nearest, plural

COMMANDS = {
    "init": "propose classes and a config for a folder of photographs and masks",
    "configs": "list the configs that come with the package, or show one",
    "check": "find what is wrong with images and masks",
    "weights": "list pretrained weights, or say what a file of weights is",
    "prepare": "build a dataset, without TensorFlow",
    "train": "run a config's recipe; goes on where it stopped",
    "sweep": "run a config for every combination of some values",
    "evaluate": "measure a result of a run",
    "report": "one HTML file about one or several runs",
    "predict": "write masks and overlays for image files",
    "replay": "find what began a loss that is not finite",
    "benchmark": "time a config's compiled steps",
}

FROM_CONFIG = ("check", "prepare", "train", "sweep", "benchmark")
"""Commands whose config or dataset the user names, so that it may stand in the current folder."""

DONE, WRONG_INPUT, USAGE, INTERRUPTED = 0, 1, 2, 130

STORAGE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM, errno.EEXIST, errno.ENOTDIR,
    errno.EISDIR, errno.ELOOP, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG, errno.ENOENT,
}  # fmt: skip
"""Errors of a file system that choosing another folder or name can solve."""

ADVICE = "make room or choose another folder, then run the same command again"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 the input is wrong, 2 usage, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with _interruptible():
            status = _run(words)
        # A broken pipe shows here, and not at the interpreter's exit.
        sys.stdout.flush()
        return status
    except SystemExit as error:  # tyro's, after --help or a usage error
        return error.code if isinstance(error.code, int) else DONE if error.code is None else WRONG_INPUT
    except InputError as error:
        print(f"scarce-jax: {error}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else WRONG_INPUT
    except Interrupted as error:
        # With --redo the stage would be deleted again.
        redone = any(word.partition("=")[0] == "--redo" for word in words)
        command = "the same command without --redo" if redone else "the same command"
        print(f"scarce-jax: {error}; {command} goes on from there", file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        print("scarce-jax: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of standard output is gone; without this, the interpreter would report it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        if error.errno not in STORAGE:
            raise
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        advice = "choose a shorter name" if error.errno == errno.ENAMETOOLONG else ADVICE
        print(f"scarce-jax: {where}cannot be read or written ({error.strerror}); {advice}", file=sys.stderr)
        return WRONG_INPUT


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt in the block; the same signal again ends the process at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A caller that has handlers of its own keeps them.
    ours = [n for n, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    for number in ours:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    while frame is not None:
        # Modules in the middle of an import may swallow the exception, or crash.
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"scarce-jax: interrupted\n")
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return DONE if argv else USAGE
    if argv[0] == "--version":
        print(_versions())
        return DONE
    if argv[0] not in COMMANDS:
        print(f"scarce-jax: no command {argv[0]!r}{nearest(argv[0], COMMANDS)}\n\n{_usage()}", file=sys.stderr)
        return USAGE
    _quiet()
    # Users' own methods and datasets can be imported; last, so that they hide no other module. The other commands open
    # run folders, and the current folder may be that of a stranger.
    if (argv[0] in FROM_CONFIG or "--allow-import" in argv) and not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    return importlib.import_module(f"{__name__}.{argv[0]}").main(argv[1:]) or DONE


def _usage() -> str:
    lines = [f"  {name:10s} {what}" for name, what in COMMANDS.items()]
    lines += [
        "",
        "scarce-jax COMMAND --help lists the flags of a command.",
        "scarce-jax --version tells versions and devices.",
    ]
    return "\n".join(["usage: scarce-jax COMMAND ...", "", *lines])


def _versions() -> str:
    """The versions that a report of a fault needs, and the devices at hand."""
    import jax

    from scarce_jax import __version__
    from scarce_jax.cli.common import devices_at_hand

    if devices := devices_at_hand():
        kind = "" if devices[0].device_kind == devices[0].platform else f" ({devices[0].device_kind})"
        at_hand = f"{plural(len(devices), f'{devices[0].platform} device')}{kind}"
    else:
        at_hand = f"no device of JAX_PLATFORMS={jax.config.jax_platforms}"
    return f"scarce-jax {__version__}, jax {jax.__version__}, Python {platform.python_version()}, {at_hand}"


def _quiet() -> None:
    """Prints this library's log lines without decoration, and those of other libraries from warnings on."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours = logging.getLogger("scarce_jax")
    ours.handlers[:] = [handler]
    ours.setLevel(logging.INFO)
    ours.propagate = False
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    # Errors of a save are raised too, and told once.
    absl_logging.get_absl_logger().addFilter(_not_of_orbax)
    # A damaged checkpoint leaves failed tasks in Orbax, which asyncio and uvloop would report beside our message.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _without_closed_loops


def _without_closed_loops(unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname
