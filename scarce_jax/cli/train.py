"""`scarce-jax train CONFIG`: runs a recipe, and resumes by itself."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from itertools import starmap
from typing import Annotated, Any

from scarce_jax.cli.common import (
    Folder,
    Switch,
    Target,
    command_line,
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
    """Flags of `train` besides the config's fields.

    Attributes:
      workdir: run folder; default runs/<config>-<8 hex of its values>. The same command goes on in it.
      data_dir: folder of prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      dry_run: only print stages, nets, parameters and steps; compiles nothing, and needs no data but of a dataset of
        one's own.
      compile: with --dry-run, also compile every stage and print its memory on a device.
      target: (also --target GPU) with --dry-run, compile every stage for a GPU that need not be at hand, such as h100,
        and print its memory there.
      json: end standard output with one JSON object.
      redo: do this stage again, and all stages that read from it. What they have is deleted at every start of the
        command, so that the command without --redo goes on where this one stopped.
      reuse: copy equal finished stages from another run folder.
      coordinator: address of process 0 in a run on several hosts; not needed under Slurm.
      processes: number of processes, with --coordinator.
      process: number of this process, from 0, with --coordinator.
    """

    workdir: Folder = None
    data_dir: Folder = None
    dry_run: Switch = False
    compile: Switch = False
    target: Target = None
    json: Switch = False
    redo: Annotated[str | None, shown("STAGE")] = None
    reuse: Annotated[pathlib.Path | None, shown("RUN")] = None
    coordinator: Annotated[str | None, shown("HOST:PORT")] = None
    processes: Annotated[int | None, shown("N")] = None
    process: Annotated[int | None, shown("N")] = None


ABOUT = "Runs a config's recipe, and goes on where an earlier run of the same command stopped."


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    path, options, config = parse_with_config(Options, argv, "train", ABOUT)

    from scarce_jax import mesh, runs
    from scarce_jax.config_files import default_workdir
    from scarce_jax.data.figures import beside, cited
    from scarce_jax.dry_run import dry_run

    for name in ("compile", "target"):
        if getattr(options, name) and not options.dry_run:
            raise InputError(f"--{name}: needs --dry-run, which is missing; add it, or leave out --{name} to train")
    if options.dry_run:
        plan = dry_run(config, options.data_dir, compile=options.compile, target=options.target)
        print_json(plan) if options.json else print(_describe(plan))
        return 0
    mesh.initialize(options.coordinator, options.processes, options.process)
    workdir = options.workdir or default_workdir(config, path.stem)
    summary = runs.train(config, workdir, data_dir=options.data_dir, redo=options.redo, reuse=options.reuse)
    if mesh.is_primary():
        paper = cited(config.paper)
        tables = {name: beside(content, paper.get(name, {})) for name, content in summary["tables"].items()}
        print(_results(summary, paper), *starmap(recipe_table, tables.items()), sep="\n\n")
        stages, devices = plural(len(summary["stages"]), "stage"), plural(summary["devices"], "device")
        print(f"\n{workdir}: {stages} in {summary['seconds']:.0f} s on {devices}")
        if options.json:
            print_json({"run": str(workdir), **summary})
        else:
            next_commands(*view_commands(workdir, options.data_dir, config))
    return 0


def view_commands(workdir: pathlib.Path, data_dir: pathlib.Path | None, config: Any) -> Iterator[str]:
    """The commands that show what a run made."""
    from scarce_jax import methods
    from scarce_jax.data.schema import DatasetInfo
    from scarce_jax.training.folder import read_facts

    outside = foreign(config)
    yield command_line("report", workdir, data_dir=data_dir, allow_import=outside)
    recipe = methods.recipe_of(config, DatasetInfo.of_json(read_facts(workdir), name=config.dataset))
    first = next(iter(recipe.results.values()), None)
    if first is not None and first.metrics == "masks" and first.inferred is None:
        coarse = "COARSE_MASKS" if first.needs_coarse else None
        yield command_line("predict", workdir, "PHOTOS", coarse=coarse, out="overlays", allow_import=outside)


FIGURES = (
    {"miou": "mIoU", "mean_accuracy": "mean accuracy", "pixel_accuracy": "pixel accuracy"},
    {"map": "mAP", "mean_f1": "mean F1"},
)
"""Key in the summary -> column, for results that are masks and for those that are image tags."""


def _results(summary: dict[str, Any], paper: dict[str, dict[str, float]]) -> str:
    from scarce_jax.data.figures import AT_SIZE, COVERED, is_figure, is_group_figure, share_of_classes

    tables = []
    results = summary["results"]
    groups = dict.fromkeys(key for measured in results.values() for key in measured if is_group_figure(key))
    for figures in FIGURES:
        main, *others = figures
        names = [name for name, measured in results.items() if main in measured]
        stated = dict.fromkeys(key for name in names for key in paper.get(name, {}) if is_figure(key))
        columns = [main, *([AT_SIZE] if AT_SIZE in stated else []), *(groups if main == "miou" else ()), *others]
        rows = [
            [
                name,
                *map(results[name].get, columns),
                results[name]["images"],
                *(paper.get(name, {}).get(key) for key in stated),
            ]
            for name in names
        ]
        headings = {key: figures.get(key) or key.replace("miou_", "mIoU ").replace("_", " ") for key in columns}
        header = ["result", *headings.values(), "images", *(f"paper's {headings.get(key, key)}" for key in stated)]
        shares = {n: share_of_classes(measured["per_class"]) for n, measured in results.items() if main in measured}
        if main == "miou" and any(shares.values()):
            header.append("mIoU is over")
            rows = [[*row, shares[row[0]] or "all classes"] for row in rows]
        if rows:
            tables.append(f"\n{table(rows, header)}")
    rows = [
        [name, *map(measured.get, COVERED), measured["images"]]
        for name, measured in results.items()
        if "coverage" in measured
    ]
    if rows:
        title = "Masks with void pixels, which count as wrong above:"
        tables.append(f"\n{title}\n\n{table(rows, ['result', *COVERED.values(), 'images'])}")
    return "\n".join(tables) or "\nnothing was measured"


def _describe(plan: dict[str, Any]) -> str:
    rows = []
    for stage in plan["stages"]:
        batch = ", ".join(str(b) for b in stage["batch"].values())
        reads = "; ".join(map(_read, stage["reads"]))
        # A stage that only counts pixels has no net.
        for role, net in (stage["nets"] or {None: None}).items():
            sizes = (net["parameters"], net["trainable"]) if net else (None, None)
            origin = (net["init_from"] or "drawn") if net else None
            count = stage["peak_bytes"]
            memory = [None if count is None else round(count / 2**20)] if "backend" in plan else []
            rows.append([stage["name"], stage["kind"], stage["steps"], batch, role, *sizes, *memory, origin, reads])
    memory = [f"MiB ({plan['backend']})"] if "backend" in plan else []
    header = ["stage", "kind", "steps", "batch", "net", "parameters", "trainable", *memory, "starts from", "reads"]
    lines = [f"{stage['name']}: {stage['memory']}" for stage in plan["stages"] if "memory" in stage]
    return "\n".join([table(rows, header), *([""] if lines else []), *lines])


def _read(source: dict[str, Any]) -> str:
    part = f", {source['part']}," if "part" in source else ""
    return f"{source['dataset']}/{source['split']} {_ids(source['ids'])}{part} at {_size(source['size'])}"


def _ids(ids: Any) -> str:
    if isinstance(ids, list):
        return " and ".join(map(_ids, ids))
    return ids if isinstance(ids, str) else f"{ids.get('artifact', ids)['stage']} records"


def _size(size: Any) -> str:
    return "native size" if size is None else f"{size[0]}x{size[1]}"
