"""Prints the results of runs as a Markdown table with mean and spread, and appends them to a JSONL file.

    python benchmarks/results_table.py --title scenes RUN... [--append benchmarks/results/detailer.jsonl]

The runs of a table differ in their seed alone. The spread is half the range. After --append, `results_pages.py` writes
the tables of the documentation again.
"""

import argparse
import json
import pathlib
from typing import Any

import common  # noqa: F401  puts this checkout on the path

from scarce_jax.data.figures import COVERED, COVERED_BY_CLASS
from scarce_jax.sweep.table import spread

FIGURES = {"images", "map", "mean_f1", "per_class", *COVERED, *COVERED_BY_CLASS}
COPIED = ("config", "git_revision", "versions", "devices")


def _without_folders(value: Any) -> Any:
    """The value with the names of files in place of their absolute paths, which say nothing on another machine."""
    if isinstance(value, dict):
        return {key: _without_folders(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_folders(part) for part in value]
    if not isinstance(value, str) or not value.startswith("/"):
        return value
    path, colon, net = value.partition(":")  # RUN:STAGE/NET is a net of another run.
    return pathlib.Path(path).name + colon + net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    parser.add_argument("--title", required=True)
    parser.add_argument("--figure", default="miou", help="the figure to print: miou, or of a group such as miou_weak")
    parser.add_argument("--append", type=pathlib.Path)
    options = parser.parse_args()
    summaries = [json.loads((run / "summary.json").read_text()) for run in options.runs]
    facts = [json.loads((run / "config.json").read_text()) for run in options.runs]
    print(f"| {options.title} | {options.figure} | spread | per run |\n|---|---|---|---|")
    for name in summaries[0]["results"]:
        figure = spread([summary["results"].get(name, {}).get(options.figure) for summary in summaries])
        if figure["n"] == len(summaries):
            values = ", ".join(f"{value:.3f}" for value in figure["values"])
            print(f"| {name} | {figure['mean']:.3f} | {figure['half_range']:.3f} | {values} |")
    for summary, fact in zip(summaries, facts, strict=True) if options.append else ():
        line = {
            "title": options.title,
            **{key: _without_folders(fact[key]) for key in COPIED},
            "seconds": summary["seconds"],
            "stage_seconds": {stage["name"]: stage["seconds"] for stage in summary["stages"]},
            "results": {
                name: {key: figures[key] for key in figures if key.startswith("miou") or key in FIGURES}
                for name, figures in summary["results"].items()
            },
            "tables": summary.get("tables", {}),
        }
        with options.append.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
