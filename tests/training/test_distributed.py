"""Two processes train, infer and save together; one restores what they left."""

import contextlib
import json
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from scarce_jax import run_folder, runs
from scarce_jax.data.records import Records, load_mean
from tests import tiny

pytestmark = pytest.mark.processes

CONFIG = tiny.detailer_config(steps=4, eval_every=2)

# A method of a user: the detailer, and a mean over a single image, of which the second process has none.
METHOD = """
import dataclasses

from scarce_jax.methods import detailer
from scarce_jax.recipe import Infer, Mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(detailer.Config):
    pass


def average(nets, batch, consts):
    return {"colour": batch["image"].mean((1, 2))}


def recipe(config, info):
    whole = detailer.recipe(config, info)
    source = dataclasses.replace(whole.stages[-1].source, take=1)
    stage = Infer(name="average", nets={}, predict=average, source=source, write=Mean())
    return dataclasses.replace(whole, stages=(*whole.stages, stage))
"""

FILE = """
import dataclasses

import averaging
from tests import tiny

plain = tiny.detailer_config(steps=4, eval_every=2)
config = averaging.Config(**{field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)})
"""


def test_two_processes_do_what_one_does(tmp_path, tiny_data, monkeypatch):
    (tmp_path / "averaging.py").write_text(METHOD)
    (tmp_path / "config.py").write_text(FILE)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    run = tmp_path / "two"
    words = [
        sys.executable,
        "-m",
        "scarce_jax",
        "train",
        tmp_path / "config.py",
        "--workdir",
        run,
        "--data-dir",
        tiny_data,
    ]
    words += ["--coordinator", f"localhost:{port}", "--processes", 2, "--process"]
    logs = [tmp_path / f"{number}.log" for number in range(2)]
    with contextlib.ExitStack() as stack:
        both = []
        for number, log in enumerate(logs):
            command = [str(word) for word in [*words, number]]
            out = stack.enter_context(log.open("w"))
            started = subprocess.Popen(
                command, env=tiny.environment(devices=2), cwd=tmp_path, stdout=out, stderr=subprocess.STDOUT
            )
            stack.callback(started.kill)
            both.append(started)
        statuses = [process.wait(timeout=280) for process in both]
    texts = [log.read_text() for log in logs]
    assert statuses == [0, 0], texts
    # One process tells the results.
    assert ["detailer_composite" in text for text in texts] == [True, False]

    alone = tmp_path / "alone"
    expected = runs.train(CONFIG, alone, data_dir=tiny_data, mesh=tiny.mesh())
    one, two = tiny.stored(alone), tiny.stored(run)
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_allclose(two[name], array, rtol=0, atol=1e-5, err_msg=name)

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(x["kind"], x["step"]) for x in lines] == [
        (kind, step) for step in range(1, 5) for kind in ("train", "eval") if kind == "train" or step % 2 == 0
    ]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["devices"] == 4
    monkeypatch.syspath_prepend(tmp_path)
    # What four devices of two processes measured, one measures again.
    for name in expected["results"]:
        figures = runs.evaluate(run, name, data_dir=tiny_data, mesh=tiny.mesh(), allow_import=True)
        assert figures["devices"] == 1 and figures["images"] == 7
        assert figures["miou"] == summary["results"][name]["miou"]
        assert figures["per_class"] == summary["results"][name]["per_class"]
    records = [Records(folder / "detail/records") for folder in (run, alone)]
    records[0].check_complete(records[1].ids)
    assert len(records[0]) == 12
    for name in records[1].ids:
        one, two = (r.read(name)["mask"] for r in records)
        assert one.shape == (32, 32) and (one == two).mean() > 0.99

    session, _, _ = run_folder.open_run(run, tiny_data, tiny.mesh())
    source = session.recipe.stage("detail").source
    first = session.inputs.open(source)[0]
    colour = source.transform(first, jax.random.key(0), {})["image"].mean((0, 1))
    np.testing.assert_allclose(load_mean(run, "average", "colour"), colour, rtol=1e-5)
