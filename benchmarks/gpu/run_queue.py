"""Runs the measurements that a GPU is wanted for, the most wanted first, and keeps all that is done when time ends.

    python benchmarks/gpu/run_queue.py --out DIR [--minutes 8] [--tiny] [--only NAME ...] [--again NAME ...]

`tasks.py` lists the tasks; README.md beside it has the preparation, the rules and what the files hold.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import device
from tasks import Task, command_line, tasks

RESULTS = device.ROOT / "benchmarks" / "results" / "gpu"
WORKERS = ("jax", "jax", "torch")
"""One JAX process measures while the next one starts and traces. Tasks of PyTorch come between them."""


def rows(paths: Iterable[pathlib.Path]) -> Iterator[dict[str, Any]]:
    """The lines of results, without one that was cut short."""
    for path in paths:
        for line in path.read_text().splitlines() if path.is_file() else ():
            with contextlib.suppress(ValueError):
                yield json.loads(line)


def finished(paths: Iterable[pathlib.Path], kind: str, tiny: bool) -> dict[str, str | None]:
    """Task -> code with which it is done on this kind of device, None where a line says that it is final.

    A task is done by a line of status 0 with its code, or by a line with "final": true, whatever its code.
    """
    done: dict[str, str | None] = {}
    for row in rows(paths):
        if "task" not in row or row.get("device") != kind or row.get("tiny", False) != tiny:
            continue
        if row.get("final"):
            done[row["task"]] = None
        elif row.get("status") == 0 and done.get(row["task"], "") is not None:
            done[row["task"]] = row.get("code", "")
    return done


def gpu() -> dict[str, str]:
    """The first GPU by nvidia-smi: its "device", as JAX names it, and its driver and clocks; "cpu" without one."""
    if shutil.which("nvidia-smi") is None:
        return {"device": "cpu"}
    fields = {"device": "name", "driver": "driver_version", "memory": "memory.total", "clock": "clocks.max.sm"}
    words = ["nvidia-smi", f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader"]
    lines = subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
    return dict(zip(fields, lines[0].split(", "), strict=True)) if lines else {"device": "cpu"}


class Queue:
    """Tasks, and the processes that run.

    Args:
      out: folder of results.jsonl, to which a line is added as soon as a process prints it, and of tables.txt.
      work: folder that later calls go on in: logs, run folders of trainings, caches of compiled programs.
      data: folder of prepared datasets.
      end: `time.monotonic()` after which all processes are killed.
      common: keys of every line.
      least: seconds before the end below which no further task starts.
    """

    def __init__(
        self,
        planned: Iterable[Task],
        out: pathlib.Path,
        work: pathlib.Path,
        data: pathlib.Path,
        end: float,
        common: dict[str, Any],
        least: float = 15.0,
    ):
        self.out, self.work, self.data, self.end, self.common, self.least = out, work, data, end, common, least
        self.waiting = collections.defaultdict(collections.deque)
        for task in planned:
            self.waiting[task.worker].append(task)
        for folder in (out, work):
            folder.mkdir(parents=True, exist_ok=True)
        self.running: set[subprocess.Popen] = set()
        self.failed: list[str] = []
        self._mutex = threading.Lock()

    def run(self, workers: Iterable[str] = WORKERS) -> None:
        """Runs all tasks until they end or time does. No thread is waited for that a killed process might block."""
        threads = [threading.Thread(target=self._work, args=(worker,), daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and time.monotonic() < self.end:
            time.sleep(0.1)
        self.stop()
        for thread in threads:
            thread.join(5.0)

    def stop(self) -> None:
        """Ends the time now, and kills all processes."""
        self.end = min(self.end, time.monotonic())
        for process in list(self.running):
            kill(process)

    def note(self, **row: Any) -> None:
        """Adds a line to the results."""
        with self._mutex, (self.out / "results.jsonl").open("a") as file:
            file.write(json.dumps({**self.common, **row}) + "\n")

    def _work(self, worker: str) -> None:
        while True:
            with self._mutex:
                if not self.waiting[worker] or self.end - time.monotonic() < self.least:
                    return
                task = self.waiting[worker].popleft()
            try:
                self._run(task)
            except Exception as error:  # noqa: BLE001  the other tasks of the worker go on
                self.note(task=task.name, status=None, errors=f"{type(error).__name__}: {error}")

    def _run(self, task: Task) -> None:
        log = self.work / f"{task.name}.log"
        began, line_count, clock, code = time.monotonic(), 0, Clock(task.limit), task.code()
        with log.open("w") as errors:
            process = subprocess.Popen(
                command_line(task, self.work, self.data),
                cwd=device.ROOT,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self._environment(task),
                # A group of its own, which is killed as a whole: a child that is left would keep the GPU.
                start_new_session=True,
            )
            self.running.add(process)
            if time.monotonic() > self.end:
                kill(process)
            for line in process.stdout:
                row = json.loads(line) if line.startswith("{") else {}
                if "gpu" in row:
                    clock.set(row["gpu"] == "taken", process)
                elif row:
                    line_count += 1
                    self.note(task=task.name, code=code, **{**row, **self.common})
            status = process.wait()
            clock.set(False, process)
            kill(process)
            self.running.discard(process)
        text = log.read_text(errors="replace")
        if clock.over:
            text += f"\nkilled after {task.limit:.0f} s with the GPU"
        elif time.monotonic() > self.end:
            text += "\nkilled at the end of the time"
        row = {"status": status, "seconds": round(time.monotonic() - began, 1), "gpu_seconds": round(clock.used, 1)}
        self.note(task=task.name, code=code, **row, lines=line_count, errors=text[-800:] if status else "")
        if status:
            self.failed.append(task.name)
        print(f"{task.name}: status {status}, {row['gpu_seconds']} of {row['seconds']} s with the GPU", flush=True)
        self._keep_table(task)

    def _keep_table(self, task: Task) -> None:
        table = self.work / f"{task.name}.kernels.txt"
        if table.is_file():
            with self._mutex, (self.out / "tables.txt").open("a") as file:
                file.write(f"##### {task.name}\n{table.read_text()}\n")
            table.unlink()

    def _environment(self, task: Task) -> dict[str, str]:
        flags = task.flags if self.common["device"] != "cpu" else ""
        return {
            **os.environ,
            device.LOCK: str(self.work / "gpu.lock"),
            "PYTHONUNBUFFERED": "1",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
            "JAX_COMPILATION_CACHE_DIR": str(self.work / "cache"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.work / "inductor"),
        }


class Clock:
    """Seconds that a process has the GPU; the process is killed when they reach the limit."""

    def __init__(self, limit: float):
        self.limit, self.used, self.over = limit, 0.0, False
        self._since: float | None = None
        self._timer: threading.Timer | None = None

    def set(self, taken: bool, process: subprocess.Popen) -> None:
        """The process has taken the GPU, or left it."""
        if taken and self._since is None:
            self._since = time.monotonic()
            self._timer = threading.Timer(max(0.0, self.limit - self.used), self._stop, (process,))
            self._timer.daemon = True
            self._timer.start()
        elif not taken and self._since is not None:
            self._timer.cancel()
            self.used += time.monotonic() - self._since
            self._since = None

    def _stop(self, process: subprocess.Popen) -> None:
        self.over = True
        kill(process)


def kill(process: subprocess.Popen) -> None:
    """Kills a process and its children."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def pack(out: pathlib.Path, work: pathlib.Path) -> None:
    """more.tar.gz: logs, compiled programs and the records of trainings; cache.tar.gz: the compilation cache."""
    kept = [file for file in sorted(work.rglob("*")) if file.suffix in (".log", ".txt", ".json", ".jsonl")]
    with tarfile.open(out / "more.tar.gz", "w:gz") as tar:
        for file in kept:
            if "cache" not in file.parts and "inductor" not in file.parts:
                tar.add(file, file.relative_to(work))
    if (work / "cache").is_dir():
        with tarfile.open(out / "cache.tar.gz", "w:gz") as tar:
            tar.add(work / "cache", "cache")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, help="folder of what is to be kept; needed but for --list")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--tiny", action="store_true", help="the same tasks at sizes for a CPU")
    parser.add_argument("--only", nargs="+", default=[], help="names of tasks, or their beginnings")
    parser.add_argument("--again", nargs="+", default=[], help="tasks to run though they are done; `all`")
    parser.add_argument("--work", type=pathlib.Path, default=device.ROOT / "scratch" / "gpu_queue")
    parser.add_argument("--data", type=pathlib.Path, help="folder of prepared datasets; default WORK/data")
    parser.add_argument("--list", action="store_true", help="print what would run, and stop")
    options = parser.parse_args()
    if options.out is None and not options.list:
        parser.error("--out is missing: the folder of what is to be kept")
    every = tasks(options.tiny)
    names = [task.name for task in every]
    unknown = [word for word in options.only if not any(name.startswith(word) for name in names)]
    unknown += [word for word in options.again if word != "all" and word not in names]
    if unknown:
        parser.error(f"no task is called {', '.join(unknown)}; --list prints the names")
    end = time.monotonic() + 60 * options.minutes
    found = gpu()
    kept = [*RESULTS.glob("*.jsonl"), *([options.out / "results.jsonl"] if options.out else [])]
    done = finished(kept, found["device"], options.tiny)
    planned = []
    for task in every:
        if options.only and not task.name.startswith(tuple(options.only)):
            continue
        forced = "all" in options.again or task.name in options.again
        if forced or task.name not in done or done[task.name] not in (None, task.code()):
            planned.append(task)
    if options.list:
        print("\n".join(task.name for task in planned))
        return
    work = options.work.resolve()
    data = (options.data or work / "data").resolve()
    common = {"device": found["device"], **({"tiny": True} if options.tiny else {})}
    queue = Queue(planned, options.out.resolve(), work, data, end, common)
    # A call that is ended from outside leaves no process that keeps the GPU.
    signal.signal(signal.SIGTERM, lambda *_: queue.stop())
    queue.note(machine=found, python=sys.version.split()[0], planned=[task.name for task in planned])
    queue.run()
    pack(queue.out, queue.work)
    left = [task.name for names in queue.waiting.values() for task in names]
    print(f"failed: {', '.join(queue.failed) or 'none'}; not reached: {', '.join(left) or 'none'}", flush=True)
    # At once, whatever a thread waits for.
    os._exit(1 if queue.failed else 0)


if __name__ == "__main__":
    main()
