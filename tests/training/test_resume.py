"""A run killed at any moment goes on, and ends with the bits of an unbroken one."""

import collections
import json
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from scarce_jax.data.records import Records
from tests import tiny

pytestmark = pytest.mark.processes

STEPS, EVERY = 16, 4
STAGES = ("detailer", "classifier")

CONFIG = f"""
from tests import tiny

runtime = tiny.Runtime(checkpoint_every={EVERY}, log_every=1, workers=1)
config = tiny.detailer_config(compare=True, steps={STEPS}, eval_every=5, runtime=runtime)
"""

# Kills itself when the first file of the checkpoint of step 8 is being written, hence inside a save.
IN_SAVE = """
import os, pathlib, signal, sys, threading, time
from scarce_jax.cli import main

def watch(folder):
    while not any(folder.glob("classifier/checkpoints/8.orbax-checkpoint-tmp*")):
        time.sleep(0.0005)
    os.kill(os.getpid(), signal.SIGKILL)

run = pathlib.Path(sys.argv[sys.argv.index("--workdir") + 1])
threading.Thread(target=watch, args=[run], daemon=True).start()
sys.exit(main(sys.argv[1:]))
"""

# Kills itself when the finished nets of a stage are saved, but the stage is not done.
IN_NETS = """
import os, pathlib, signal, sys
from scarce_jax.cli import main
from scarce_jax.training import folder

def write_done(where, done, write=folder.write_done):
    if where.name == "detailer":
        os.kill(os.getpid(), signal.SIGKILL)
    write(where, done)

folder.write_done = write_done
sys.exit(main(sys.argv[1:]))
"""

# Parts of four examples; kills itself when the third is written aside, where told so.
IN_PARTS = """
import os, pathlib, signal, sys
from scarce_jax.cli import main
from scarce_jax.data import files
from scarce_jax.training import infer

def sync(path, sync=files.sync):
    if "part-00002" in path.name and ARMED:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(path)

infer.PART, files.sync = 4, sync
sys.exit(main(sys.argv[1:]))
"""


class Command:
    """The same train command, again and again."""

    def __init__(self, folder: pathlib.Path, data: pathlib.Path, name: str):
        self.run = folder / name
        self._config = folder / "config.py"
        self._config.write_text(CONFIG)
        self._words = ["train", str(self._config), "--workdir", str(self.run), "--data-dir", str(data)]
        self.environment = tiny.environment()

    def start(self, script: str | None = None) -> subprocess.Popen:
        begin = ["-m", "scarce_jax"] if script is None else ["-c", script]
        words = [sys.executable, *begin, *self._words]
        return subprocess.Popen(words, env=self.environment, cwd=tiny.ROOT, stderr=subprocess.PIPE, text=True)

    def lines(self) -> list[dict]:
        path = self.run / "metrics.jsonl"
        entries = []
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                assert not entries or line  # a line cut by the kill
        return entries

    def steps(self, stage: str) -> list[int]:
        return [x["step"] for x in self.lines() if x["stage"] == stage and x["kind"] == "train"]

    def checkpoints(self, stage: str) -> tuple[list[int], list[int]]:
        """Steps of complete checkpoints and of those being written."""
        paths = [p.name for p in (self.run / stage / "checkpoints").glob("*")]
        writing = [int(name.split(".")[0]) for name in paths if ".orbax-checkpoint-tmp" in name]
        return sorted(int(name) for name in paths if name.isdigit()), writing

    def kill_at(self, stage: str, step: int, delay: float, number: int = signal.SIGKILL) -> tuple[int, str]:
        """Starts, sends a signal some time after `step` was logged; gives exit status and standard error."""
        process = self.start()
        while process.poll() is None and step not in self.steps(stage):
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        return process.returncode, errors

    def finish(self, script: str | None = None) -> tuple[int, str]:
        process = self.start(script)
        _, errors = process.communicate(timeout=300)
        return process.returncode, errors


def went_on(errors: str, stage: str) -> int:
    """The step from which a stage went on, as the log says."""
    match = re.search(rf"{stage}: goes on from step (\d+)", errors)
    return int(match[1]) if match else 0


def check_repeats(command: Command, stage: str) -> int:
    """The step that a stage must go on from, after it was killed: at most `EVERY` steps are lost."""
    done, writing = command.checkpoints(stage)
    newest = max(done, default=0)
    reached = max(command.steps(stage), default=0)
    # A save that the kill fell into does not count; the one before it does.
    assert newest >= (min(writing) if writing else reached) - EVERY
    return newest


def test_killed_anywhere_it_ends_with_the_same_bits(tmp_path, tiny_data):
    rng = random.Random(7)
    whole = Command(tmp_path, tiny_data, "whole")
    status, errors = whole.finish()
    assert status == 0, errors
    broken = Command(tmp_path, tiny_data, "broken")

    expected = 0
    for _ in range(2):
        # Somewhere in the first stage, in the middle of a step, an evaluation or a save.
        target = rng.randrange(expected + 1, STEPS - 2)
        status, errors = broken.kill_at("detailer", target, rng.uniform(0, 0.05))
        assert status == -signal.SIGKILL, errors
        assert went_on(errors, "detailer") == expected
        expected = check_repeats(broken, "detailer")

    status, errors = broken.finish(IN_NETS)
    assert status == -signal.SIGKILL and went_on(errors, "detailer") == expected, errors
    assert (broken.run / "detailer/nets/segmenter").exists() and not (broken.run / "detailer/DONE").exists()
    expected = check_repeats(broken, "detailer")

    status, errors = broken.finish(IN_SAVE)
    assert status == -signal.SIGKILL and went_on(errors, "detailer") == expected, errors
    assert (broken.run / "detailer/DONE").exists() and not (broken.run / "detailer/checkpoints").exists()
    done, _ = broken.checkpoints("classifier")
    assert done == [4] and list((broken.run / "classifier/checkpoints").glob("8.orbax-checkpoint-tmp*"))

    status, errors = broken.kill_at("classifier", 9, 0, signal.SIGTERM)
    assert status == 130, errors
    assert went_on(errors, "classifier") == 4
    interrupted = int(re.search(r"classifier: interrupted at step (\d+), which is saved; the same command", errors)[1])
    done, writing = broken.checkpoints("classifier")
    assert interrupted >= 9 and done[-1] == interrupted and not writing
    assert max(broken.steps("classifier")) == interrupted

    status, errors = broken.finish(IN_PARTS.replace("ARMED", "True"))
    assert status == -signal.SIGKILL, errors
    assert went_on(errors, "classifier") == interrupted and "detailer: done before (16 steps)" in errors
    records = broken.run / "detail/records"
    assert sorted(p.name for p in records.glob("part-*")) == [f"part-0000{k}.arrayrecord" for k in range(2)]
    assert len(list(records.iterdir())) == 3  # The third, aside.

    status, errors = broken.finish(IN_PARTS.replace("ARMED", "False"))
    assert status == 0, errors
    assert "detail: goes on, 2 of 3 parts are done" in errors
    assert json.loads((broken.run / "detail/DONE").read_text())["inferred"] == 4
    assert len(list(records.iterdir())) == 3

    for command in (whole, broken):
        lines = collections.Counter((x["stage"], x["kind"], x["step"]) for x in command.lines())
        expected = {(stage, "train", step) for stage in STAGES for step in range(1, STEPS + 1)}
        expected |= {(stage, "eval", step) for stage in STAGES for step in (5, 10, 15, 16)}
        assert lines == dict.fromkeys(expected, 1)
        for stage in STAGES:
            assert command.steps(stage) == list(range(1, STEPS + 1))
        assert not list(command.run.glob("*/checkpoints")) and not list(command.run.rglob("*tmp*"))

    values = [
        [
            {k: v for k, v in x.items() if k not in ("images_per_second", "data_wait", "checksum")}
            for x in command.lines()
        ]
        for command in (whole, broken)
    ]
    assert values[0] == values[1]
    one, other = tiny.stored(whole.run), tiny.stored(broken.run)
    assert len(one) == 2 * 9 and one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
    records = [Records(command.run / "detail/records") for command in (whole, broken)]
    for name in records[0].ids:
        for field, array in records[0].read(name).items():
            np.testing.assert_array_equal(array, records[1].read(name)[field])
    summaries = [json.loads((command.run / "summary.json").read_text()) for command in (whole, broken)]
    for name, figures in summaries[0]["results"].items():
        assert figures == summaries[1]["results"][name]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_after_random_times(tmp_path, tiny_data, seed):
    rng = random.Random(seed)
    whole, broken = (Command(tmp_path, tiny_data, name) for name in ("whole", "broken"))
    assert whole.finish()[0] == 0
    for _ in range(12):
        process = broken.start()
        time.sleep(rng.uniform(4, 14))
        process.kill()
        process.communicate()
    status, errors = broken.finish()
    assert status == 0, errors
    one, other = tiny.stored(whole.run), tiny.stored(broken.run)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
    for stage in STAGES:
        assert broken.steps(stage) == list(range(1, STEPS + 1))
