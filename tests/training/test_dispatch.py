"""Several steps in one dispatch: the same run as one at a time."""

import json
import logging

import jax
import numpy as np
import pytest

import scarce_jax
from scarce_jax import mesh as mesh_lib
from scarce_jax.errors import InputError
from scarce_jax.runtime import Runtime
from scarce_jax.training import dispatch, loop
from scarce_jax.training.dispatch import dispatches
from tests import tiny

STEPS = 14


@pytest.mark.parametrize("start", [0, 1, 7, 13, STEPS])
@pytest.mark.parametrize("every", [(), (4, 6), (1,), (0, 5), (3, 100)])
def test_dispatches_cover_every_step_once_and_end_where_something_is_due(start, every):
    for count in (1, 3, 20):
        found = list(dispatches(start, STEPS, count, every))
        assert [first + k for first, size in found for k in range(size)] == list(range(start, STEPS))
        assert {size for _, size in found} <= {1, count}
        for first, size in found:
            assert not any(
                step % interval == 0 for step in range(first + 1, first + size) for interval in every if interval
            )


def test_several_steps_go_together_wherever_nothing_is_due_between():
    assert list(dispatches(0, 11, 3, (6,))) == [(0, 3), (3, 3), (6, 3), (9, 1), (10, 1)]
    assert list(dispatches(2, 9, 3, (4, 0))) == [(2, 1), (3, 1), (4, 3), (7, 1), (8, 1)]


def run(folder, data, monkeypatch, count):
    """Trains; gives the sizes of the dispatches, the steps of the checkpoints, the lines and the arrays."""
    compiled, saved = [], []
    make_step, save, make_mesh = loop.make_step, loop.Checkpoints.save, mesh_lib.make_mesh
    runtime = Runtime(checkpoint_every=6, log_every=4, workers=1, steps_per_dispatch=count)
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "scan_is_slow", lambda mesh: False)
        patch.setattr(mesh_lib, "make_mesh", lambda: make_mesh(jax.devices()[:2]))
        patch.setattr(loop, "make_step", lambda *args: compiled.append(args[-1]) or make_step(*args))
        patch.setattr(loop.Checkpoints, "save", lambda self, step, x: saved.append(step) or save(self, step, x))
        scarce_jax.train(tiny.supervised_config(runtime, steps=STEPS), folder, data_dir=data)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timing = ("images_per_second", "data_wait")
    return compiled, saved, [{k: v for k, v in x.items() if k not in timing} for x in lines], tiny.stored(folder)


def test_several_steps_in_one_dispatch_are_the_same_run(tmp_path, tiny_data, tiny_nets, monkeypatch):
    singly, saved, lines, arrays = run(tmp_path / "singly", tiny_data, monkeypatch, 1)
    together, saved_too, lines_too, arrays_too = run(tmp_path / "together", tiny_data, monkeypatch, 3)
    assert singly == [1] and sorted(together) == [1, 3]
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


def test_one_at_a_time_on_a_cpu_or_where_a_source_streams(monkeypatch, caplog):
    mesh = mesh_lib.make_mesh(jax.devices()[:1])
    runtime = Runtime(steps_per_dispatch=4)
    ours = logging.getLogger("scarce_jax")
    monkeypatch.setattr(ours, "propagate", True)
    with caplog.at_level(logging.INFO, "scarce_jax"):
        assert dispatch.at_once(runtime, {"a": Rows(True)}, mesh) == 1
        assert "slow on a CPU" in caplog.text
        monkeypatch.setattr(dispatch, "scan_is_slow", lambda mesh: False)
        assert dispatch.at_once(runtime, {"a": Rows(True), "b": Rows(False)}, mesh) == 1
        assert "b is not resident" in caplog.text
        caplog.clear()
        assert dispatch.at_once(runtime, {"a": Rows(True)}, mesh) == 4 and not caplog.text


def test_a_number_of_steps_below_one_is_refused():
    with pytest.raises(InputError, match="steps_per_dispatch is 0"):
        Runtime(steps_per_dispatch=0)
