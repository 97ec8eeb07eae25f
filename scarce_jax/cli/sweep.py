"""`scarce-jax sweep CONFIG --over FIELD=V1,V2`: one run per combination, a table and a curve of their results."""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from scarce_jax.cli.common import Folder, Switch, parse_with_config, print_json, table
from scarce_jax.errors import InputError


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `sweep` beside the config's fields.

    Attributes:
      over: a field and its values; given again, every combination is run. A+B=1+2,3+4 changes two fields together,
        and paper.TABLE takes the rows of a table in the config's `paper`. A comma in a value is quoted or
        written as \\,
      workdir: folder of the sweep, with one run folder a combination. The same command again goes on in it.
      data_dir: prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      dry_run: only print the runs and their steps; needs no data and compiles nothing.
      json: end standard output with one JSON object.
    """

    over: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(metavar="FIELD=V1,V2", help_behavior_hint=""),
    ] = ()
    workdir: Annotated[pathlib.Path, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
    data_dir: Folder = None
    dry_run: Switch = False
    json: Switch = False


ABOUT = "Runs a config for every combination of some fields' values, and tabulates the results."


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    _, options, config = parse_with_config(Options, argv, "sweep", ABOUT)
    over: dict[str, list[Any] | None] = {}
    for item in options.over:
        key, values = parse_axis(item, argv, config)
        if key in over:
            raise InputError(f"--over {key}: given twice; give all its values in one")
        over[key] = values

    from scarce_jax import mesh
    from scarce_jax.sweep import plan, sweep

    if options.dry_run:
        _, runs, described = plan(config, over, options.data_dir)
        found = [{"run": run.name, **stages} for run, stages in zip(runs, described, strict=True)]
        print_json({"runs": found}) if options.json else print(_planned(found))
        return 0
    mesh.initialize()
    found = sweep(config, over, options.workdir, data_dir=options.data_dir)
    if mesh.is_primary():
        print(_shown(found, options.workdir))
        if options.json:
            print_json({"sweep": str(options.workdir), **found})
    if found["failed"]:
        raise InputError(_failures(found))
    return 0


def parse_axis(item: str, argv: Sequence[str], config: Any) -> tuple[str, list[Any] | None]:
    """`FIELD=V1,V2` as a key of `over` of `sweep.sweep` and its values, parsed as the flags of those fields are.

    Args:
      argv: the command's words, from CONFIG on.
      config: the config with the fields that `argv` gives.

    Raises:
      InputError: it is no such text, a value does not fit, or the field is given in `argv` as well.
      SystemExit: status 2 after the parser's own message: an unknown field, or a value of another type.
    """
    key, given, listed = item.partition("=")
    key = key.replace("-", "_")
    if not given and not key.startswith("paper."):
        raise InputError(f"--over {item}: expected FIELD=V1,V2")
    try:
        mark = "+" if "+" in key else ""
        points = [[shlex.split(word) for word in _split(point, mark)] for point in _split(listed, ",")]
    except ValueError as error:
        raise InputError(f"--over {item}: {error}; close the quotation or write \\ before the mark") from error
    if key.startswith("paper."):
        return key, [" ".join(words) for (words,) in points] if given else None
    fields = key.split("+")
    for word in argv:
        if word.startswith("--") and _plain(word) in fields:
            raise InputError(f"--over {item}: {_plain(word)} is also given as {word.partition('=')[0]}; give it once")
    return key, [_parsed(item, fields, point, argv, config) for point in points]


def _parsed(item: str, fields: Sequence[str], point: Sequence[list[str]], argv: Sequence[str], config: Any) -> Any:
    if len(point) != len(fields) or not all(point):
        shown = "+".join(" ".join(words) for words in point)
        raise InputError(f"--over {item}: expected {len(fields)} value(s) joined by + for each run, found {shown!r}")
    flags = [word for field, words in zip(fields, point, strict=True) for word in _flag(config, field, words)]
    try:
        changed = parse_with_config(Options, [*argv, *flags], "sweep", ABOUT)[2]
    except InputError as error:
        raise InputError(f"--over {item}: {error}") from error
    values = tuple(_get(changed, field) for field in fields)
    return values if len(fields) > 1 else values[0]


def _flag(config: Any, field: str, words: list[str]) -> list[str]:
    """The words that give a field this value on the command line of `train`."""
    kind = _type(config, field)
    lower = words[0].lower()
    if kind is bool and len(words) == 1 and lower in ("true", "false"):
        head, dot, last = field.rpartition(".")
        return [f"--{head}{dot}{last}" if lower == "true" else f"--{head}{dot}no-{last}"]
    if lower == "none" and type(None) in typing.get_args(kind):
        words = ["None"]
    # In one word where it can be: a value may begin with a minus.
    return [f"--{field}={words[0]}"] if len(words) == 1 else [f"--{field}", *words]


def _type(config: Any, field: str) -> Any:
    """The declared type of a field, None where there is no such field: the parser says that best."""
    *path, last = field.split(".")
    try:
        for part in path:
            config = config[int(part)] if part.isdigit() else getattr(config, part)
        return typing.get_type_hints(type(config)).get(last)
    except (AttributeError, LookupError, TypeError):
        return None


def _get(config: Any, field: str) -> Any:
    for part in field.split("."):
        config = config[int(part)] if part.isdigit() else getattr(config, part)
    return config


def _plain(flag: str) -> str:
    """A flag as the field's name: without dashes, value and `no-`."""
    name = flag.removeprefix("--").partition("=")[0].replace("-", "_")
    head, dot, last = name.rpartition(".")
    return f"{head}{dot}{last.removeprefix('no_')}"


def _split(text: str, mark: str) -> list[str]:
    """Splits at a mark that is neither quoted nor after a backslash; quotes and backslashes stay."""
    parts, quote, escaped = [""], "", False
    for letter in text:
        if letter == mark and not quote and not escaped:
            parts.append("")
            continue
        parts[-1] += letter
        if escaped or (letter == "\\" and quote != "'"):
            escaped = not escaped
        elif letter in "\"'" and quote in ("", letter):
            quote = "" if quote else letter
    return parts


def _planned(runs: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(stage["name"] for run in runs for stage in run["stages"] if stage["kind"] == "train"))
    rows = []
    for run in runs:
        steps = {stage["name"]: stage["steps"] for stage in run["stages"]}
        rows.append([run["run"], *(steps.get(name) for name in names)])
    return table(rows, ["run", *(f"{name} steps" for name in names)]) + f"\n\n{len(runs)} runs"


def _shown(found: dict[str, Any], workdir: pathlib.Path) -> str:
    from scarce_jax.sweep.axes import text
    from scarce_jax.sweep.table import main_figure

    labels = [label for axis in found["axes"] if not axis["repeats"] for label in axis["fields"]]
    results = list(dict.fromkeys(name for row in found["rows"] for name in row["results"]))
    mains = {name: main_figure(result) for row in found["rows"] for name, result in row["results"].items()}
    rows = []
    for row in found["rows"]:
        cells = [_cell(row["results"][name], mains[name]) if name in row["results"] else None for name in results]
        settings = [text(row["values"][label]) for label in labels] or [found["method"]]
        rows.append([*settings, *cells])
    figure = "mIoU (or mAP)" if "map" in mains.values() else "mIoU"
    about = f"{figure} on {found['dataset']}/{found['split']}: mean ± half the range over repeats (their number)"
    if any(result["paper"] is not None for row in found["rows"] for result in row["results"].values()):
        about += ", the paper's in brackets"
    notes = [
        f"{', '.join(f'{label} {text(value)}' for label, value in row['values'].items()) or 'all'}: the paper has "
        + ", ".join(f"{field} {x['paper']} (here {x['here']})" for field, x in row["paper_differs"].items())
        for row in found["rows"]
        if row["paper_differs"]
    ]
    named = [name if mains[name] == "miou" else f"{name} (mAP)" for name in results]
    shown = [table(rows, [*(labels or ["method"]), *named]), "", about, *notes]
    return "\n".join(["", *shown, f"{workdir / 'table.json'}, {workdir / 'curve.png'}"])


def _cell(result: dict[str, Any], figure: str) -> str | None:
    found, paper = result[figure], result["paper"]
    cited = [] if paper is None else [f"[{paper:g}]"]
    if not found["n"]:
        return " ".join(cited) or None
    half = [f"± {found['half_range']:.3f}"] if found["n"] > 1 else []
    return " ".join([f"{found['mean']:.3f}", *half, f"({found['n']})", *cited])


def _failures(found: dict[str, Any]) -> str:
    """Names what failed, runs that failed for one reason together."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in found["failed"].items():
        by_reason.setdefault(reason, []).append(name)
    total = sum(len(row["runs"]) for row in found["rows"])
    lines = [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]
    return f"{len(found['failed'])} of {total} runs failed, the others are done:\n  " + "\n  ".join(lines)
