"""Progress of a run: metrics.jsonl, TensorBoard events, and lines on the terminal."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.files import naming, seal, unseal, write_atomically
from scarce_jax.errors import some

log = logging.getLogger("scarce_jax")


class MetricsLog:
    """Writes the metrics of a stage: TensorBoard scalars, and lines `{"stage", "step", "kind", ...}` of metrics.jsonl.

    Args:
      run_dir: the run folder.
      stage: name of the stage.
      start: the step that the stage resumes from. Lines of later steps, from before an interruption, are deleted.
      offset: number of steps of the stages before, so that TensorBoard's steps increase throughout the run.
    """

    def __init__(self, run_dir: pathlib.Path, stage: str, start: int, offset: int):
        self._stage, self._offset = stage, offset
        self._file = self._events = None
        if not mesh_lib.is_primary():
            return
        # Not its SummaryWriter, whose thread loses events and never ends if the disk is full.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._path = run_dir / "metrics.jsonl"
        lines = complete_lines(self._path)
        replace_lines(self._path, [line for line, entry in lines if entry["stage"] != stage or entry["step"] <= start])
        with naming(run_dir):
            flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW
            self._file = os.fdopen(os.open(self._path, flags), "a", encoding="utf-8")
            self._events = EventsWriter(str(run_dir / "events"), f".{stage}")
            # TensorBoard hides the events of these steps from before an interruption.
            first = offset + start + 1
            self._events.write_event(Event(step=first, file_version="brain.Event:2"))
            self._events.write_event(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, kind: str, values: Mapping[str, float | str]) -> None:
        """Appends one line and its events, and flushes the files."""
        if self._file is None:
            return
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        with naming(self._path):
            self._file.write(as_line({"stage": self._stage, "step": step, "kind": kind, **values}))
            self._file.flush()
            for name, value in values.items():
                if isinstance(value, int | float):
                    summary = scalar(f"{self._stage}/{kind}/{name}", value)
                    event = Event(wall_time=time.time(), step=self._offset + step, summary=summary)
                    self._events.write_event(event)
            self._events.flush()

    def close(self) -> None:
        if self._file is None:
            return
        # What could not be written was told when it was.
        for file in (self._file, self._events):
            with contextlib.suppress(OSError):
                file.close()


def as_line(entry: Mapping[str, Any]) -> str:
    """A line of metrics.jsonl with a checksum."""
    return json.dumps(seal(entry)) + "\n"


def complete_lines(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the lines of a metrics.jsonl with their content; leaves out damaged and cut-off lines, with a warning."""
    left_out = []
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode()
            entry = _entry(text)
        except (ValueError, KeyError, RecursionError):
            left_out.append(str(number))
        else:
            yield text, entry
    if left_out:
        log.warning("%s: damaged or cut off, and left out: line %s", path, some(left_out))


def _entry(line: str) -> dict[str, Any]:
    """Inverts `as_line`; raises ValueError or KeyError."""
    entry = unseal(json.loads(line))
    if not (line.endswith("\n") and isinstance(entry["step"], int) and {"stage", "kind"} <= entry.keys()):
        raise ValueError("no line of metrics.jsonl")
    return entry


def replace_lines(path: pathlib.Path, lines: Iterable[str]) -> None:
    """Rewrites a metrics.jsonl atomically."""
    with write_atomically(path) as aside:
        aside.write_text("".join(lines), encoding="utf-8")


class Progress:
    """Reports progress: step, loss, images per second, share of the time spent waiting for data, time left."""

    def __init__(self, stage: str, start: int, steps: int, images_per_step: int):
        self._stage, self._steps, self._images = stage, steps, images_per_step
        self._step, self._time, self._waited = start, time.perf_counter(), 0.0
        self._first = True
        self._terminal = sys.stderr.isatty()

    def waited(self, seconds: float) -> None:
        """Adds time that a step spent waiting for its batch."""
        self._waited += seconds

    def report(self, step: int, loss: float) -> dict[str, float]:
        """Logs the line of a step, and returns its timing for metrics.jsonl."""
        now = time.perf_counter()
        seconds = max(now - self._time, 1e-9)
        done = step - self._step
        rate = done * self._images / seconds
        values = {"images_per_second": round(rate, 2), "data_wait": round(min(self._waited / seconds, 1.0), 4)}
        left = _duration((self._steps - step) * seconds / max(done, 1))
        # The first interval includes compilation, so it predicts nothing.
        eta = "" if self._first else f"  {left} left"
        line = (
            f"{self._stage}  step {step}/{self._steps}  loss {loss:.4f}  {rate:.1f} images/s  "
            f"data wait {values['data_wait']:.0%}{eta}"
        )
        if mesh_lib.is_primary():
            if self._terminal:
                end = "\n" if step == self._steps else ""
                print(f"\r\x1b[K{line}", end=end, file=sys.stderr, flush=True)
            else:
                log.info("%s", line)
        self._step, self._time, self._waited, self._first = step, now, 0.0, False
        return values

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time of the block (an evaluation, a save) from the next rate."""
        began = time.perf_counter()
        yield
        self._time += time.perf_counter() - began


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
