"""What commands say about runs and a dataset before and after a damage."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import pathlib
import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import pydantic

from attacks.content import digest, timeless
from attacks.flips import OUTCOMES, Damage
from attacks.workplace import Workplace
from scarce_jax import runs
from scarce_jax.cli import STORAGE
from scarce_jax.cli.common import load_config
from scarce_jax.errors import InputError
from scarce_jax.report.files import read_run
from scarce_jax.training import fingerprint
from scarce_jax.training.session import Session

log = logging.getLogger("scarce_jax")

READERS = ("supervised", "transfer")
"""Methods whose runs read a damaged dataset."""


class Probes:
    """Copies of runs and of a dataset, which are damaged one at a time, with what commands say about the whole ones.

    Args:
      place: the workplace.
      targets: "data" -> the data folder, and method -> a finished run.
    """

    def __init__(self, place: Workplace, targets: Mapping[str, pathlib.Path]):
        self._targets, self._folder = targets, place.folder / "damaged"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._configs = {m: load_config(pathlib.Path(place.config(m))) for m in targets if m != "data"}
        self._image = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
        self._masks: dict[str, str] = {}
        remember_measurements()
        # Building one anew takes longer than all else that opens a run.
        pydantic.TypeAdapter = functools.cache(pydantic.TypeAdapter)
        self._whole = {}
        for name in targets:
            self._restore(name)
        for method in self._configs:
            self._whole[method] = {name: command() for name, command in self._commands(method).items()}
            self._restore(method)

    def probe(self, damage: Damage) -> tuple[str, str]:
        """Damages a file, and gives the worst outcome of the commands that may read it, and what they said."""
        path = self._folder / damage.target / damage.name
        if damage.bit is None:
            path.unlink()
        else:
            content = bytearray(path.read_bytes())
            content[damage.bit // 8] ^= 1 << damage.bit % 8
            path.write_bytes(content)
        on_data = damage.target == "data"
        found = [("harmless", "")]
        for method in READERS if on_data else (damage.target,):
            for name, command in self._commands(method).items():
                if on_data and not name.startswith(("evaluate", "train")):
                    continue
                outcome, said = outcome_of(command, self._whole[method][name], path, self._folder / damage.target)
                found.append((outcome, f"{method} {name}: {said}"))
            self._restore(method)
        if on_data:
            self._restore("data")
        return min(found, key=lambda each: OUTCOMES.index(each[0]))

    def _restore(self, target: str) -> None:
        folder = self._folder / target
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._targets[target], folder)

    def _commands(self, method: str) -> dict[str, Callable[[], Any]]:
        """The commands in an order in which none reads what an earlier one wrote."""
        run, data, config = self._folder / method, str(self._folder / "data"), self._configs[method]
        names = list(json.loads((self._targets[method] / "summary.json").read_text())["results"])

        def report() -> Any:
            said = read_run(run)
            for stage in said["stages"]:
                if not stage["done"]:
                    # The page says it under "left out".
                    log.warning("%s: stage %s is not finished", run, stage["name"])
            return {key: value for key, value in said.items() if key != "written"}

        def evaluated(name: str) -> Callable[[], Any]:
            return lambda: runs.evaluate(run, name, data_dir=data)

        def predicted(name: str) -> Callable[[], Any]:
            return lambda: self._predicted(run, name)

        def train() -> Any:
            return timeless(runs.train(config, run, data_dir=data))

        evaluations = {f"evaluate {name}": evaluated(name) for name in names}
        # Other results are of nets that `evaluate` has read.
        first = next(name for name in names if self._predicts(method, name))
        return {"report": report, **evaluations, "predict": predicted(first), "train": train}

    @functools.cache  # noqa: B019  there is one, as long as the process
    def _predicts(self, method: str, name: str) -> bool:
        """Whether the undamaged run predicts masks with this result."""
        with contextlib.suppress(InputError):
            return bool(runs.load(self._targets[method], name))
        return False

    def _predicted(self, run: pathlib.Path, name: str) -> Any:
        """The hash of a mask, looked up by all that the predictor has."""
        predictor = runs.load(run, name)
        parts = {
            "config": repr(predictor.config),
            "facts": repr((predictor.size, predictor.classes, predictor.palette, predictor.native_ids)),
            "variables": hashes(predictor.variables),
            "consts": hashes(predictor._consts),
        }
        key = json.dumps([name, parts], sort_keys=True)
        if key not in self._masks:
            coarse = np.full(self._image.shape[:2], 255, np.uint8) if predictor.needs_coarse else None
            self._masks[key] = digest(predictor.predict(self._image, coarse))
        return [self._masks[key], parts["facts"]]


def outcome_of(command: Callable[[], Any], whole: Any, path: pathlib.Path, folder: pathlib.Path) -> tuple[str, str]:
    """The outcome of a command after a file was damaged, and what it said.

    Args:
      command: the command.
      whole: what it gave before.
      path: the damaged file.
      folder: the run or the data folder that it is in.
    """
    with warnings_of() as warned:
        try:
            given = command()
        except InputError as error:
            return ("named" if names(str(error), path, folder) else "unnamed"), str(error)
        except OSError as error:
            told = error.errno in STORAGE and error.filename
            return ("named" if told and names(str(error.filename), path, folder) else "traceback"), repr(error)
        except Exception:
            return "traceback", traceback.format_exc()[-300:]
    said = "\n".join(warned)
    if names(said, path, folder):
        return "named", said
    if given == whole:
        return "harmless", said
    return "silent", f"{difference(whole, given)} {said}"


def names(message: str, path: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether a message has the file, or one of its folders within the run, or the dataset that it is of."""
    inside = [parent for parent in path.parents if folder in parent.parents]
    others = [str(parent) for parent in inside]
    if folder.name == "data":
        others.append(f"dataset {inside[-1].name}")
    elif path.name == "DONE" and "not finished" in message:
        others.append(f"stage {path.parent.name}")
    return any(name in message for name in (path.name, *others))


def difference(before: Any, after: Any, path: str = "") -> str:
    """The first difference of two values of JSON, in words."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            if before.get(key) != after.get(key):
                return difference(before.get(key), after.get(key), f"{path}/{key}")
    return f"{path}: {str(before)[:60]} -> {str(after)[:60]}"


@contextlib.contextmanager
def warnings_of() -> Iterator[list[str]]:
    """The warnings that the library logs in the block."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)


def remember_measurements() -> None:
    """Looks measurements up by a hash of all that enters them, in this process from now on."""
    figures: dict[str, Any] = {}
    measure = Session.measure

    def remembered(self: Session, evaluation: Any, nets: Mapping[str, Any], **options: Any) -> Any:
        rows = self.inputs.open(evaluation.source, evaluation.hidden_truth)
        stored = None if evaluation.inferred is None else self.inputs.field(evaluation.inferred)
        entering = [
            fingerprint.plain(evaluation),
            hashes({role: net.variables for role, net in nets.items()}),
            hashes(self.consts(evaluation)),
            [[hashes(rows[k]), hashes(rows.example(k))] for k in range(len(rows))],
            [] if stored is None else [hashes(stored.get(rows.example(k))) for k in range(len(rows))],
            [self.classes, self.inputs.reader(evaluation.source.dataset, evaluation.source.split).info.background],
        ]
        key = json.dumps(entering, sort_keys=True, default=str)
        if key not in figures:
            figures[key] = measure(self, evaluation, nets, **options)
        return figures[key]

    Session.measure = remembered


def hashes(tree: Any) -> list[str]:
    """The hash of every leaf of a tree."""
    leaves, structure = jax.tree.flatten(tree)
    return [str(structure), *(digest(x) if hasattr(x, "dtype") else repr(x) for x in map(_host, leaves))]


def _host(leaf: Any) -> Any:
    return np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf
