"""`scarce-jax configs [show NAME]`: lists the configs that come with the package, or prints the file of one."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated

import tyro

from scarce_jax import shipped
from scarce_jax.cli.common import WIDE, Switch, parse, print_json, shown
from scarce_jax.errors import UsageError

ABOUT = "Lists the configs that come with scarce-jax, or prints the file of one: `configs show NAME > my.py`."

HOW = """\
scarce-jax train NAME runs one. To start your own: scarce-jax configs show NAME > my.py, then scarce-jax train my.py"""


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `configs`.

    Attributes:
      words: show NAME prints the file of a config, such as detailer_scenes; without it, all are listed.
      json: end standard output with one JSON object, of the list.
    """

    words: Annotated[tuple[str, ...], tyro.conf.Positional, shown("[show NAME]")] = ()
    json: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Options, argv, "configs", ABOUT)
    if not options.words:
        _list(as_json=options.json)
        return 0
    action, *names = options.words
    if action != "show":
        raise UsageError(f"configs {action}: expected show NAME, as in: scarce-jax configs show {options.words[-1]}")
    if len(names) != 1:
        raise UsageError(
            f"configs show: expected the name of one config, found {len(names)}; `scarce-jax configs` lists them"
        )
    if options.json:
        raise UsageError("configs show: prints a Python file, and no JSON; leave out --json")
    print(shipped.path_of(names[0]).read_text(encoding="utf-8"), end="")
    return 0


def _list(*, as_json: bool) -> None:
    from scarce_jax import methods

    names = shipped.names()
    # A config is named after its method.
    groups = {method: [name for name in names if name.startswith(f"{method}_")] for method in methods.NAMES}
    summaries = {name: shipped.summary(name) for name in names}
    print("\n\n".join(_group(method, {n: summaries[n] for n in group}) for method, group in groups.items() if group))
    print(f"\n{HOW}")
    if as_json:
        listed = [{"name": n, "method": m, "summary": summaries[n]} for m, group in groups.items() for n in group]
        print_json({"configs": listed})


def _group(method: str, summaries: Mapping[str, str]) -> str:
    """A heading, and for each name its summary, wrapped beside it."""
    columns = min(shutil.get_terminal_size((WIDE, 24)).columns, WIDE)
    width = max(map(len, summaries))
    lines = [method]
    for name, summary in summaries.items():
        start, indent = f"  {name:{width}s}  ", " " * (width + 4)
        # Beside a long name in a narrow terminal there is no room.
        if columns < 2 * len(indent):
            lines.append(f"  {name}")
            start = indent = " " * 6
        lines += textwrap.wrap(summary, columns, initial_indent=start, subsequent_indent=indent)
    return "\n".join(lines)
