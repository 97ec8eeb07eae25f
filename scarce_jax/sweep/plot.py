"""The plot of a sweep: mIoU or mAP over the swept field, with the range of repeats and the paper's figures."""

from __future__ import annotations

import functools
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from scarce_jax.data.figures import AT_SIZE
from scarce_jax.data.files import write_atomically
from scarce_jax.sweep.paper import text
from scarce_jax.sweep.table import MASKS, main_figure

# The palette of Okabe and Ito, which colour-blind readers can distinguish, without yellow, too light for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "os^Dv"
COLUMNS = 3


def draw(table: Mapping[str, Any], path: pathlib.Path) -> None:
    """Writes curve.png from the content of table.json.

    The horizontal axis is the first swept field whose values are all numbers; it is logarithmic if they span more than
    a factor of 10. Each result is a line, with the range over repeats shaded and the paper's figures dashed. Without
    such a field, the combinations are side by side, with one point per run. Every combination of the other swept fields
    has a panel.
    """
    # pyplot would choose a backend for the whole process. Imported here, because matplotlib takes a second.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    axes = [axis for axis in table["axes"] if not axis["repeats"]]
    rows, heading = drawn_rows(table["rows"], table["figure"])
    results = list(dict.fromkeys(name for row in rows for name in row["results"]))
    looks = itertools.cycle(zip(COLOURS, itertools.cycle(MARKERS), strict=False))
    style = dict(zip(results, looks, strict=False))
    numeric = next(((axis, i) for axis in axes for i in range(len(axis["fields"])) if _is_scale(axis, i)), None)
    across = (numeric[0] if numeric else axes[0])["fields"] if axes else []
    if numeric:
        draw_panel = functools.partial(_curves, along=across[numeric[1]])
    else:
        draw_panel = functools.partial(_groups, across=across)
    panels: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        others = [f"{label} {text(value)}" for label, value in row["values"].items() if label not in across]
        panels.setdefault(", ".join(others), []).append(row)
    columns = min(len(panels), COLUMNS)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(2.2 + 4.4 * columns if columns > 1 else 7.2, 0.6 + 3.7 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for index, (axis, panel) in enumerate(itertools.zip_longest(grid.flat, panels.items())):
        if panel is None:
            axis.remove()
            continue
        title, members = panel
        draw_panel(axis, members, style)
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel(across[numeric[1]] if numeric else ", ".join(across))
        axis.tick_params(labelbottom=True)
        axis.grid(axis="y", color="0.9")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        if index % columns == 0:
            axis.set_ylabel(f"{heading} on {table['dataset']}/{table['split']}")
    handles = [
        Line2D([], [], color=colour, marker=marker, label=name, linestyle="-" if numeric else "")
        for name, (colour, marker) in sorted(style.items(), key=lambda style: -_last(rows, style[0]))
    ]
    if any(result["paper"] is not None for row in rows for result in row["results"].values()):
        dashed = "--" if numeric else ""
        handles.append(Line2D([], [], color="0.4", marker="o", mfc="white", linestyle=dashed, label="paper"))
    if numeric and any(result["figure"]["n"] > 1 for row in rows for result in row["results"].values()):
        handles.append(Patch(color="0.4", alpha=0.2, lw=0, label="range over repeats"))
    if handles:
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as aside:
        figure.savefig(aside, format="png", dpi=150)


def drawn_rows(rows: Sequence[Mapping], figure: str = MASKS[0]) -> tuple[list[dict[str, Any]], str]:
    """The rows with the "figure" and "paper" of each result that is drawn, and the name of the figure.

    Masks and image tags have different scales, so only results of the same type as the first one are drawn.

    Args:
      figure: the figure of masks that is drawn if all results have it, so that the paper's stand beside the same.
    """
    results = [result for row in rows for result in row["results"].values()]
    first = main_figure(results[0]) if results else MASKS[0]
    alike = [result for result in results if main_figure(result) == first]
    drawn = figure if first == MASKS[0] and all(figure in result for result in alike) else first
    chosen = [
        {
            **row,
            "results": {
                name: {"figure": result[drawn], "paper": result[drawn]["paper"]}
                for name, result in row["results"].items()
                if main_figure(result) == first
            },
        }
        for row in rows
    ]
    words = {MASKS[0]: "mIoU", AT_SIZE: "mIoU at the size of the prediction", "map": "mAP of tags"}
    return chosen, words.get(drawn) or drawn.replace("miou_", "mIoU ")


def _curves(axis: Any, rows: Sequence[Mapping], style: Mapping[str, tuple[str, str]], along: str) -> None:
    rows = sorted(rows, key=lambda row: row["values"][along])
    swept = sorted({row["values"][along] for row in rows})
    for name, (colour, marker) in style.items():
        points = [(row["values"][along], row["results"][name]) for row in rows if name in row["results"]]
        ours = [(x, result["figure"]) for x, result in points if result["figure"]["n"]]
        xs = [x for x, _ in ours]
        axis.plot(xs, [y["mean"] for _, y in ours], color=colour, marker=marker, markersize=5)
        if any(y["n"] > 1 for _, y in ours):
            known = [[value for value in y["values"] if value is not None] for _, y in ours]
            axis.fill_between(xs, *([end(v) for v in known] for end in (min, max)), color=colour, alpha=0.2, lw=0)
        cited = [(x, result["paper"]) for x, result in points if result["paper"] is not None]
        axis.plot([x for x, _ in cited], [y for _, y in cited], "--", color=colour, marker=marker, mfc="white", lw=1)
    if swept[0] > 0 and swept[-1] > 10 * swept[0]:
        axis.set_xscale("log")
    if len(swept) <= 10:
        axis.set_xticks(swept, [text(x) for x in swept])
        axis.set_xticks([], minor=True)


def _groups(axis: Any, rows: Sequence[Mapping], style: Mapping[str, tuple[str, str]], across: Sequence[str]) -> None:
    pitch = 0.7 / max(len(style), 1)
    for group, row in enumerate(rows):
        for place, (name, (colour, marker)) in enumerate(style.items()):
            if name not in row["results"]:
                continue
            x = group + (place - (len(style) - 1) / 2) * pitch
            result = row["results"][name]
            known = [value for value in result["figure"]["values"] if value is not None]
            axis.plot([x] * len(known), known, color=colour, marker=marker, markersize=5, linestyle="", alpha=0.7)
            if len(known) > 1:
                axis.hlines(result["figure"]["mean"], x - pitch / 3, x + pitch / 3, color=colour)
            if result["paper"] is not None:
                axis.plot(x, result["paper"], color=colour, marker=marker, markersize=7, mfc="white", linestyle="")
    shown = ["\n".join(text(row["values"][label]) for label in across) for row in rows]
    axis.set_xticks(range(len(rows)) if across else [], shown if across else [])
    axis.set_xlim(-0.5, len(rows) - 0.5)


def _last(rows: Sequence[Mapping], name: str) -> float:
    """The last mean of a result; the legend has the order of the ends of the lines."""
    means = [row["results"][name]["figure"]["mean"] for row in rows if name in row["results"]]
    return next((mean for mean in reversed(means) if mean is not None), -1.0)


def _is_scale(axis: Mapping[str, Any], label: int) -> bool:
    """Whether the values of a field are numbers that differ at every point of the axis."""
    values = [point[label] for point in axis["values"]]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return numbers and len(set(values)) == len(values)
