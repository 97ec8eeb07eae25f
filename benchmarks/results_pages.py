"""Fills the tables of the documentation with the figures of benchmarks/results/*.jsonl.

    python benchmarks/results_pages.py            # rewrites README.md and docs/**/*.md where a table is not current
    python benchmarks/results_pages.py --check    # exits with status 1 in place of that

A page says in a comment what a table shows, in TOML, and the table follows it:

    <!-- results
    file = "detailer.jsonl"
    title = "scenes"
    [columns]
    "mIoU" = { figure = "miou" }
    [rows]
    "`coarse`: the coarse mask" = { result = "coarse" }
    "the paper, on its test split" = { text = { "mIoU" = "0.693" } }
    -->
    ...
    <!-- end of results -->

A cell is described by the keys above [columns], those of its column and those of its row, the last of which count:

- file, title: the lines of the table; `budget = { fine = 25 }` takes those whose budget has this value. Of several
  lines with the same seed the last that has the result counts, which is the newest.
- result, figure: such as "semi" and "miou". "IoU of cat", "coverage of cat" and "precision of cat" are of a
  class, and `class = "cat"` beside "IoU" says the same; "stage_seconds of semi" and "seconds" are times.
- table, row, column: in place of them, a cell of a table that the run itself has measured, by the first cell of its
  row.
- decimals: default 3.
- heading: what the rows are, above their first column.
- only: of a row, the columns in which it has a cell.
- text: of a row, cells by their column. They are no lines of the file, and the page has to say what they are.

A cell is the mean over the seeds, and ± half their range.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import common

from scarce_jax.sweep.table import spread

TABLE = re.compile(r"<!-- results\n(.*?)-->\n(.*?)<!-- end of results -->", re.DOTALL)
"""A table of a page: its description, and what is generated."""


def pages() -> list[pathlib.Path]:
    """The pages that may have tables."""
    return [common.ROOT / "README.md", *sorted((common.ROOT / "docs").rglob("*.md"))]


def filled(text: str, results: pathlib.Path = common.RESULTS) -> str:
    """The text of a page with all of its tables current.

    Raises:
      ValueError: a description is no TOML, or names a file, line, result or figure that there is not.
    """

    def fill(found: re.Match[str]) -> str:
        described = found[1]
        return f"<!-- results\n{described}-->\n\n{table(tomllib.loads(described), results)}\n\n<!-- end of results -->"

    opened = text.count("<!-- results\n")
    if opened != len(TABLE.findall(text)) or opened != text.count("<!-- end of results -->"):
        raise ValueError("a table lacks its `<!-- results`, its `-->` or its `<!-- end of results -->`")
    return TABLE.sub(fill, text)


def table(described: Mapping[str, Any], results: pathlib.Path = common.RESULTS) -> str:
    """The Markdown of one table, with a sentence on where its figures stand."""
    shared = dict(described)
    columns, rows = shared.pop("columns"), shared.pop("rows")
    lines = [[shared.pop("heading", ""), *columns], ["---"] * (1 + len(columns))]
    used: dict[tuple[str, str], list[int]] = {}
    for label, row in rows.items():
        row = dict(row)
        text = row.pop("text", {})
        # A row of text alone has no other cells.
        measured = [heading for heading in row.pop("only", columns if row else ()) if heading not in text]
        if unknown := {*measured, *text} - columns.keys():
            raise ValueError(f"row {label!r}: no column {', '.join(sorted(unknown))}")
        cells = []
        for heading, column in columns.items():
            if heading not in measured:
                cells.append(text.get(heading, ""))
                continue
            spec = {**shared, **column, **row}
            found = lines_of(spec, results)
            cells.append(cell(spec, found))
            used[spec["file"], spec["title"]] = [line["config"]["seed"] for line in found]
        lines.append([label, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{source(used)}"


def lines_of(spec: Mapping[str, Any], results: pathlib.Path) -> list[Mapping[str, Any]]:
    """The newest line of each seed that has the result, in the order of the seeds."""
    path = results / spec["file"]
    if not path.is_file():
        raise ValueError(f"no file {path.name} in benchmarks/results")
    budget = spec.get("budget", {})
    newest = {}
    for line in map(json.loads, path.read_text().splitlines()):
        stated = line["config"]["budget"]
        seed = line["config"]["seed"]
        if line["title"] != spec["title"] or any(stated[key] != value for key, value in budget.items()):
            continue
        # A line without the result stays only where no line has it, for the message of `cell`.
        if seed not in newest or spec.get("result") in (None, *line["results"]):
            newest[seed] = line
    if not newest:
        raise ValueError(f"{path.name}: no line with the title {spec['title']!r}{f' and {budget}' if budget else ''}")
    found = [newest[seed] for seed in sorted(newest)]
    if any(line["config"]["budget"] != found[0]["config"]["budget"] for line in found):
        raise ValueError(f"{path.name}: the lines {spec['title']!r} have several budgets; say which one is meant")
    return found


def cell(spec: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
    """Mean and half range of a figure over lines."""
    try:
        figure = spread([value(spec, line) for line in lines])
    except (KeyError, IndexError) as error:
        raise ValueError(f"{spec['file']}: the lines {spec['title']!r} have no {error} for {spec}") from error
    decimals = spec.get("decimals", 3)
    mean = f"{figure['mean']:,.{decimals}f}"
    return mean if figure["n"] == 1 else f"{mean} ± {figure['half_range']:.{decimals}f}"


def value(spec: Mapping[str, Any], line: Mapping[str, Any]) -> float:
    """The figure of one line. Raises KeyError or IndexError if it has none."""
    if "table" in spec:
        content = line["tables"][spec["table"]]
        (row,) = [row for row in content["rows"] if row[0] == spec["row"]] or [[]]
        return dict(zip(content["columns"], row, strict=False))[spec["column"]]
    figure, _, part = spec["figure"].partition(" of ")
    if figure == "seconds":
        return line["seconds"]
    if figure == "stage_seconds":
        return line["stage_seconds"][part]
    measured = line["results"][spec["result"]]
    part = part or spec.get("class")
    if not part:
        return measured[figure]
    return measured["per_class" if figure == "IoU" else f"{figure}_per_class"][part]


def source(used: Mapping[tuple[str, str], Sequence[int]]) -> str:
    """Where the figures of a table stand, and of how many runs they are."""
    files = " and ".join(f"`benchmarks/results/{name}`" for name in dict.fromkeys(name for name, _ in used))
    seeds = sorted({seed for of in used.values() for seed in of})
    several = [of for of in used.values() if len(of) > 1]
    if not several:
        runs = "One seed."
    else:
        listed = ", ".join(map(str, seeds))
        runs = f"Means of seeds {listed} ± half their range" + (
            "." if len(several) == len(used) else "; without ±, one seed."
        )
    return f"*{runs} Lines of {files}.*"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say which pages are not current")
    check = parser.parse_args().check
    behind = []
    for page in pages():
        text = page.read_text()
        name = page.relative_to(common.ROOT)
        try:
            current = filled(text)
        except ValueError as error:
            raise SystemExit(f"{name}: {error}") from error
        if current != text:
            behind.append(str(name))
            if not check:
                page.write_text(current)
    if behind:
        print("not current:" if check else "rewritten:", *behind)
    return 1 if check and behind else 0


if __name__ == "__main__":
    sys.exit(main())
