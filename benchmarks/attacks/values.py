"""Values that no field or flag can have: each must end with a message that names the field, before anything is written.

A value of a config field goes through `train --dry-run`, which checks what `train` checks before it makes its folder.
Outcomes are, worst first: crash, traceback, accepted (status 0), unnamed (an error that names neither the field nor the
value), named.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import random
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from attacks.forks import BROKEN, Blow
from attacks.workplace import METHODS, Workplace

OUTCOMES = ("crash", "traceback", "accepted", "unnamed", "named")

COUNTS = (
    r"(size|width|crop|batch|eval_batch|steps|hidden|radius|segments|side|depth|images|checkpoint_every|log_every)$"
)
"""Fields that count something there must be one of."""

NOT_TRIED = ("paper", "dataset", "train_split", "eval_split")
"""Fields that need data to be wrong, or that change nothing."""

WAIT = 60.0
"""Seconds after which a command is killed, and counts as crashed."""

COMMANDS = (
    ("evaluate", "RUN", "--scales", "nan"),
    ("evaluate", "RUN", "--scales", "0"),
    ("evaluate", "RUN", "--scales", "-1"),
    ("evaluate", "RUN", "--scales", "inf"),
    ("evaluate", "RUN", "--window", "0,0"),
    ("evaluate", "RUN", "--window", "-8,8"),
    ("evaluate", "RUN", "--batch", "0"),
    ("evaluate", "RUN", "--batch", "-2"),
    ("evaluate", "RUN", "--split", "nosuchsplit"),
    ("evaluate", "RUN", "--result", "nosuchresult"),
    ("predict", "RUN", "IMAGES", "--out", "OUT", "--scales", "nan"),
    ("predict", "RUN", "IMAGES", "--out", "OUT", "--batch", "0"),
    ("predict", "RUN", "IMAGES", "--out", "OUT", "--window", "0,0"),
    ("predict", "RUN", "--out", "OUT", "nosuchfile.png"),
    ("report", "RUN", "--out", "OUT/nosuchfolder/r.html"),
    ("report", "RUN", "--out", "OUT.html", "--images", "-1"),
    ("report", "RUN", "--out", "OUT.html", "--batch", "0"),
    ("check", "scenes", "--images", "IMAGES"),
    ("check", "--images", "IMAGES", "--masks", "IMAGES", "--classes", "0"),
    ("check", "--images", "IMAGES", "--masks", "IMAGES", "--classes", "-1"),
    ("check", "--images", "IMAGES", "--masks", "IMAGES", "--ignore", "-1"),
    ("check", "--images", "IMAGES", "--masks", "IMAGES", "--ignore", "100000"),
    ("prepare", "::"),
    ("prepare", "nosuchdataset"),
    ("prepare", "folder/"),
    ("prepare", "--source", "IMAGES", "folder/../x"),
    ("train", "CONFIG", "--processes", "2"),
    ("train", "CONFIG", "--process", "1"),
    ("train", "CONFIG", "--processes", "2", "--process", "0", "--coordinator", "x"),
    ("train", "CONFIG", "--coordinator", "localhost:1", "--processes", "0", "--process", "0"),
    ("train", "CONFIG", "--coordinator", "localhost:1", "--processes", "2", "--process", "2"),
    ("train", "CONFIG", "--coordinator", "localhost:1", "--processes", "2", "--process", "-1"),
    ("train", "CONFIG", "--workdir", ""),
    ("train", "CONFIG", "--workdir", "OUT", "--redo", "nosuchstage"),
    ("train", "CONFIG", "--workdir", "OUT", "--reuse", "nosuchrun"),
    ("sweep", "CONFIG", "--workdir", "OUT", "--over", "seed="),
    ("sweep", "CONFIG", "--workdir", "OUT", "--over", "seed=0,nan"),
    ("sweep", "CONFIG", "--workdir", "OUT", "--over", "nosuchfield=1"),
    ("benchmark", "CONFIG", "--steps", "0"),
    ("benchmark", "CONFIG", "--batch", "-1"),
)
"""Commands whose last flag or argument is bad; RUN, IMAGES, OUT and CONFIG stand for paths."""


class Bad(NamedTuple):
    """A command with a bad value: what is bad, the value, and the words of the command."""

    field: str
    value: str
    argv: list[str]


def values(place: Workplace, count: int, only: Sequence[str] = ()) -> None:
    """Tries `count` values: those of `COMMANDS`, and for the rest one of each field in turn."""
    drawn = [bad for bad in _drawn(place, count) if not only or bad.field in only]
    outcomes: collections.Counter = collections.Counter()
    found: dict[str, list[str]] = collections.defaultdict(list)
    for bad in drawn:
        if place.over:
            break
        outcome, said = _outcome(place, bad)
        outcomes[outcome] += 1
        if outcome != "named":
            found[outcome].append(f"{' '.join(bad.argv[:2])} {bad.field} {bad.value}: {said}")
    line = {"attack": "values", "tried": sum(outcomes.values()), **{outcome: outcomes[outcome] for outcome in OUTCOMES}}
    place.append({**line, "found": found})


def _drawn(place: Workplace, count: int) -> list[Bad]:
    rng = random.Random(f"{place.seed} values")
    paths = {
        "RUN": str(place.finished("supervised")),
        "IMAGES": str(place.images()),
        "OUT": str(place.folder / "out"),
        "CONFIG": place.config("supervised"),
    }
    bad = []
    for words in COMMANDS:
        argv = [re.sub("^(RUN|IMAGES|OUT|CONFIG)(?=$|/|[.]html$)", lambda found: paths[found[0]], w) for w in words]
        flag = next((word for word in reversed(words[:-1]) if word.startswith("--")), words[0])
        if words[0] in ("train", "evaluate", "report", "prepare"):
            argv += ["--data-dir", str(place.data)]
        bad.append(Bad(flag.lstrip("-"), words[-1], argv))
    fields = [(method, *leaf) for method in METHODS for leaf in _config_fields(place, method)]
    while len(bad) < count:
        rng.shuffle(fields)
        for method, path, wrong in fields[: count - len(bad)]:
            value = rng.choice(wrong)
            config = place.config(method)
            flag = f"--{path.replace('_', '-')}"
            words = [flag, *value] if len(value) > 1 else [f"{flag}={value[0]}"]
            bad.append(Bad(path, " ".join(value), ["train", config, "--dry-run", *words]))
    return bad[:count]


def _config_fields(place: Workplace, method: str) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Dotted path, and values that are wrong, of each field of a method's config that is a number or a text."""
    from scarce_jax.cli.common import load_config

    yield from _fields(load_config(pathlib.Path(place.config(method))), "")


def _fields(config: Any, path: str) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    annotations = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{path}.{field.name}".lstrip(".")
        if dataclasses.is_dataclass(value):
            yield from _fields(value, name)
        elif field.name not in NOT_TRIED and (wrong := _wrong(field.name, value, str(annotations[field.name]))):
            yield name, wrong


def _wrong(name: str, value: Any, annotation: str) -> list[tuple[str, ...]]:
    """Values that a field cannot have, each as words of a command line."""
    if isinstance(value, bool) or (value is None and "int" not in annotation and "float" not in annotation):
        return []
    if isinstance(value, tuple):
        if not value or not all(isinstance(part, int | float) for part in value):
            return []
        return [wrong * len(value) for wrong in _wrong(name, value[0], annotation)]
    if isinstance(value, float) or "float" in annotation:
        return [("nan",), ("inf",), ("-inf",), ("-3",)]
    if isinstance(value, int) or "int" in annotation:
        return [("-3",), ("nan",), ("1e20",), ("2.5",), *([("0",)] if re.search(COUNTS, name) else [])]
    return [("nosuchword(",)]


def _outcome(place: Workplace, bad: Bad) -> tuple[str, str]:
    """The outcome of a command with a bad value, and the end of what it said."""
    done = place.attempt(bad.argv, place.folder, Blow(seconds=WAIT))
    said = done.text.strip()[-300:]
    if done.status < 0:
        return "crash", f"status {done.status} after {done.seconds:.0f} s: {said}"
    if done.status == BROKEN or "Traceback (most recent call last)" in done.text:
        return "traceback", said
    if done.status == 0:
        return "accepted", said[-100:]
    words = [bad.field.rpartition(".")[2], f"'{bad.value}'"]
    words += [word for word in re.split("[=,]", bad.value) if len(word) > 2]
    plain = done.text.replace("-", "_")
    return ("named" if any(word.replace("-", "_") in plain for word in words) else "unnamed"), said
