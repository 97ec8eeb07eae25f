"""`scarce-jax init FOLDER`: proposes classes and a config for a folder of photographs and masks."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from scarce_jax.cli import prepare
from scarce_jax.cli.common import (
    Flat,
    Folder,
    Name,
    Switch,
    command_line,
    dataset_name,
    devices_at_hand,
    next_commands,
    parse,
    shown,
)
from scarce_jax.cli.source import SourceFlags
from scarce_jax.errors import InputError, plural

if TYPE_CHECKING:
    from scarce_jax.proposal import Plan, Seen


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `init`.

    Attributes:
      folder: a folder of photographs and masks, or the export of an annotation tool.
      name: the dataset will be folder/NAME; default the folder's name.
      out: the config file to write; default NAME.py in the current folder.
      device: cpu or gpu, for which the config is sized; default the one at hand.
      dry_run: only print what would be written.
      prepare: also prepare the dataset; files that an earlier init wrote are kept.
      data_dir: folder of prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    """

    folder: Annotated[pathlib.Path, tyro.conf.Positional, shown("FOLDER")]
    name: Name = None
    out: Annotated[pathlib.Path | None, shown("FILE")] = None
    device: Annotated[Literal["cpu", "gpu"] | None, shown("cpu|gpu")] = None
    dry_run: Switch = False
    prepare: Switch = False
    data_dir: Folder = None
    source_flags: Annotated[SourceFlags, Flat] = dataclasses.field(default_factory=SourceFlags)


EDIT = ": rename the classes there before the next command; what is 0 or black is taken for the background"
ABOUT = "Looks at a folder of photographs and masks, and writes a classes.json if none lists the classes, and a config."


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns 1 if a file of the folder must be mended first."""
    options = parse(Options, argv, "init", ABOUT)
    if not options.folder.is_dir():
        state = "a file" if options.folder.exists() else "missing"
        raise InputError(f"{options.folder}: {state}, expected a folder of photographs and masks; give its path")
    name = _name(options)
    out = _out(options, name)

    from scarce_jax.data.builders.formats import Options as SourceOptions
    from scarce_jax.proposal import config_text, look, plan

    seen = look(options.folder, SourceOptions(**options.source_flags.given()))
    print(_describe(seen))
    if seen.layout is None:
        print("\nNothing was written: mend what is listed above first.")
        next_commands(command_line("init", *argv))
        return 1
    try:
        chosen = plan(seen.layout, seen.sizes, *_device(options.device))
    except InputError as error:
        raise InputError(f"{options.folder}: {error}") from error
    print(f"Method: {chosen.method or f'the shipped config {chosen.shipped}'}, for {chosen.why}.\n")
    files = {}
    if seen.classes is not None:
        seen, path = _classes_file(seen, out)
        files[path] = json.dumps(seen.classes, ensure_ascii=False) + "\n"
    if chosen.method is not None:
        files[out] = config_text(chosen, f"folder/{name}", shlex.quote(str(out)))
    for path, content in files.items():
        if options.dry_run:
            print(f"{path} would be:\n\n{content}")
        elif path.exists() and options.prepare:
            print(f"{path}: kept as it is")
        else:
            _write(path, content)
            unnamed = path != out and "class 1" in content and not options.prepare
            print(f"wrote {path}{EDIT if unnamed else ''}")
    return _next(options, seen, chosen, name, out)


def _name(options: Options) -> str:
    """NAME of folder/NAME."""
    name = options.name or dataset_name(options.folder)
    if not re.fullmatch(r"[a-z0-9_-]+", name):
        raise InputError(f"--name {name}: expected a name of a-z, 0-9, - and _, such as pets")
    return name


def _out(options: Options, name: str) -> pathlib.Path:
    """The config file, which does not exist yet unless --prepare keeps it."""
    out = options.out or pathlib.Path(f"{name}.py")
    if options.dry_run:
        return out
    if out.exists() and not options.prepare:
        raise InputError(f"{out}: exists, and is kept; name another file with --out FILE, or add --prepare to go on")
    if not out.parent.is_dir():
        raise InputError(f"{out}: {out.parent} is no folder; name another file with --out FILE")
    return out


def _device(kind: Literal["cpu", "gpu"] | None) -> tuple[Literal["cpu", "gpu"], int]:
    """The kind of device that the config is for, and how many a batch must suit."""
    if kind == "cpu":
        return kind, 1
    devices = devices_at_hand()
    gpus = len(devices) if devices and devices[0].platform != "cpu" else 0
    return kind or ("gpu" if gpus else "cpu"), max(gpus, 1)


def _describe(seen: Seen) -> str:
    lines = [str(seen.report)]
    if seen.layout is not None:
        tagged = sum(item.tags is not None for item in seen.layout.items())
        lines += [f"Tags: of {plural(tagged, 'photograph')}."] if tagged else []
        sizes = [f"{w}x{h} ({count:,})" for (h, w), count in seen.sizes.items()]
        more = f" and {plural(len(sizes) - 4, 'other')}" if len(sizes) > 4 else ""
        lines.append(f"Sizes: {', '.join(sizes[:4])}{more}.")
    return "\n".join(lines)


def _classes_file(seen: Seen, out: pathlib.Path) -> tuple[Seen, pathlib.Path]:
    """Where classes.json is to stand: in the folder, or, if nobody may write there, beside the config."""
    if os.access(seen.source, os.W_OK):
        return seen, seen.source / "classes.json"
    path = out.with_name(f"{out.stem}_classes.json")
    return dataclasses.replace(seen, options=dataclasses.replace(seen.options, classes=path)), path


def _write(path: pathlib.Path, content: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError as error:
        raise InputError(f"{path}: exists, and is kept; move it away, or name another with --out FILE") from error


def _next(options: Options, seen: Seen, chosen: Plan, name: str, out: pathlib.Path) -> int:
    """Prepares the dataset if that is asked for, and prints the commands that are left."""
    from scarce_jax.data.builders import prepare_command

    line = prepare_command(f"folder/{name}", options.data_dir, source=seen.source, flags=seen.options.flags)
    if options.prepare and not options.dry_run:
        print()
        return prepare.main(shlex.split(line)[2:], out)
    if chosen.method is None:
        split = None if chosen.measured else "None"
        train = command_line(
            "train", chosen.shipped, dataset=f"folder/{name}", eval_split=split, data_dir=options.data_dir
        )
    else:
        train = command_line("train", out, data_dir=options.data_dir)
    next_commands(line, train)
    return 0
