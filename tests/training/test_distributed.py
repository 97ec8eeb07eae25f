"""Two processes train, infer and save together; one restores what they left."""

import contextlib
import json
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from scarce_jax import mesh as mesh_lib
from scarce_jax import runs
from scarce_jax.data.records import Records
from scarce_jax.training.infer import load_mean
from tests import tiny

pytestmark = pytest.mark.processes

CONFIG = tiny.detailer_config(steps=4, eval_every=2)

# The detailer, and a mean over a single image: the second process has none of it.
SCRIPT = """
import dataclasses, sys
from scarce_jax.cli import main
from scarce_jax.methods import detailer
from scarce_jax.recipe import Infer, Mean
from tests import tiny

plain = detailer.recipe

def recipe(config, info):
    made = plain(config, info)
    source = dataclasses.replace(made.stages[-1].source, take=1)
    average = lambda nets, batch, consts: {"colour": batch["image"].mean((1, 2))}
    stage = Infer(name="average", nets={}, predict=average, source=source, settings={}, write=Mean())
    return dataclasses.replace(made, stages=(*made.stages, stage))

detailer.recipe = recipe
tiny.install()
sys.exit(main(sys.argv[1:]))
"""

FILE = """
from tests import tiny

config = tiny.detailer_config(steps=4, eval_every=2)
"""


def test_two_processes_do_what_one_does(tmp_path, tiny_data, tiny_nets, monkeypatch):
    (tmp_path / "config.py").write_text(FILE)
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    run = tmp_path / "two"
    words = [sys.executable, "-c", SCRIPT, "train", tmp_path / "config.py", "--workdir", run, "--data-dir", tiny_data]
    words += ["--coordinator", f"localhost:{port}", "--processes", 2, "--process"]
    logs = [tmp_path / f"{number}.log" for number in range(2)]
    with contextlib.ExitStack() as stack:
        both = []
        for number, log in enumerate(logs):
            command = [str(word) for word in [*words, number]]
            out = stack.enter_context(log.open("w"))
            started = subprocess.Popen(
                command, env=tiny.environment(devices=2), cwd=tiny.ROOT, stdout=out, stderr=subprocess.STDOUT
            )
            stack.callback(started.kill)
            both.append(started)
        statuses = [process.wait(timeout=280) for process in both]
    told = [log.read_text() for log in logs]
    assert statuses == [0, 0], told
    # One process tells the results.
    assert ["detailer_composite" in text for text in told] == [True, False]

    whole = mesh_lib.make_mesh
    monkeypatch.setattr(mesh_lib, "make_mesh", lambda devices=None: whole(devices or jax.devices()[:1]))
    alone = tmp_path / "alone"
    expected = runs.train(CONFIG, alone, data_dir=tiny_data)
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
    # What four devices of two processes measured, one measures again.
    for name in expected["results"]:
        found = runs.evaluate(run, name, data_dir=tiny_data)
        assert found["devices"] == 1 and found["images"] == 7
        assert found["miou"] == summary["results"][name]["miou"]
        assert found["per_class"] == summary["results"][name]["per_class"]
    records = [Records(folder / "detail/records") for folder in (run, alone)]
    records[0].check_complete(records[1].ids)
    assert len(records[0]) == 12
    for name in records[1].ids:
        one, two = (r.read(name)["mask"] for r in records)
        assert one.shape == (32, 32) and (one == two).mean() > 0.99

    session, _, _ = runs.open_run(run, tiny_data)
    source = session.recipe.stage("detail").source
    first = session.inputs.open(source)[0]
    colour = source.transform(first, jax.random.key(0), {})["image"].mean((0, 1))
    np.testing.assert_allclose(load_mean(run, "average", "colour"), colour, rtol=1e-5)
