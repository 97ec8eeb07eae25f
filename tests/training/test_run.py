"""The runner: what is skipped, refused, done again, taken over, and what stops a run."""

import dataclasses
import functools
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from scarce_jax import mesh as mesh_lib
from scarce_jax import runs
from scarce_jax.data.builders import load_info
from scarce_jax.dry_run import dry_run
from scarce_jax.errors import InputError
from scarce_jax.methods import supervised
from scarce_jax.models.fcn import FCNConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.tiny import TinyConfig
from scarce_jax.optim import Optimizer, Schedule
from scarce_jax.recipe import NetState
from scarce_jax.training import run as runner
from scarce_jax.training.checkpoint import load_net
from scarce_jax.training.loop import Best
from tests import tiny

CONFIG = tiny.detailer_config(compare=True, steps=3, eval_every=2)

train = functools.partial(runs.train, mesh=tiny.mesh())


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_data):
    """A finished run of the detailer with all that it is compared with."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(CONFIG, folder, data_dir=tiny_data)
    return folder


@pytest.fixture
def copy(tmp_path, finished):
    """A copy of it, to change."""
    return shutil.copytree(finished, tmp_path / "copy")


def done_at(run: pathlib.Path) -> dict[str, int]:
    """When each stage was finished."""
    return {path.parent.name: path.stat().st_mtime_ns for path in run.glob("*/DONE")}


def lines(run: pathlib.Path, stage: str) -> list[str]:
    return [x for x in (run / "metrics.jsonl").read_text().splitlines() if json.loads(x)["stage"] == stage]


def summary(run: pathlib.Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def same_nets(one: pathlib.Path, other: pathlib.Path, stage: str) -> bool:
    a, b = ({k: v for k, v in tiny.stored(run).items() if k.startswith(f"{stage}/")} for run in (one, other))
    assert a and a.keys() == b.keys()
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_equal_stages_are_skipped_whatever_the_runtime(copy, tiny_data):
    before, metrics, results = done_at(copy), (copy / "metrics.jsonl").read_bytes(), summary(copy)["results"]
    assert before.keys() == {"detailer", "classifier", "detail"}
    runtime = tiny.Runtime(checkpoint_every=1, log_every=7, workers=0, resident=False)
    result = train(dataclasses.replace(CONFIG, runtime=runtime), copy, data_dir=tiny_data)
    assert done_at(copy) == before and (copy / "metrics.jsonl").read_bytes() == metrics
    assert result["results"] == results


def test_a_changed_setting_is_refused_with_the_difference(copy, tiny_data):
    files = sorted((p, p.stat().st_mtime_ns) for p in copy.rglob("*"))
    changed = tiny.replaced(CONFIG, "classifier", steps=4, net=TinyConfig(width=4, dropout=0.2))
    with pytest.raises(InputError) as caught:
        train(changed, copy, data_dir=tiny_data)
    message = str(caught.value)
    for part in (
        f"{copy}: stage classifier was begun with other settings",
        "  steps: 3 -> 4",
        "nets.segmenter.module.dropout: 0.1 -> 0.2",
        "choose another --workdir",
        "--redo classifier",
    ):
        assert part in message
    with pytest.raises(InputError, match="stage detailer.*\n(.*\n)*  seed: 0 -> 1"):
        train(dataclasses.replace(CONFIG, seed=1), copy, data_dir=tiny_data)
    assert sorted((p, p.stat().st_mtime_ns) for p in copy.rglob("*")) == files


def test_a_net_that_differs_from_what_it_starts_from_is_refused_before_anything_runs(tmp_path, tiny_data):
    config = tiny.replaced(tiny.auxiliary_config(), "semi", start="segmenter", net=TinyConfig(width=8))
    message = (
        r"semi: net segmenter starts from segmenter/segmenter, but \d+ arrays differ: .* is \(.*\) in semi and \(.*\) "
        r"in segmenter; give both stages the same net"
    )
    with pytest.raises(InputError, match=message):
        train(config, tmp_path / "run", data_dir=tiny_data)
    assert not (tmp_path / "run" / "segmenter").exists()
    with pytest.raises(InputError, match=message):
        dry_run(config, tiny_data)


@pytest.mark.parametrize("name", ["geometry", "normalisation"])
def test_a_backbone_that_differs_in_what_parameters_do_not_show_is_refused(tmp_path, tiny_data, name):
    net = FCNConfig(backbone=ResNetConfig(depth=18, width=4), layers=0)
    other = dataclasses.replace(net, backbone=dataclasses.replace(net.backbone, **{name: "caffe"}))
    config = tiny.replaced(tiny.auxiliary_config(), "segmenter", net=other)
    config = tiny.replaced(config, "semi", start="segmenter", net=net)
    with pytest.raises(InputError, match=rf"semi: net segmenter .*; set --semi\.net\.backbone\.{name} caffe"):
        train(config, tmp_path / "run", data_dir=tiny_data)
    assert not (tmp_path / "run" / "segmenter").exists()


def test_a_layer_decay_that_the_net_cannot_have_is_refused_before_anything_runs(tmp_path, tiny_data):
    config = tiny.auxiliary_config()
    config = tiny.replaced(config, "semi", optim=dataclasses.replace(config.semi.optim, layer_decay=0.5))
    with pytest.raises(InputError, match=r"stage semi, net segmenter: optim\.layer_decay is 0\.5; expected None"):
        train(config, tmp_path / "run", data_dir=tiny_data)
    assert not (tmp_path / "run" / "segmenter").exists()


def test_redo_does_a_stage_again_and_all_that_read_from_it(copy, finished, tiny_data):
    before = done_at(copy)
    with pytest.raises(InputError, match="--redo clasifier: no such stage; .*detailer, classifier, detail"):
        train(CONFIG, copy, data_dir=tiny_data, redo="clasifier")
    changed = tiny.replaced(CONFIG, "detailer", steps=2)
    with pytest.raises(InputError, match="stage detailer was begun with other settings"):
        train(changed, copy, data_dir=tiny_data, redo="classifier")
    # Refused before anything is deleted.
    assert done_at(copy) == before
    result = train(changed, copy, data_dir=tiny_data, redo="detailer")
    after = done_at(copy)
    assert after["classifier"] == before["classifier"]
    assert after["detailer"] > before["detailer"] and after["detail"] > before["detail"]
    assert not same_nets(copy, finished, "detailer") and same_nets(copy, finished, "classifier")
    assert [json.loads(x)["step"] for x in lines(copy, "detailer")] == [1, 2, 2]
    assert lines(copy, "classifier") == lines(finished, "classifier")
    old = summary(finished)["results"]
    assert result["results"]["classifier"] == old["classifier"]
    assert result["results"]["detailer"]["fingerprint"] != old["detailer"]["fingerprint"]


def test_reuse_takes_over_equal_stages_by_hard_links(copy, tmp_path, tiny_data):
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "detailer", "st')  # A kill cut this line.
    run = tmp_path / "new"
    result = train(tiny.replaced(CONFIG, "classifier", steps=2), run, data_dir=tiny_data, reuse=copy)
    linked = [p for stage in ("detailer", "detail") for p in (copy / stage).rglob("*") if p.is_file()]
    assert len(linked) > 5
    assert all((run / p.relative_to(copy)).stat().st_ino == p.stat().st_ino for p in linked)
    assert not (run / "classifier/DONE").samefile(copy / "classifier/DONE")
    assert lines(run, "detailer") == [
        x for x in (copy / "metrics.jsonl").read_text().splitlines() if '"detailer", "step' in x
    ]
    assert len(lines(run, "classifier")) == 2 + 1
    old = summary(copy)["results"]
    assert {k: v for k, v in result["results"].items() if "class" not in k} == {
        k: v for k, v in old.items() if "class" not in k
    }
    assert [s["name"] for s in result["stages"]] == ["detailer", "classifier", "detail"]
    with pytest.raises(InputError, match="not a run folder"):
        train(CONFIG, tmp_path / "x", data_dir=tiny_data, reuse=tmp_path)
    # What is linked is not changed by doing it again elsewhere.
    contents = {p: p.read_bytes() for p in linked}
    train(tiny.replaced(CONFIG, "classifier", steps=2), run, data_dir=tiny_data, redo="detail")
    assert all(p.read_bytes() == content for p, content in contents.items())


def test_a_stage_that_is_deleted_while_it_is_reused_is_named(copy, tmp_path, tiny_data, monkeypatch):
    def copytree(source, target, **options):
        target.mkdir()
        (source / "DONE").unlink()
        raise FileNotFoundError(source)

    monkeypatch.setattr(shutil, "copytree", copytree)
    with pytest.raises(InputError, match=f"--reuse {copy}: stage detailer was deleted while it was copied"):
        train(CONFIG, tmp_path / "run", data_dir=tiny_data, reuse=copy)
    assert not (tmp_path / "run").exists()


def test_without_the_comparison_the_main_results_have_the_same_bits(finished, tmp_path, tiny_data):
    run = tmp_path / "alone"
    result = train(dataclasses.replace(CONFIG, compare=False), run, data_dir=tiny_data)
    assert [s["name"] for s in result["stages"]] == ["detailer", "detail"]
    assert same_nets(run, finished, "detailer")
    assert result["results"] == {name: summary(finished)["results"][name] for name in result["results"]}
    for name in ("detailer", "detail"):
        one, other = (json.loads((r / name / "DONE").read_text())["fingerprint"] for r in (run, finished))
        assert one == other


def test_evaluate_gives_the_summary_again_on_any_number_of_devices(finished, tiny_data):
    # The training data is not needed: only what the result measures.
    figures = runs.evaluate(finished, "detailer_composite", data_dir=tiny_data, mesh=tiny.mesh(8))
    known = summary(finished)["results"]["detailer_composite"]
    assert figures["devices"] == 8 and figures["images"] == 7
    for name in ("miou", "mean_accuracy", "pixel_accuracy", "per_class", "miou_at_size"):
        assert figures[name] == known[name]
    with pytest.raises(InputError, match="result 'students': this run has detailer, coarse"):
        runs.evaluate(finished, "students", data_dir=tiny_data)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, tiny_data):
    config = tiny.supervised_config(steps=9, optim=dataclasses.replace(tiny.stage()["optim"], lr=1e9))
    with pytest.raises(InputError, match=r"stage segmenter: .*loss.* at step \d is not finite .*lower the learning"):
        train(config, tmp_path / "run", data_dir=tiny_data)
    assert not (tmp_path / "run/segmenter/DONE").exists()
    logged = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(x["segmenter/loss"]) for x in logged)


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(tmp_path, tiny_data):
    for batch, advice in ((12, "8 or 16"), (6, "8")):
        with pytest.raises(InputError, match=f"{batch} examples do not divide over 8 devices; set it to {advice}$"):
            train(tiny.supervised_config(batch=batch), tmp_path / "run", data_dir=tiny_data, mesh=tiny.mesh(8))
    assert not (tmp_path / "run").exists()


def test_the_best_measurement_decides_where_asked(tmp_path, tiny_data):
    # After step 4 the rate is so high that what was learnt is lost.
    steep = Optimizer(kind="adam", lr=0.03, schedule=Schedule(kind="step", boundaries=(4,), factor=100.0))
    config = tiny.supervised_config(steps=8, eval_every=2, keep_best="miou", optim=steep)
    figures = train(config, tmp_path, data_dir=tiny_data)["results"]["segmenter"]
    logged = [json.loads(line) for line in lines(tmp_path, "segmenter")]
    measured = {x["step"]: x["miou"] for x in logged if x["kind"] == "eval"}
    best = max(measured, key=measured.get)
    assert list(measured) == [2, 4, 6, 8] and measured[best] > measured[8]
    done = json.loads((tmp_path / "segmenter/DONE").read_text())
    assert done["kept_step"] == best and done["steps"] == 8
    # The result is measured with the nets that are stored.
    assert figures["miou"] == measured[best]
    assert not (tmp_path / "segmenter/best").exists()


def test_nets_are_kept_where_they_are_better_than_all_before(tmp_path):
    best = Best(tmp_path)
    for step, metric in ((2, 0.2), (4, None), (6, 0.6), (8, 0.5)):
        params = {"kernel": jax.device_put(np.full(3, step, np.float32), mesh_lib.replicated(tiny.mesh()))}
        best.consider(metric, step, {"segmenter": NetState(params=params, batch_stats={})})
    assert best.step == 6 and {path.name for path in tmp_path.iterdir()} == {"6", "best.json"}
    like = NetState(params={"kernel": jax.ShapeDtypeStruct((3,), np.float32)}, batch_stats={})
    net = load_net(tmp_path / "6/segmenter", like, tiny.mesh())
    np.testing.assert_array_equal(net.params["kernel"], np.full(3, 6))


def test_how_often_a_stage_is_measured_is_no_other_setting(copy, tiny_data):
    before = done_at(copy)
    train(tiny.detailer_config(compare=True, steps=3, eval_every=0), copy, data_dir=tiny_data)
    assert done_at(copy) == before


def exhausted(*args):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12345 bytes.")


def test_out_of_memory_says_what_to_lower(tmp_path, tiny_data):
    config, info = tiny.supervised_config(), load_info("scenes", tiny_data)
    recipe = supervised.recipe(config, info)
    turns = tuple(dataclasses.replace(turn, loss=exhausted) for turn in recipe.stages[0].turns)
    recipe = dataclasses.replace(recipe, stages=(dataclasses.replace(recipe.stages[0], turns=turns),))
    expected = "stage segmenter: out of device memory with batch 8 at 32 x 32; lower the batch, the crop"
    with pytest.raises(InputError, match=expected):
        runner.run(
            recipe,
            info,
            run_dir=tmp_path / "run",
            data_dir=str(tiny_data),
            header={"method": "supervised"},
            seed=0,
            budget=config.budget,
            train_split="train",
            runtime=config.runtime,
            mesh=tiny.mesh(),
        )
    assert not (tmp_path / "run" / "segmenter" / "DONE").exists()
