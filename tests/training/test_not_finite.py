"""What is saved is finite; what is not stops the stage, and is found again by a replay."""

import dataclasses
import json
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax import runs
from scarce_jax.cli import main
from scarce_jax.errors import InputError
from scarce_jax.models.encoded import Encoded
from scarce_jax.optim import Group, Optimizer
from scarce_jax.recipe import NetState, Out, Source, Train, Turn
from scarce_jax.training.finite import not_finite
from scarce_jax.training.packing import packed
from scarce_jax.training.replay import first_fault
from scarce_jax.training.state import TrainState
from tests import tiny


def diverging(lr, steps, **runtime):
    optim = dataclasses.replace(tiny.stage()["optim"], lr=lr)
    return tiny.supervised_config(steps=steps, optim=optim, runtime=tiny.Runtime(workers=1, **runtime))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, tiny_data):
    """A run that diverged, and its message."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(InputError) as caught:
        runs.train(diverging(1e9, 9, checkpoint_every=1, log_every=1), run, data_dir=tiny_data, mesh=tiny.mesh())
    return run, str(caught.value)


def report_of(run):
    return json.loads((run / "segmenter/not_finite/report.json").read_text())


def test_divergence_leaves_good_checkpoints_and_a_report(stopped, tiny_data):
    run, message = stopped
    report, kept = report_of(run), sorted(int(p.name) for p in (run / "segmenter/checkpoints").iterdir())
    assert (run / "segmenter" / report["state"]).is_dir()
    assert kept and report["starts_from"] == kept[-1] and report["step"] == kept[-1] + 1
    assert f"the checkpoint of step {kept[-1]} is kept" in message and f"scarce-jax replay {run}`" in message
    assert list(report["examples"]) == [str(report["step"])]
    assert len(report["examples"][str(report["step"])]["labelled"]) == 8
    # The last good state can be gone on from, and ends at the same place.
    with pytest.raises(InputError) as caught:
        runs.train(diverging(1e9, 9, checkpoint_every=1, log_every=1), run, data_dir=tiny_data, mesh=tiny.mesh())
    assert str(caught.value) == message and report_of(run) == report


def test_replay_finds_the_step_the_layer_and_the_arrays(stopped, tiny_data, capfd, monkeypatch):
    run, _ = stopped
    report = report_of(run)
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    monkeypatch.setattr(runs, "open_run", lambda run, data, _, opened=runs.open_run: opened(run, data, tiny.mesh()))
    assert main(["replay", str(run), "--data-dir", str(tiny_data), "--json"]) == 0
    out = capfd.readouterr().out
    found = json.loads(out.splitlines()[-1])
    assert (found["stage"], found["step"], found["starts_from"]) == ("segmenter", report["step"], report["starts_from"])
    assert found["examples"] == report["examples"][str(report["step"])]
    assert {**found["metrics"], **dict.fromkeys(found["arrays"], "not finite")}.keys() >= report["not_finite"].keys()
    assert f"step {found['step']} is the first with a value that is not finite" in out
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*")) == before


def test_divergence_in_the_last_update_is_no_result(tmp_path, tiny_data):
    # The loss of the only step is that of the initial values.
    config = diverging(1e9, 1, log_every=1)
    steep = Group(pattern="kernel$", lr=1e12, weight_decay=1e12)
    optim = dataclasses.replace(config.segmenter.optim, weight_decay=1e12, groups=(steep, Group()))
    message = (
        r"stage segmenter: \d+ arrays of the net \(segmenter/params/.*\) are not finite after step 1 \(there is no"
    )
    with pytest.raises(InputError, match=message):
        runs.train(tiny.replaced(config, "segmenter", optim=optim), tmp_path, data_dir=tiny_data, mesh=tiny.mesh())
    assert not (tmp_path / "segmenter/nets").exists() and not (tmp_path / "segmenter/DONE").exists()
    assert report_of(tmp_path)["step"] == 1


def test_a_run_without_a_fault_has_nothing_to_replay(tmp_path, stopped):
    with pytest.raises(InputError, match="not a run folder"):
        runs.replay(tmp_path)
    run, _ = stopped
    shutil.copy(run / "config.json", tmp_path)
    with pytest.raises(InputError, match="nothing stopped it"):
        runs.replay(tmp_path, "segmenter")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_every_value_is_looked_at(value):
    params = {"a": {"kernel": np.ones((2, 3), np.float32)}, "b": {"kernel": np.ones((3, 3), np.float32)}}
    stats = {"bn": {"mean": np.zeros(3, np.float32)}}
    for place, name in (
        (params["b"]["kernel"], "net/params/b/kernel"),
        (stats["bn"]["mean"], "net/batch_stats/bn/mean"),
    ):
        assert not_finite({"net": NetState(params=params, batch_stats=stats)}) == []
        before = place.copy()
        place[-1] = value
        net = NetState(params=params, batch_stats=stats)
        assert not_finite({"net": net}) == [name]
        state = packed(
            TrainState(step=jnp.zeros((), jnp.int32), nets={"net": net}), {"net": Optimizer(lr=1.0)}, tiny.mesh()
        )
        assert not_finite(state.nets) == [name]
        place[:] = before
    assert not_finite({}) == []


class Log(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jnp.log(x)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = Log(name="log")(nn.Dense(1, use_bias=False, kernel_init=nn.initializers.ones, name="dense")(x))
        return nn.BatchNorm(use_running_average=False, use_bias=False, name="bn")(x)


@dataclasses.dataclass(frozen=True)
class Loss:
    of: float = 1.0

    def __call__(self, params, nets, batch, shared, key):
        out, _ = Net().apply({"params": params}, batch["rows"]["x"], mutable=["batch_stats"])
        loss = jnp.log(self.of) * (out**2).mean()
        return loss, Out(metrics={"term": loss})


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("value", "of", "expected"),
    [
        (np.nan, 1.0, {"where": "input", "turn": None, "name": "rows/x", "images": ["c"]}),
        (-1.0, 1.0, {"where": "activations", "turn": "net", "name": "log", "images": ["c"]}),
        (1.0, -1.0, {"where": "loss", "turn": "net", "name": "term", "images": []}),
        (1.0, 1.0, {"where": None, "turn": None, "name": None, "images": []}),
    ],
)
def test_the_first_fault_is_named_with_its_images(accumulate, value, of, expected):
    x = jnp.arange(1.0, 5.0)[:, None].at[2].set(value)
    net = NetState(params=Net().init(jax.random.key(0), x)["params"], batch_stats={})
    stage = Train(
        name="stage",
        nets={},
        turns=(Turn(net="net", loss=Loss(of)),),
        sources={"rows": Source(dataset="d", split="s", ids="all", batch=4, size=None, transform=None)},
        steps=1,
        accumulate=accumulate,
    )
    ids = {"rows": ["a", "b", "c", "d"]}
    assert first_fault(stage, {"net": net}, {"rows": {"x": x}}, {"step": 0}, jax.random.key(1), ids) == expected
    if expected["where"] == "input":  # Kept features take the place of images.
        kept = {"rows": {"x": Encoded({"layer1": x}, (), (8, 8))}}
        assert first_fault(stage, {"net": net}, kept, {"step": 0}, jax.random.key(1), ids) == expected
