"""Shared by the commands: types of flags, parsing with tyro, config files, tables."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
import re
import runpy
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import tyro

from scarce_jax.errors import InputError, UsageError
from scarce_jax.ranges import Batch, check
from scarce_jax.shipped import locate

if TYPE_CHECKING:
    import jax

log = logging.getLogger("scarce_jax")


def shown(metavar: str | None = None, **options: Any) -> Any:
    """How --help shows a flag, without tyro's "(default: None)": the text of the flag describes its default."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="", **options)


Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff, shown()]


Folder = Annotated[pathlib.Path | None, shown("DIR")]
Name = Annotated[str | None, shown("NAME")]
Number = Annotated[Batch | None, shown("N")]
RunFolder = Annotated[pathlib.Path, tyro.conf.Positional, shown("RUN", name="run")]
ConfigFile = Annotated[
    str,
    tyro.conf.Positional,
    shown(
        "CONFIG",
        help="the name of a config that comes with scarce-jax (`scarce-jax configs` lists them), or a Python file that "
        "defines `config`; an existing file wins.",
    ),
]

Target = Annotated[str | None, shown("GPU", name="gpu")]
"""A GPU to compile for. Its flag is `--target` too, except where the value is one of a config's own field `target`."""

Flat = tyro.conf.arg(name="")
"""For a field that is a dataclass: its own fields are flags without a prefix."""


WIDE = 120
"""Characters of the longest line that is printed."""


_PATHS = tyro.constructors.ConstructorRegistry()
"""How paths among the flags are read."""


@_PATHS.primitive_rule
def _path(annotation: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """Refuses an empty path, which would be the current folder. "~" is the home folder, also in --workdir=~/x, where
    shells leave it alone.
    """
    if annotation.type is not pathlib.Path:
        return None

    def read(words: list[str]) -> pathlib.Path:
        if not words[0]:
            raise UsageError("found an empty path; expected the name of a file or folder, or leave out the flag")
        try:
            return pathlib.Path(words[0]).expanduser()
        except RuntimeError as error:
            raise UsageError(f"{words[0]}: no such home folder; expected ~ or ~USER of this machine") from error

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, pathlib.Path),
        str_from_instance=lambda value: [str(value)],
    )


def parse(options: Any, argv: Sequence[str], command: str, description: str, *, compact: bool = False) -> Any:
    """Parses `argv` into the dataclass `options`; a usage error exits with status 2 and the most similar flag.

    Args:
      compact: --help lists only names and defaults, and --help-verbose also descriptions.

    Raises:
      InputError: a value is out of the range of its flag.
    """
    parsed = tyro.cli(
        options,
        args=list(argv),
        prog=f"scarce-jax {command}",
        description=description,
        compact_help=compact,
        config=(tyro.conf.AvoidSubcommands,),
        registry=_PATHS,
    )
    check(parsed)
    return parsed


def parse_with_config(options: type, argv: Sequence[str], command: str, about: str) -> tuple[pathlib.Path, Any, Any]:
    """Parses `CONFIG [flags]`, where every field of the config is also a flag.

    Args:
      options: dataclass of the command's own flags.
      about: what the command does, for its help.

    Returns:
      The config's file; the options; and the config with the flags applied, without figures of the paper for other
      data (see `sweep.paper.own_figures`).
    """
    rest = list(argv)
    flags = ("options", Annotated[options, Flat])
    if not rest or rest[0].startswith("-"):
        description = (
            f"{about}\n\nEvery field of the config is a flag too, such as --seed 1 or --budget.fine 25; "
            f"`scarce-jax {command} CONFIG --help` lists them."
        )
        without = dataclasses.make_dataclass(command, [("config", ConfigFile), flags], kw_only=True)
        named = parse(without, rest, command, description).config
        rest.remove(named)
    else:
        named = rest.pop(0)
    from scarce_jax.cli.kinds import choose_kinds, kinds_help

    original = load_config(named)
    config, rest = choose_kinds(original, rest)
    if any(field.name == "target" for field in dataclasses.fields(options)):
        rest = _gpu_flags(rest, get_args(get_type_hints(type(config)).get("target")))
    fields = [flags, ("config", Annotated[type(config), Flat], dataclasses.field(default=config))]
    description = f"{about} Every field of the config is a flag; the defaults here are the file's.{kinds_help(config)}"
    flags_and_fields = dataclasses.make_dataclass(command, fields, kw_only=True)
    parsed = parse(flags_and_fields, rest, f"{command} {named}", description, compact=True)
    from scarce_jax.sweep.paper import departures, own_figures

    if command == "train":
        for line in departures(parsed.config, original, named):
            log.warning(line)
    return locate(named), parsed.options, own_figures(parsed.config, original)


def _gpu_flags(argv: Sequence[str], values: Sequence[str]) -> list[str]:
    """`argv` with `--gpu GPU` for `--target GPU`, unless it is one of the values of the config's own field."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] == "--target" and word not in values:
            words[-1] = "--gpu"
        flag, equals, value = word.partition("=")
        words.append(f"--gpu={value}" if flag == "--target" and equals and value not in values else word)
    if words and words[-1] == "--target" and not values:
        words[-1] = "--gpu"
    return words


def load_config(path: str | os.PathLike) -> Any:
    """The variable `config` of a Python file.

    Args:
      path: the file, or the name of a shipped config.

    Raises:
      InputError: the file is missing or fails, or its `config` is missing, not an instance of a method's Config, or has
        a value out of its range.
    """
    from scarce_jax import methods

    file = locate(path)
    try:
        values = runpy.run_path(str(file))
    except InputError as error:
        raise InputError(f"config {path}: {error}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"config {path}: cannot be run ({type(error).__name__}: {error}); correct the file") from error
    if "config" not in values:
        raise InputError(f"config {path}: defines no `config`; assign an instance of a method's Config to this name")
    try:
        methods.name_of(values["config"])
        check(values["config"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return values["config"]


def devices_at_hand() -> Sequence[jax.Device]:
    """The devices of this process, of which no memory is taken; none where JAX_PLATFORMS names a missing platform."""
    # A training may have the GPU's memory, and where JAX finds no GPU it may log a traceback.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.disable()
    import jax

    try:
        return jax.devices()
    except (AssertionError, RuntimeError):
        return ()
    finally:
        logging.disable(logging.NOTSET)


def print_json(value: Mapping[str, Any]) -> None:
    """Prints one JSON object as the last line of standard output."""
    print(json.dumps(value, allow_nan=False))
    sys.stdout.flush()


def next_commands(*commands: str) -> None:
    """Ends standard output with the commands that are likely to be wanted next, one a line, if there are any."""
    if commands:
        print("", *(f"next: {command}" for command in commands), sep="\n", flush=True)


def command_line(*words: object, **flags: object) -> str:
    """A command of scarce-jax, quoted for a shell. A flag of None is left out; one of True has no value."""
    line = ["scarce-jax", *map(str, words)]
    for name, value in flags.items():
        if value is not None and value is not False:
            line += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(line)


def foreign(config: Any, *datasets: str) -> bool:
    """Whether the method of a config, its dataset or one of `datasets` is of a module outside this package."""
    from scarce_jax import methods

    return methods.name_of(config) not in methods.NAMES or any(":" in name for name in (config.dataset, *datasets))


def dataset_name(folder: pathlib.Path) -> str:
    """The name that a folder gives its dataset: what NAME of folder/NAME may be."""
    return re.sub(r"[^a-z0-9_-]+", "_", folder.expanduser().resolve().name.lower()).strip("_-") or "mine"


def table(rows: Sequence[Sequence[Any]], header: Sequence[str], decimals: Sequence[int] = ()) -> str:
    """Plain aligned columns, with numbers to the right.

    Args:
      decimals: of the floats of each column; default 4.
    """
    places = decimals or [4] * len(header)
    cells = [[cell(value, n) for value, n in zip(row, places, strict=True)] for row in rows]
    numeric = [all(isinstance(row[j], int | float) or row[j] is None for row in rows) for j in range(len(header))]
    widths = [max(len(line[j]) for line in [list(header), *cells]) for j in range(len(header))]

    def line(values: Sequence[str]) -> str:
        padded = (v.rjust(w) if right else v.ljust(w) for v, w, right in zip(values, widths, numeric, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), line(["-" * w for w in widths]), *(line(row) for row in cells)])


def recipe_table(name: str, content: Mapping[str, Any]) -> str:
    """A table of the summary; only the report shows those that are too wide for a terminal."""
    text = table(content["rows"], content["columns"])
    if max(map(len, text.splitlines())) > WIDE:
        text = "(too wide for a terminal; in summary.json and the report)"
    further = [f"{key}: {_text(value)}" for key, value in content.items() if key not in ("columns", "rows")]
    lines = [line for value in further for line in textwrap.wrap(value, WIDE)]
    return "\n".join([name, text, *lines])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(entry)}" for key, entry in value.items())
    return cell(value)


def cell(value: Any, decimals: int = 4) -> str:
    """A value as tables show it; "-" for None."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.{decimals}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
