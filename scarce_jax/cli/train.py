"""`scarce-jax train CONFIG`: run a recipe, resuming by itself."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from scarce_jax.cli.common import load_config, parse, print_json, table


def _options(config: Any) -> type:
    """The command's flags, with every field of the config as a flag of its own name."""
    Flat = Annotated[type(config), tyro.conf.arg(name="")]
    path = pathlib.Path | None
    fields: list[tuple[str, Any, Any]] = [
        ("workdir", path, _field(None, "run folder; default runs/<config>-<hash>")),
        (
            "data_dir",
            path,
            _field(None, "prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets"),
        ),
        ("dry_run", bool, _field(False, "print stages, shapes, parameters and steps; needs no data")),
        ("json", bool, _field(False, "end standard output with one JSON object")),
        ("redo", str | None, _field(None, "do this stage again, with all that read from it")),
        ("reuse", path, _field(None, "take over equal finished stages of another run folder")),
        ("coordinator", str | None, _field(None, "HOST:PORT of process 0, in a run of several hosts")),
        ("processes", int | None, _field(None, "number of processes, with --coordinator")),
        ("process", int | None, _field(None, "this process, from 0, with --coordinator")),
        ("config", Flat, dataclasses.field(default=config)),
    ]
    return dataclasses.make_dataclass("train", fields, kw_only=True)


def _field(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    argv = list(argv)
    if not argv or argv[0].startswith("-"):
        print("usage: scarce-jax train CONFIG [--workdir DIR] [--FIELD VALUE ...]", file=sys.stderr)
        print(
            "CONFIG is a file of configs/; `scarce-jax train CONFIG --help` lists its fields.",
            file=sys.stderr,
        )
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    path = pathlib.Path(argv[0])
    options = parse(
        _options(load_config(path)), argv[1:], f"train {path}", "Runs a recipe; the same command resumes it."
    )

    from scarce_jax import api
    from scarce_jax.training import mesh

    if options.dry_run:
        found = api.dry_run(options.config, options.data_dir)
        print_json(found) if options.json else print(_describe(found))
        return 0
    mesh.initialize(options.coordinator, options.processes, options.process)
    workdir = options.workdir or api.default_workdir(options.config, path.stem)
    summary = api.train(
        options.config,
        workdir,
        data_dir=options.data_dir,
        redo=options.redo,
        reuse=options.reuse,
        stem=path.stem,
    )
    if mesh.is_primary():
        print(_results(summary, options.config.paper))
        stages, devices = len(summary["stages"]), summary["devices"]
        print(f"\n{workdir}: {stages} stages in {summary['seconds']:.0f} s on {devices} device(s)")
        if options.json:
            print_json({"run": str(workdir), **summary})
    return 0


def _results(summary: dict[str, Any], paper: dict[str, Any]) -> str:
    rows = []
    for name, figures in summary["results"].items():
        cited = paper.get(name)
        rows.append([name, *(figures[k] for k in ("miou", "mean_accuracy", "pixel_accuracy")), figures["images"]])
        if paper:
            rows[-1].append(cited if isinstance(cited, float) else None)
    header = [
        "result",
        "mIoU",
        "mean accuracy",
        "pixel accuracy",
        "images",
        *(["paper's mIoU"] if paper else []),
    ]
    return "\n" + table(rows, header)


def _describe(found: dict[str, Any]) -> str:
    rows = []
    for stage in found["stages"]:
        batch = ", ".join(str(b) for b in stage["batch"].values())
        reads = "; ".join(f"{r['dataset']}/{r['split']} {_ids(r['ids'])} at {_size(r['size'])}" for r in stage["reads"])
        for role, net in stage["nets"].items():
            origin = net["init_from"] or "drawn"
            rows.append(
                [
                    stage["name"],
                    stage["kind"],
                    stage["steps"],
                    batch,
                    role,
                    net["parameters"],
                    net["trainable"],
                    origin,
                    reads,
                ]
            )
    header = ["stage", "kind", "steps", "batch", "net", "parameters", "trainable", "starts from", "reads"]
    return table(rows, header)


def _ids(ids: Any) -> str:
    return ids if isinstance(ids, str) else f"{ids['stage']}/{ids['name']}"


def _size(size: Any) -> str:
    return "native size" if size is None else f"{size[0]}x{size[1]}"
