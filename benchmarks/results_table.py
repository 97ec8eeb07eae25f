"""Prints the results of runs as a Markdown table, mean and spread over runs, and appends them to a JSONL file.

    python benchmarks/results_table.py --title scenes RUN... [--append benchmarks/results/detailer.jsonl]

The spread is (largest - smallest) / 2. Runs of one table differ in their seed alone.
"""

import argparse
import json
import pathlib

FIGURES = ("images", "map", "mean_f1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    parser.add_argument("--title", required=True)
    parser.add_argument("--figure", default="miou", help="what is printed: miou, or of a group such as miou_weak")
    parser.add_argument("--append", type=pathlib.Path)
    options = parser.parse_args()
    summaries = [json.loads((run / "summary.json").read_text()) for run in options.runs]
    facts = [json.loads((run / "config.json").read_text()) for run in options.runs]
    print(f"| {options.title} | {options.figure} | spread | per run |\n|---|---|---|---|")
    for name in summaries[0]["results"]:
        values = [summary["results"].get(name, {}).get(options.figure) for summary in summaries]
        if None in values:
            continue
        mean, spread = sum(values) / len(values), (max(values) - min(values)) / 2
        print(f"| {name} | {mean:.3f} | {spread:.3f} | {', '.join(f'{v:.3f}' for v in values)} |")
    if options.append:
        with options.append.open("a") as file:
            for summary, fact in zip(summaries, facts, strict=True):
                line = {
                    "title": options.title,
                    "config": fact["config"],
                    "git_revision": fact["git_revision"],
                    "versions": fact["versions"],
                    "devices": fact["devices"],
                    "seconds": summary["seconds"],
                    "stage_seconds": {stage["name"]: stage["seconds"] for stage in summary["stages"]},
                    "results": {
                        name: {key: figures[key] for key in figures if key.startswith("miou") or key in FIGURES}
                        for name, figures in summary["results"].items()
                    },
                    "tables": summary.get("tables", {}),
                }
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
