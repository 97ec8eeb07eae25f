"""Several steps in one dispatch: the same run as one at a time."""

import json
import logging
import re

import jax
import numpy as np
import pytest

from scarce_jax import runs
from scarce_jax.recipe import NetState
from scarce_jax.runtime import Runtime
from scarce_jax.training import dispatch
from scarce_jax.training.checkpoint import Checkpoints
from scarce_jax.training.dispatch import dispatches
from tests import tiny

STEPS = 14


@pytest.mark.parametrize("start", [0, 1, 7, 13, STEPS])
@pytest.mark.parametrize("every", [(), (4, 6), (1,), (0, 5), (3, 100)])
def test_dispatches_cover_every_step_once_and_end_where_something_is_due(start, every):
    for count in (1, 3, 20):
        sizes = list(dispatches(start, STEPS, count, every))
        assert [first + k for first, size in sizes for k in range(size)] == list(range(start, STEPS))
        assert {size for _, size in sizes} <= {1, count}
        for first, size in sizes:
            assert not any(
                step % interval == 0 for step in range(first + 1, first + size) for interval in every if interval
            )


def test_several_steps_go_together_wherever_nothing_is_due_between():
    assert list(dispatches(0, 11, 3, (6,))) == [(0, 3), (3, 3), (6, 3), (9, 1), (10, 1)]
    assert list(dispatches(2, 9, 3, (4, 0))) == [(2, 1), (3, 1), (4, 3), (7, 1), (8, 1)]


def run(folder, data, monkeypatch, caplog, count):
    """Trains; gives whether a program of several steps was compiled, the saved steps, the lines and the arrays."""
    saved, save = [], Checkpoints.save
    runtime = Runtime(checkpoint_every=6, log_every=4, workers=1, steps_per_dispatch=count)
    caplog.clear()
    with monkeypatch.context() as patch, jax.log_compiles():
        patch.setattr(dispatch, "scan_is_slow", lambda mesh: False)
        patch.setattr(Checkpoints, "save", lambda self, step, x: saved.append(step) or save(self, step, x))
        runs.train(tiny.supervised_config(runtime, steps=STEPS), folder, data_dir=data, mesh=tiny.mesh(2))
    several = any(re.match(r"Compiling.*\bseveral\b", record.getMessage()) for record in caplog.records)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timing = ("images_per_second", "data_wait", "checksum")
    return several, saved, [{k: v for k, v in x.items() if k not in timing} for x in lines], tiny.stored(folder)


def test_several_steps_in_one_dispatch_are_the_same_run(tmp_path, tiny_data, monkeypatch, caplog):
    together, saved, lines, arrays = run(tmp_path / "singly", tiny_data, monkeypatch, caplog, 1)
    assert not together
    together, saved_too, lines_too, arrays_too = run(tmp_path / "together", tiny_data, monkeypatch, caplog, 3)
    assert together
    assert saved == saved_too == [6, 12]
    assert [(x["step"], x["kind"]) for x in lines] == [(x["step"], x["kind"]) for x in lines_too]
    assert [x["step"] for x in lines] == [4, 8, 12, 14]
    for one, other in zip(lines, lines_too, strict=True):
        for name, value in one.items():
            assert other[name] == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value)
    assert arrays.keys() == arrays_too.keys()
    for name, array in arrays.items():
        np.testing.assert_allclose(arrays_too[name], array, atol=1e-6, err_msg=name)


class Rows:
    def __init__(self, resident):
        self.resident = resident


NETS = {"small": NetState(params={"kernel": np.zeros((3, 5))}, batch_stats={})}


def test_one_at_a_time_on_a_cpu_or_where_a_source_streams(monkeypatch, caplog):
    mesh = tiny.mesh()
    runtime = Runtime(steps_per_dispatch=4)
    ours = logging.getLogger("scarce_jax")
    monkeypatch.setattr(ours, "propagate", True)
    with caplog.at_level(logging.INFO, "scarce_jax"):
        assert dispatch.at_once(runtime, {"a": Rows(True)}, mesh, NETS, ()) == 1
        assert "slow on a CPU" in caplog.text
        monkeypatch.setattr(dispatch, "scan_is_slow", lambda mesh: False)
        assert dispatch.at_once(runtime, {"a": Rows(True), "b": Rows(False)}, mesh, NETS, ()) == 1
        assert "b is not resident" in caplog.text
        caplog.clear()
        assert dispatch.at_once(runtime, {"a": Rows(True)}, mesh, NETS, (7,)) == 4 and not caplog.text


def test_the_number_is_chosen_where_none_is_given(monkeypatch):
    def chosen(stops, resident=True, nets=NETS):
        return dispatch.at_once(Runtime(), {"a": Rows(resident)}, tiny.mesh(), nets, stops)

    assert chosen((0, 1000, 20, 500)) == 1
    monkeypatch.setattr(dispatch, "scan_is_slow", lambda mesh: False)
    assert chosen((0, 1000, 20, 500)) == 5
    assert chosen((0, 160, 16, 0)) == 8
    assert chosen((0, 1001, 20, 500)) == chosen((333, 1000, 20, 500)) == 1
    assert chosen((0, 1000, 20, 500), resident=False) == 1
    monkeypatch.setattr(dispatch, "LARGE", 16)
    assert chosen((0, 1000, 20, 500)) == 5
    monkeypatch.setattr(dispatch, "LARGE", 15)
    assert chosen((0, 1000, 20, 500)) == 1
