"""`scarce-jax sweep CONFIG --over FIELD=V1,V2`: one run per combination, with a table and a curve of the results."""

from __future__ import annotations

import ast
import dataclasses
import pathlib
import re
import shlex
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from scarce_jax.cli.common import (
    Folder,
    Switch,
    foreign,
    next_commands,
    parse_with_config,
    print_json,
    recipe_table,
    shown,
    table,
)
from scarce_jax.errors import InputError, plural


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `sweep` besides the config's fields.

    Attributes:
      over: a field and its values; with several --over, every combination is run. A+B=1+2,3+4 changes two fields
        together, and paper.TABLE takes the rows of a table in the config's `paper`.
      workdir: folder of the sweep, with one run folder per combination; default runs/<config>-sweep-<8 hex of its
        values>. The same command goes on in it.
      data_dir: folder of prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      dry_run: only print the runs and their steps; compiles nothing, and needs no data but of a dataset of one's own.
      json: end standard output with one JSON object.
    """

    over: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], shown("FIELD=V1,V2")] = ()
    workdir: Folder = None
    data_dir: Folder = None
    dry_run: Switch = False
    json: Switch = False


ABOUT = "Runs a config for every combination of some fields' values, and tabulates the results."


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    path, options, config = parse_with_config(Options, argv, "sweep", ABOUT)
    over: dict[str, list[Any] | None] = {}
    for argument in options.over:
        key, values = parse_axis(argument)
        if key in over:
            raise InputError(f"--over {key}: given twice; give all values in one --over")
        over[key] = values

    from scarce_jax import mesh
    from scarce_jax.config_files import default_workdir
    from scarce_jax.sweep import plan, sweep
    from scarce_jax.sweep.table import planned_figures

    if options.dry_run:
        _, runs, descriptions = plan(config, over, options.data_dir)
        planned = [
            {
                "run": run.name,
                "dataset": run.config.dataset,
                "split": run.config.eval_split,
                "paper": planned_figures(run, config),
                **stages,
            }
            for run, stages in zip(runs, descriptions, strict=True)
        ]
        print_json({"runs": planned}) if options.json else print(_planned(planned))
        return 0
    mesh.initialize()
    workdir = options.workdir or default_workdir(config, f"{path.stem}-sweep")
    results = sweep(config, over, workdir, data_dir=options.data_dir)
    if mesh.is_primary():
        print(_shown(results, workdir))
        if options.json:
            print_json({"sweep": str(workdir), **results})
    if results["failed"]:
        raise InputError(_failures(results))
    if mesh.is_primary() and not options.json:
        data = f" --data-dir {shlex.quote(str(options.data_dir))}" if options.data_dir else ""
        imports = " --allow-import" if foreign(config, *(over.get("dataset") or ())) else ""
        next_commands(f"scarce-jax report {shlex.quote(str(workdir))}/*/{data}{imports}")
    return 0


def parse_axis(argument: str) -> tuple[str, list[Any] | None]:
    """A key and its values for the argument `over` of `sweep.sweep`.

    Values are written as in a config file (10, 0.5, True, None, [64, 96], 'a,b'); true, false and none are allowed too,
    and any other value is a string.

    Args:
      argument: `FIELD=V1,V2`, or a table of the paper, which needs no values.

    Raises:
      InputError: `argument` has no values, or an empty one.
    """
    key, equals, listed = argument.partition("=")
    key = key.replace("-", "_")
    if not equals:
        if key.startswith(PAPER):
            return key, None
        raise InputError(f"--over {argument}: expected FIELD=V1,V2")
    points = COMMA.split(listed)
    if not all(points):
        raise InputError(f"--over {argument}: a value is empty; expected FIELD=V1,V2")
    if "+" in key:
        return key, [tuple(map(_value, point.split("+"))) for point in points]
    return key, [_value(point) for point in points]


PAPER = "paper."  # The constant of `sweep.paper`, without its slow imports.

COMMA = re.compile(r""",(?=(?:[^'"]*['"][^'"]*['"])*[^'"]*$)(?![^\[]*\])""")
"""A comma outside quotes and brackets."""

WORDS = {"true": True, "false": False, "none": None, "null": None}


def _value(text: str) -> Any:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text


UNKNOWN = "?"
"""What the plan shows for a number of steps that depends on the data."""

FEW = 8
"""Largest number of rows of a table whose figures the plan shows."""


def _planned(runs: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(stage["name"] for run in runs for stage in run["stages"] if stage["kind"] == "train"))
    rows = []
    for run in runs:
        steps = {stage["name"]: UNKNOWN if stage["steps"] is None else stage["steps"] for stage in run["stages"]}
        measured = "nothing" if run["split"] is None else f"{run['dataset']}/{run['split']}"
        rows.append([run["run"], measured, *(steps.get(name) for name in names)])
    lines = [line for run in runs if (line := _stated(run["run"], run["paper"]))]
    cited = ["the paper's figures:", *lines, ""] if lines else []
    legend = [f"{UNKNOWN}: only the data tell", ""] if any(UNKNOWN in row for row in rows) else []
    plan = table(rows, ["run", "measured on", *(f"{n} steps" for n in names)])
    return "\n".join([plan, "", *legend, *cited, plural(len(runs), "run")])


def _stated(run: str, paper: dict[str, Any]) -> str:
    """The paper's figures for a run, but those of single classes; "" if it has none."""
    from scarce_jax.data.figures import is_figure

    words = []
    for result, figures in paper["figures"].items():
        known = [f"{name} {value:g}" for name, value in figures.items() if is_figure(name)]
        if not known and len(figures) <= FEW:  # Rows of a table of the method.
            known = [
                f"{row} ({', '.join(f'{k} {v:g}' for k, v in cells.items() if v is not None)})"
                for row, cells in figures.items()
            ]
        words.append(f"{result} {', '.join(known) or f'({len(figures)} rows)'}" if figures else f"{result} (no figure)")
    return f"{run}: {'; '.join(words)}, on {paper['split']}" if words else ""


def _shown(results: dict[str, Any], workdir: pathlib.Path) -> str:
    from scarce_jax.data.figures import AT_SIZE, is_group_figure
    from scarce_jax.sweep.paper import text
    from scarce_jax.sweep.table import main_figure

    swept = results["rows"]
    fields = [field for axis in results["axes"] if not axis["repeats"] for field in axis["fields"]]
    mains = {name: main_figure(result) for row in swept for name, result in row["results"].items()}
    columns = [
        (name, figure) for name, main in mains.items() for figure in ((main, AT_SIZE) if main == "miou" else (main,))
    ]
    of_groups = {
        (name, figure)
        for row in swept
        for name, result in row["results"].items()
        for figure, spread in result.items()
        if is_group_figure(figure) and spread["paper"] is not None
    }
    columns += sorted(of_groups)
    rows = [[text(row["values"][field]) for field in fields] or [results["method"]] for row in swept]
    for cells, row in zip(rows, swept, strict=True):
        cells += [_cell(row["results"].get(name, {}).get(figure)) for name, figure in columns]
    places = dict.fromkeys(f"{row['dataset']}/{row['split']}" for row in swept)
    about = (
        f"{'mIoU (or mAP)' if 'map' in mains.values() else 'mIoU'} on {', '.join(places)}: mean ± half the range over "
        f"repeats (their number)"
    )
    if any("[" in (cell or "") for cells in rows for cell in cells[len(fields) :]):
        about += ", the paper's in brackets where it has just these settings"
    header = [name if figure == "miou" else f"{name} ({HEADINGS.get(figure, figure)})" for name, figure in columns]
    tables = [
        f"{run}, {recipe_table(name, content)}"
        for row, run in zip(swept, (row["runs"][0] for row in swept), strict=True)
        for name, content in row["tables"].items()
    ]
    elsewhere = [
        f"The paper's figures for {_stated(row['runs'][0], row['paper'])}, which is not measured here."
        for row in swept
        if row["paper"] and row["paper"]["split"] != row["split"]
    ]
    parts = [
        "",
        table(rows, [*(fields or ["method"]), *header]),
        "",
        about,
        *map(_gain, results["gains"]),
        *tables,
        *elsewhere,
    ]
    return "\n".join([*parts, f"{workdir / 'table.json'}, {workdir / 'curve.png'}"])


HEADINGS = {"map": "mAP", "miou_at_size": "at size"}
"""Figures beside the mIoU, in the headings of columns."""


def _cell(figure: dict[str, Any] | None) -> str | None:
    if figure is None:
        return None
    cited = [] if figure["paper"] is None else [f"[{figure['paper']:g}]"]
    if not figure["n"]:
        return " ".join(cited) or None
    half = [f"± {figure['half_range']:.3f}"] if figure["n"] > 1 else []
    return " ".join([f"{figure['mean']:.3f}", *half, f"({figure['n']})", *cited])


def _gain(gain: dict[str, Any]) -> str:
    ((field, over),) = gain["over"].items()
    mean = "not measured in all of them" if gain["mean"] is None else f"{gain['mean']:.4f}"
    rows = ", ".join(map(str, over))
    return f"{gain['of']} less {gain['less']}, mean over {field} {rows}: {mean} [{gain['paper']:g}]"


def _failures(results: dict[str, Any]) -> str:
    """The runs that failed, grouped by their reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in results["failed"].items():
        by_reason.setdefault(reason, []).append(name)
    total = sum(len(row["runs"]) for row in results["rows"])
    lines = [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]
    return f"{len(results['failed'])} of {total} runs failed, the others are done:\n  " + "\n  ".join(lines)
