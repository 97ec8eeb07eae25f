"""The figures of docs/robustness.md, from the lines of results."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from attacks import flips, values

BEGIN, END = "<!-- figures: python benchmarks/robustness.py --write -->", "<!-- end of figures -->"

Line = dict[str, Any]


class Table(NamedTuple):
    """The lines of an attack as a table.

    Attributes:
      title: what was done.
      key: entry that tells the lines of one call apart; the last line of each counts.
      columns: heading -> the cell of a line. Those with numbers get a sum.
    """

    title: str
    key: str
    columns: dict[str, Callable[[Line], Any]]


def _entry(key: str) -> Callable[[Line], Any]:
    return lambda line: line[key]


def _blows(line: Line) -> int:
    return sum(line["statuses"].values())


def _status(status: str) -> Callable[[Line], int]:
    return lambda line: line["statuses"].get(status, 0)


def _outcomes(names: Sequence[str]) -> dict[str, Callable[[Line], Any]]:
    return {
        "tried": lambda line: sum(line[name] for name in names),
        **{name: _entry(name) for name in reversed(names)},
    }


_CARRIED = {
    "carried through": _entry("rounds"),
    "equal to the bit": _entry("equal"),
    "failed": lambda line: len(line["failed"]),
    "processes left": _entry("processes_left"),
}

TABLES = {
    "kills": Table(
        "Killed with SIGKILL and given again, until it ended",
        "job",
        {"command": _entry("job"), "kills": _blows, "of these at a call that changes a file": _entry("at_calls")}
        | _CARRIED
        | {"leftover files": lambda line: len(line["leftovers"])},
    ),
    "signals": Table(
        "Sent SIGINT or SIGTERM, with its process group, and given again",
        "job",
        {"command": _entry("job"), "signals": _blows, "status 130": _status("130")} | _CARRIED,
    ),
    "flips": Table(
        "One bit flipped, in a finished run or in its prepared dataset",
        "kind",
        {"file": _entry("kind"), **_outcomes(flips.OUTCOMES)},
    ),
    "missing": Table("One file deleted", "kind", {"file": _entry("kind"), **_outcomes(flips.OUTCOMES)}),
    "values": Table("Values that a field or flag cannot have", "attack", _outcomes(values.OUTCOMES)),
    "files": Table(
        "Source folders, read by check, prepare, the training reader and predict's reader",
        "group",
        {
            "folders": lambda line: {"kinds": "one for each kind of file", "folders": "drawn from seeds"}[
                line["group"]
            ],
            **{key: _entry(key) for key in ("tried", "accepted", "refused", "differing")},
        },
    ),
    "formats": Table(
        "Exports of annotation tools",
        "export",
        {
            "export": _entry("export"),
            "format seen": lambda line: line["format"] if line["recognised"] else "no",
            "check is clean": lambda line: "yes" if line["clean"] else "no",
            **{"masks": _entry("masks"), "equal to the known ones": _entry("equal")},
        },
    ),
}


def sheet(lines: Sequence[Line]) -> str:
    """All tables, as Markdown."""
    return "\n\n".join(_table(lines, attack, table) for attack, table in TABLES.items())


def _table(lines: Sequence[Line], attack: str, table: Table) -> str:
    last = {line[table.key]: line for line in lines if line["attack"] == attack}
    rows = [[cell(line) for cell in table.columns.values()] for line in last.values()]
    if len(rows) > 1:
        columns = list(zip(*rows, strict=True))
        rows.append([sum(c) if all(isinstance(x, int) for x in c) else "" for c in columns])
        rows[-1][0] = "all"
    cells = [list(table.columns), ["---"] * len(table.columns), *rows]
    shown = "\n".join(f"| {' | '.join(map(str, row))} |" for row in cells) if last else "Not measured."
    made = sorted(
        {f"{(line['git_revision'] or 'no checkout')[:12]} on JAX {line['versions']['jax']}" for line in last.values()}
    )
    command = f"`python benchmarks/robustness.py {attack}`"
    return f"### {table.title}\n\n{command}{', revision ' if made else ''}{' and '.join(made)}\n\n{shown}"


def write(lines: Sequence[Line], path: pathlib.Path) -> None:
    """Replaces the figures in a document."""
    text = path.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    path.write_text(f"{before}{BEGIN}\n\n{sheet(lines)}\n\n{END}{after}")
