"""`scarce-jax train CONFIG`: run a recipe, resuming by itself."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from scarce_jax.cli.common import Folder, Number, Switch, load_config, parse, print_json, table


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `train` beside the config's fields.

    Attributes:
      workdir: run folder; default runs/<config>-<8 hex of its values>. The same command again goes on in it.
      data_dir: prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      dry_run: only print stages, nets, parameters and steps; needs no data and compiles nothing.
      json: end standard output with one JSON object.
      redo: do this stage again, with all that read from it.
      reuse: take over equal finished stages of another run folder.
      coordinator: address of process 0 in a run of several hosts; under Slurm it is found without.
      processes: number of processes, with --coordinator.
      process: number of this process, from 0, with --coordinator.
    """

    workdir: Folder = None
    data_dir: Folder = None
    dry_run: Switch = False
    json: Switch = False
    redo: Annotated[str | None, tyro.conf.arg(metavar="STAGE", help_behavior_hint="")] = None
    reuse: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="")] = None
    coordinator: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT", help_behavior_hint="")] = None
    processes: Number = None
    process: Number = None


Flat = tyro.conf.arg(name="")


@dataclasses.dataclass(kw_only=True)
class _WithoutConfig:
    """What `train --help` shows.

    Attributes:
      config: a Python file that defines `config`, such as those in configs/.
    """

    config: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG", help_behavior_hint="")]
    options: Annotated[Options, Flat]


def _with_config(config: Any) -> type:
    """The command's flags, and every field of the config as a flag of its own name."""
    fields = [
        ("options", Annotated[Options, Flat]),
        ("config", Annotated[type(config), Flat], dataclasses.field(default=config)),
    ]
    return dataclasses.make_dataclass("train", fields, kw_only=True)


def _parse(argv: Sequence[str]) -> tuple[pathlib.Path, Options, Any]:
    rest = list(argv)
    if not rest or rest[0].startswith("-"):
        about = (
            "Runs a config's recipe, and goes on where an earlier run of the same command stopped.\n\n"
            "Every field of the config is a flag too, such as --seed 1 or --budget.fine 25; "
            "`scarce-jax train CONFIG --help` lists them."
        )
        path = parse(_WithoutConfig, rest, "train", about).config
        rest.remove(path)
    else:
        path = rest.pop(0)
    about = (
        "Runs the recipe, and goes on where an earlier run of the same command stopped. "
        "Every field of the config is a flag; the defaults here are the file's."
    )
    found = parse(_with_config(load_config(pathlib.Path(path))), rest, f"train {path}", about, compact=True)
    return pathlib.Path(path), found.options, found.config


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    path, options, config = _parse(argv)

    from scarce_jax import api
    from scarce_jax.training import mesh

    if options.dry_run:
        found = api.dry_run(config, options.data_dir)
        print_json(found) if options.json else print(_describe(found))
        return 0
    mesh.initialize(options.coordinator, options.processes, options.process)
    workdir = options.workdir or api.default_workdir(config, path.stem)
    summary = api.train(config, workdir, data_dir=options.data_dir, redo=options.redo, reuse=options.reuse)
    if mesh.is_primary():
        print(_results(summary, config.paper))
        stages, devices = len(summary["stages"]), summary["devices"]
        print(f"\n{workdir}: {stages} stages in {summary['seconds']:.0f} s on {devices} device(s)")
        if options.json:
            print_json({"run": str(workdir), **summary})
    return 0


def _results(summary: dict[str, Any], paper: dict[str, Any]) -> str:
    rows = []
    for name, figures in summary["results"].items():
        row = [name, *(figures[k] for k in ("miou", "mean_accuracy", "pixel_accuracy")), figures["images"]]
        if paper:
            cited = paper.get(name)
            row.append(cited if isinstance(cited, float) else None)
        rows.append(row)
    header = ["result", "mIoU", "mean accuracy", "pixel accuracy", "images", *(["paper's mIoU"] if paper else [])]
    return "\n" + table(rows, header)


def _describe(found: dict[str, Any]) -> str:
    rows = []
    for stage in found["stages"]:
        batch = ", ".join(str(b) for b in stage["batch"].values())
        reads = "; ".join(f"{r['dataset']}/{r['split']} {_ids(r['ids'])} at {_size(r['size'])}" for r in stage["reads"])
        for role, net in stage["nets"].items():
            sizes = net["parameters"], net["trainable"]
            origin = net["init_from"] or "drawn"
            rows.append([stage["name"], stage["kind"], stage["steps"], batch, role, *sizes, origin, reads])
    header = ["stage", "kind", "steps", "batch", "net", "parameters", "trainable", "starts from", "reads"]
    return table(rows, header)


def _ids(ids: Any) -> str:
    return ids if isinstance(ids, str) else f"{ids['stage']}/{ids['name']}"


def _size(size: Any) -> str:
    return "native size" if size is None else f"{size[0]}x{size[1]}"
