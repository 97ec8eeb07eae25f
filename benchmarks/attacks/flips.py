"""Single flipped bits, and missing files, in finished runs and in a prepared dataset: are they named, or harmless?

After each, the runs are reported, evaluated, loaded for `predict` and trained again in one process, and everything that
they say is compared with what they said before. An outcome is, worst first:

  crash       the process died or hung
  traceback   an exception that is no message
  silent      a figure, mask or entry changed, and no message or warning named the file
  unnamed     an error whose message does not name the file
  named       an error or a warning that names the file, or its folder within the run or dataset
  harmless    all that was said is the same

Equal programs on equal arrays give equal figures, so a measurement is looked up by a hash of all that enters it.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pathlib
import random
import select
import signal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from attacks.forks import forked
from attacks.workplace import Workplace

OUTCOMES = ("crash", "traceback", "silent", "unnamed", "named", "harmless")

RUNS = ("supervised", "detailer", "transfer")
"""Methods whose runs are damaged: together they have nets, records and means."""

WAIT = 300.0
"""Seconds after which a probe counts as hung."""


class Damage(NamedTuple):
    """A bit to flip, or a file to delete.

    Attributes:
      target: "data" or the method of a run.
      name: path of the file in it.
      kind: of the file, for the results.
      bit: number of the bit in the file; None deletes the file.
    """

    target: str
    name: str
    kind: str
    bit: int | None


def flips(place: Workplace, count: int, only: Sequence[str] = ()) -> None:
    """Flips `count` bits: half of them evenly over the kinds of files, the others evenly over all bits."""
    files = _files(place, only)
    rng = random.Random(f"{place.seed} flips")
    by_kind = collections.defaultdict(list)
    for name, size in files:
        by_kind[name.kind].append((name, size))
    kinds = sorted(by_kind)
    drawn = []
    for k in range(count):
        among = by_kind[kinds[k // 2 % len(kinds)]] if k % 2 == 0 else files
        (name, size), *_ = rng.choices(among, weights=[size for _, size in among])
        drawn.append(name._replace(bit=rng.randrange(8 * size)))
    _report(place, "flips", drawn)


def missing(place: Workplace, count: int, only: Sequence[str] = ()) -> None:
    """Deletes files, one at a time: `count` of them, spread over the runs."""
    names = [name for name, _ in _files(place, only, empty=True)]
    random.Random(f"{place.seed} missing").shuffle(names)
    _report(place, "missing", names[:count])


def _files(place: Workplace, only: Sequence[str], empty: bool = False) -> list[tuple[Damage, int]]:
    """Every file of the runs and of the dataset, with its bytes."""
    found = []
    for target, folder in _targets(place).items():
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = path.relative_to(folder).as_posix()
            kind = _kind(target, name)
            if (path.stat().st_size or empty) and (not only or kind in only or target in only):
                found.append((Damage(target, name, kind, None), path.stat().st_size))
    return found


def _targets(place: Workplace) -> dict[str, pathlib.Path]:
    return {"data": place.data, **{method: place.finished(method) for method in RUNS}}


def _kind(target: str, name: str) -> str:
    path = pathlib.PurePosixPath(name)
    if target == "data":
        named = path.name.replace("train", "SPLIT").replace("val", "SPLIT")
        return f"dataset: {'records' if 'array_record' in named else named}"
    for folder in ("nets", "records"):
        if folder in path.parts:
            return folder
    return "events" if path.name.startswith("events.") else path.name


def _report(place: Workplace, attack: str, damages: Sequence[Damage]) -> None:
    """Probes each damage, and appends a line for each kind of file."""
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    examples: dict[str, dict[str, list]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for damage, outcome, said in _probed(place, damages):
        counts[damage.kind][outcome] += 1
        shown = examples[damage.kind][outcome]
        if outcome not in ("named", "harmless") and len(shown) < 5:
            shown.append({"file": f"{damage.target}/{damage.name}", "bit": damage.bit, "said": said[:300]})
    for kind, outcomes in sorted(counts.items()):
        line = {"attack": attack, "kind": kind, **{outcome: outcomes[outcome] for outcome in OUTCOMES}}
        place.append({**line, "examples": {key: found for key, found in examples[kind].items() if found}})


def _probed(place: Workplace, damages: Sequence[Damage]) -> Iterator[tuple[Damage, str, str]]:
    """(damage, outcome, what was said) of each damage. A child probes them; another goes on where one died."""
    done = 0
    while done < len(damages) and not place.over:
        reading, writing = os.pipe()
        pid = forked(lambda begin=done, to=writing: _probe_all(place, damages[begin:], to))
        os.close(writing)
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            before = done
            for line in _lines(pipe):
                if line is not None:
                    yield damages[done], *line
                    done += 1
                if place.over:
                    break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _, waited = os.waitpid(pid, 0)
        if done < len(damages) and not place.over:
            status = os.waitstatus_to_exitcode(waited)
            if done == before and status != -signal.SIGKILL:
                raise RuntimeError(f"the probes ended with {status} before {damages[done]}; see {place.folder}/log.txt")
            yield damages[done], "crash", "hung" if status == -signal.SIGKILL else f"status {status}"
            done += 1


def _lines(pipe: Any) -> Iterator[list | None]:
    """The lines of JSON that a child writes, until it ends or says nothing for `WAIT` seconds; the first is None."""
    rest, ready = b"", False
    # The child first makes what it compares with.
    while select.select([pipe], [], [], WAIT if ready else 10 * WAIT)[0] and (content := pipe.read(1 << 16)):
        *lines, rest = (rest + content).split(b"\n")
        for line in lines:
            ready = True
            yield json.loads(line)


def _probe_all(place: Workplace, damages: Sequence[Damage], to: int) -> int:
    from attacks.probes import Probes

    handle = os.open(place.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    probes = Probes(place, _targets(place))
    with os.fdopen(to, "w") as pipe:
        pipe.write("null\n")
        pipe.flush()
        for damage in damages:
            pipe.write(json.dumps(probes.probe(damage)) + "\n")
            pipe.flush()
    return 0
