"""Commands that are killed, or sent a signal, again and again, until they end with the bits of unbroken ones.

A kill falls on a random moment, or on a random call that changes a file. Half of the kills are of each kind. The
command is then given again, as a user would.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from typing import Any

from attacks.content import files_content, leftovers, run_content, sweep_content
from attacks.forks import Blow, in_child
from attacks.workplace import METHODS, Workplace

BLOWS_PER_ROUND = 8

INTERRUPTED = 130

DELETIONS = 20
"""About as many calls as `--redo` makes before it begins to train."""

Chosen = Callable[[random.Random, int, float, bool], Blow]
"""(random numbers, calls and seconds of the unbroken command, whether the command first deletes) -> the next blow."""


@dataclasses.dataclass(frozen=True)
class Job:
    """Commands that work in a folder.

    Attributes:
      name: for the results.
      commands: the command that is broken, given the folder, and the one that goes on, if it is another. Where that one
        is refused, the first is given again.
      content: the bits that are compared, in a child.
      begin: fills the folder before the first command.
      weight: share of the blows, relative to other jobs.
    """

    name: str
    commands: Callable[[pathlib.Path], Sequence[list[str]]]
    content: Callable[[pathlib.Path], dict[str, Any]]
    begin: Callable[[pathlib.Path], Any] = lambda folder: folder.mkdir()
    weight: int = 1


@dataclasses.dataclass
class Tally:
    """What happened to a job.

    Attributes:
      statuses: number of broken attempts by exit status; -9 is killed, -15 ended by SIGTERM.
      at_calls: number of those that a call of the file system was chosen for.
      rounds: number of times that the job was carried through.
      equal: number of those that left the bits of the unbroken job.
      refused: number of commands that said that the first one must be given again.
      differing: names of bits that were not equal.
      failed: last lines of attempts that ended with an error.
      processes_left: number of processes that lived on 10 seconds after their parent.
      leftovers: files that the finished command left, and an unbroken one does not.
    """

    statuses: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    at_calls: int = 0
    rounds: int = 0
    equal: int = 0
    refused: int = 0
    differing: set[str] = dataclasses.field(default_factory=set)
    failed: list[str] = dataclasses.field(default_factory=list)
    processes_left: int = 0
    leftovers: set[str] = dataclasses.field(default_factory=set)

    @property
    def blows(self) -> int:
        return sum(self.statuses.values())

    def line(self) -> dict[str, Any]:
        """For the results."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["statuses"] = {str(status): count for status, count in sorted(self.statuses.items())}
        return {key: sorted(value)[:20] if isinstance(value, set) else value for key, value in values.items()}


def kills(place: Workplace, count: int, only: Sequence[str] = ()) -> None:
    """Kills the jobs with SIGKILL, `count` times in all or a little more."""
    _break_all(place, "kills", _jobs(place), count, only, _kill)


def signals(place: Workplace, count: int, only: Sequence[str] = ()) -> None:
    """Sends SIGINT and SIGTERM to the process group of training runs, as Ctrl-C and a cluster do."""
    _break_all(place, "signals", [_training(place, method) for method in METHODS], count, only, _interrupt)


def _kill(rng: random.Random, calls: int, seconds: float, deletes: bool) -> Blow:
    if deletes:
        return Blow(call=rng.randint(1, min(calls, DELETIONS)))
    if rng.random() < 0.5:
        return Blow(seconds=rng.uniform(0, seconds))
    # Early calls are drawn more often, because they begin things.
    return Blow(call=rng.randint(1, calls) if rng.random() < 0.5 else int(calls ** rng.random()))


def _interrupt(rng: random.Random, calls: int, seconds: float, deletes: bool) -> Blow:
    # Before the first stage there is nothing to keep, and SIGTERM ends any program.
    number = rng.choice((signal.SIGINT, signal.SIGTERM))
    return Blow(seconds=rng.uniform(0, seconds), signal=number, after=" reads ")


def _break_all(
    place: Workplace,
    attack: str,
    jobs: Sequence[Job],
    count: int,
    only: Sequence[str],
    blow: Chosen,
) -> None:
    jobs = [job for job in jobs if not only or job.name in only]
    weights = sum(job.weight for job in jobs)
    for job in jobs:
        if place.over:
            break
        wanted = -(-count * job.weight // weights)
        rng = random.Random(f"{place.seed} {attack} {job.name}")
        place.append({"attack": attack, "job": job.name, **_broken(place, job, wanted, rng, blow).line()})


def _broken(place: Workplace, job: Job, wanted: int, rng: random.Random, blow: Chosen) -> Tally:
    """Breaks a job until it had so many blows."""
    folder, tally = place.folder / "broken", Tally()
    # The first one compiles.
    for _ in range(2):
        _begin(job, folder)
        whole = place.attempt(job.commands(folder)[0], folder, Blow())
        if whole.status:
            raise RuntimeError(f"{job.name}: an unbroken command failed\n{whole.text[-3000:]}")
    expected, usual = in_child(job.content, folder), leftovers(folder)
    while tally.blows < wanted and not place.over:
        _begin(job, folder)
        if _round(place, job, folder, tally, lambda deletes: blow(rng, whole.calls, whole.seconds, deletes)):
            tally.rounds += 1
            found = in_child(_content, job, folder)
            different = {key for key in {*found, *expected} if found.get(key) != expected.get(key)}
            tally.equal += not different
            tally.differing |= different
            tally.leftovers |= set(leftovers(folder)) - set(usual)
    return tally


def _content(job: Job, folder: pathlib.Path) -> dict[str, Any]:
    """The content, or what is wrong with it, which equals no content."""
    try:
        return job.content(folder)
    except Exception as error:
        return {f"{type(error).__name__}: {error}": None}


def _begin(job: Job, folder: pathlib.Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    job.begin(folder)


def _round(place: Workplace, job: Job, folder: pathlib.Path, tally: Tally, blow: Callable[[bool], Blow]) -> bool:
    """Gives the commands of a job until one ends well; False if one failed."""
    first, *others = job.commands(folder)
    command, begun = first, tally.blows
    while True:
        deletes = bool(others) and command is first
        chosen = blow(deletes) if tally.blows - begun < BLOWS_PER_ROUND else Blow()
        done = place.attempt(command, folder, chosen)
        tally.processes_left += done.left
        if done.status < 0 or done.status == INTERRUPTED:
            tally.statuses[done.status] += 1
            tally.at_calls += chosen.call is not None
            command = others[0] if others else first
        elif done.status == 0:
            return True
        elif command is not first and "Traceback" not in done.text:
            tally.refused += 1
            command = first
        else:
            tally.statuses[done.status] += 1
            tally.failed.append(f"{chosen}: status {done.status}: {done.text.strip()[-300:]}")
            return False


def _training(place: Workplace, method: str, weight: int = 4) -> Job:
    config = place.config(method)
    return Job(f"train {method}", lambda folder: [place.train(config, folder)], run_content, weight=weight)


def _jobs(place: Workplace) -> list[Job]:
    """The jobs that are killed."""
    finished = {method: place.finished(method) for method in ("transfer", "supervised")}
    transfer, supervised = map(place.config, finished)
    run, data = str(finished["supervised"]), ["--data-dir", str(place.data)]

    def copied(method: str) -> Callable[[pathlib.Path], None]:
        return lambda folder: shutil.copytree(finished[method], folder)

    def prepared(folder: pathlib.Path) -> None:
        shutil.copytree(place.data, folder)

    def one(command: Callable[[pathlib.Path], list[str]]) -> Callable[[pathlib.Path], list[list[str]]]:
        return lambda folder: [command(folder)]

    longer = ["--segmenter.steps", "8"]
    return [
        *(_training(place, method) for method in METHODS),
        Job(
            "train --redo with other steps",
            lambda folder: [
                place.train(supervised, folder, *longer, "--redo", "segmenter"),
                place.train(supervised, folder, *longer),
            ],
            run_content,
            copied("supervised"),
            2,
        ),
        Job(
            "train --redo",
            lambda folder: [place.train(transfer, folder, "--redo", "lnet"), place.train(transfer, folder)],
            run_content,
            copied("transfer"),
            2,
        ),
        Job("prepare", one(lambda folder: ["prepare", "scenes", "--data-dir", str(folder)]), files_content),
        Job(
            "prepare --again",
            one(lambda folder: ["prepare", "scenes", "--again", "--data-dir", str(folder)]),
            files_content,
            prepared,
        ),
        Job(
            "predict",
            one(lambda folder: ["predict", run, str(place.images()), "--out", str(folder / "masks")]),
            files_content,
        ),
        Job("report", one(lambda folder: ["report", run, "--out", str(folder / "r.html"), *data]), files_content),
        Job(
            "sweep",
            one(lambda folder: ["sweep", supervised, "--over", "seed=0,1", "--workdir", str(folder), *data]),
            sweep_content,
        ),
    ]
