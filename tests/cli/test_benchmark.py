"""`benchmark` and `train --dry-run --compile`: what they record, and that synthetic rows are like real ones."""

import dataclasses
import logging
import pathlib
import time
import types

import jax
import numpy as np
import pytest

from scarce_jax import mesh as mesh_lib
from scarce_jax import methods
from scarce_jax.benchmark import benchmark, roofline
from scarce_jax.benchmark import training as training_benchmark
from scarce_jax.benchmark.timing import loader_rate, pace, rates
from scarce_jax.benchmark.training import CompiledStep, loader_share, time_real_images, train_input
from scarce_jax.data.budget import Manifest
from scarce_jax.data.datasets import SCENES
from scarce_jax.dry_run import count_parameters
from scarce_jax.errors import InputError
from scarce_jax.models.tiny import TinyNet
from scarce_jax.optim import Group, Optimizer
from scarce_jax.recipe import Artifact, Mean, Net
from scarce_jax.synthetic import SyntheticRows, abstract_consts, inferred
from scarce_jax.training.inputs import Inputs
from scarce_jax.training.session import Session
from tests import tiny
from tests.cli.conftest import CONFIGS, shrunk

DEVICES = jax.device_count()


def session(config, data):
    recipe = methods.by_name(methods.name_of(config)).recipe(config, SCENES)
    mesh = mesh_lib.make_mesh()
    return Session(recipe, SCENES.classes, pathlib.Path("nowhere"), str(data), mesh, config.runtime)


def words(config, *stages):
    return ["benchmark", CONFIGS / config, *shrunk(*stages), "--budget.fine", 8, "--steps", 2, "--json"]


@pytest.mark.parametrize("size", [(32, 32), (40, 48)])
def test_real_images_go_through_the_program_of_the_random_ones(tiny_data, size):
    config = tiny.replaced(tiny.supervised_config(), "segmenter", size=size)
    opened = session(config, tiny_data)
    (stage,) = opened.recipe.stages
    inputs = train_input(
        opened, stage, "labelled", SyntheticRows(stage.sources["labelled"], opened.recipe, SCENES, 9), True
    )
    step = CompiledStep(opened, SCENES, stage)
    step.time({"labelled": inputs}, 1)
    program, work = step.program, step.work
    time_real_images(opened, SCENES, stage, step, 1, config.budget, "train")
    assert step.program is program and step.work is work


def test_the_record_of_a_training_step(tiny_data, command):
    done = command(*words("supervised_scenes.py", "segmenter"), "--data-dir", tiny_data)
    assert done.status == 0, done.err
    record = done.json
    assert (record["config"], record["stage"], record["dtype"]) == ("supervised_scenes", "segmenter", "float32")
    assert (record["device"], record["devices"]) == ("cpu", DEVICES) and record["versions"]["jax"] == jax.__version__
    assert record["global_batch"] == {"labelled": 8} and record["crop"] == {"labelled": [32, 32]}
    for line in (record, record["real"]):
        assert line["steps"] == 2 and line["loss_is_finite"] and 0 < line["median_step_ms"] <= line["p90_step_ms"]
        assert line["images_per_second"] == pytest.approx(DEVICES * line["images_per_second_per_device"], rel=1e-3)
        assert 0 <= line["data_wait"] <= 1
    # Rounded to milliseconds, in which a program that was compiled before is there.
    assert record["lower_seconds"] >= 0 and record["compile_seconds"] >= 0 and record["peak_bytes"] > 0
    seconds = 8 / record["images_per_second"]
    assert record["flops_per_second"] == pytest.approx(record["flops"] / seconds) and record["flops"] > 0
    assert record["share_of_peak"] is None and record["real"]["loader_images_per_second"] > 0
    assert "random images" in done.out and "the dataset's images" in done.out


def test_the_record_of_predictions(command, tmp_path):
    argv = [*words("detailer_scenes.py", "detailer", "classifier"), "--data-dir", tmp_path, "--mode", "infer"]
    done = command(*argv, "--native", 40, 50, "--batch", 2)
    assert done.status == 0, done.err
    record = done.json
    assert (record["stage"], record["result"], record["native_size"]) == ("detailer", "detailer", [40, 50])
    assert record["global_batch"] == 2 * DEVICES and record["latency"]["median_step_ms"] > 0
    assert record["images_per_second"] > 0 and record["flops"] > 0 and record["first_call_seconds"] > 0
    assert f"batch {2 * DEVICES}" in done.out


@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_a_slow_loader_is_named(monkeypatch, caplog, ratio):
    monkeypatch.setattr(logging.getLogger("scarce_jax"), "propagate", True)
    share = loader_share(80 * ratio, 80.0, workers=2)
    assert share == {"loader_images_per_second": 80 * ratio, "loader_to_step": ratio}
    assert (f"the loader gives {80 * ratio} images/s" in caplog.text) == (ratio < 1.3)


def test_a_stage_that_reads_what_only_a_run_has_is_timed_on_random_images_alone(tiny_data, tmp_path):
    config = tiny.detailer_config(compare=True, student=True)
    for data_dir, reason in (
        (tiny_data, "reads detail/mask, which only a run has"),
        (tmp_path, "dataset scenes is not prepared"),
    ):
        record = benchmark(config, stage="student_detailed", steps=1, data_dir=data_dir)
        assert (record["real"], record["real_missing"]) == (None, reason) and record["images_per_second"] > 0


WRONG = {
    "stage": (["--stage", "detail"], ["stage 'detail'", "detailer, classifier"]),
    "batch": (["--batch", 12], ["detailer.batch: 12", f"{DEVICES} devices"]),
    "steps": (["--steps", 0], ["--steps 0: expected a whole number from 1"]),
    "images per step": (["--batch", 10**9], ["--batch 1000000000: expected a whole number from 1 to 65,536"]),
    "no training": (["--results", "coarse"], ["trains no net", "choose other --results"]),
    "native": (["--mode", "infer", "--native", 0, 5], ["--native 0 5: expected 2 values"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused(name, refused, tmp_path):
    flags, holds = WRONG[name]
    argv = [*words("detailer_scenes.py", "detailer", "classifier"), "--compare", "--data-dir", tmp_path]
    refused(*argv, *flags, holds=holds)


def test_a_dry_run_that_compiles_names_the_backend_and_the_memory(command):
    argv = ["train", CONFIGS / "detailer_scenes.py", *shrunk("detailer", "classifier"), "--budget.fine", 8, "--dry-run"]
    plain, found = command(*argv, "--json").json, command(*argv, "--compile", "--json")
    assert found.json["backend"] == "cpu" and found.json["devices"] == ["cpu"] * DEVICES
    memory = {stage["name"]: stage.pop("peak_bytes") for stage in found.json["stages"]}
    # The resident images alone: image, label and coarse mask of eight examples.
    assert memory["detailer"] > 8 * 32 * 32 * 5 and memory["detail"] > 0
    streamed = command(*argv, "--compile", "--json", "--runtime.resident", False).json["stages"]
    streamed = {stage["name"]: stage["peak_bytes"] for stage in streamed}
    rows = 8 * (32 * 32 * 5 + 2 * 4)
    assert memory["detailer"] - streamed["detailer"] == rows and memory["detail"] == streamed["detail"]
    assert "backend" not in plain and all(stage["peak_bytes"] is None for stage in plain["stages"])
    assert "MiB (cpu)" in command(*argv, "--compile").out


def test_compile_without_a_dry_run_is_refused(refused):
    refused("train", CONFIGS / "detailer_scenes.py", "--compile", holds=["--compile", "--dry-run"])


@pytest.fixture(scope="module")
def recipe():
    config = tiny.detailer_config(compare=True, student=True)
    return methods.by_name("detailer").recipe(config, SCENES)


@pytest.mark.parametrize("stage", ["detailer", "student_coarse"])
def test_synthetic_rows_are_like_the_real_ones(recipe, tiny_data, stage):
    ids = tuple(f"train_{k:04d}" for k in range(12))
    roles = {"fine": ids[:5], "unlabelled": ids[5:]}
    manifest = Manifest(dataset="scenes", version="1.0.0", split="train", roles=roles)
    (source,) = recipe.stage(stage).sources.values()
    source = dataclasses.replace(source, fields=(*source.fields, "tags"))
    real = Inputs(str(tiny_data), pathlib.Path("nowhere"), manifest, recipe).open(source)
    made = SyntheticRows(source, recipe, SCENES, len(real))
    assert (len(made), made.canvas) == (len(real), real.canvas)
    one, other = made[0], real[0]
    assert {k: (v.shape, v.dtype) for k, v in one.items()} == {k: (v.shape, v.dtype) for k, v in other.items()}
    assert {k: (v.shape, v.dtype) for k, v in made.spec.items()} == {k: (v.shape, v.dtype) for k, v in one.items()}
    assert set(np.unique(one["label"])) <= {*range(len(SCENES.classes)), 255} and one["height"] == other["height"]
    assert made.tags.any(axis=1).all()


def test_shapes_of_what_an_earlier_stage_infers_are_found_without_running_it(recipe):
    mask = inferred(recipe, SCENES, Artifact(stage="detail", name="mask"))
    assert (mask.shape, mask.dtype) == ((32, 32), np.uint8)
    detail = dataclasses.replace(recipe.stage("detail"), write=Mean())
    changed = dataclasses.replace(recipe, stages=tuple(detail if s.name == "detail" else s for s in recipe.stages))
    student = dataclasses.replace(
        recipe.stage("student_coarse"), consts={"mean": Artifact(stage="detail", name="mask"), "k": 2}
    )
    found = abstract_consts(student, changed, SCENES)
    assert found["mean"].dtype == np.float32 and found["k"].shape == ()
    detail = dataclasses.replace(detail, finish=lambda name, arrays: arrays)
    with pytest.raises(InputError, match="made on the host"):
        inferred(dataclasses.replace(recipe, stages=(detail,)), SCENES, Artifact(stage="detail", name="mask"))


def test_pace_leaves_out_the_first_steps_and_waits_for_each():
    calls = []

    def step():
        calls.append(time.sleep(0.2 if len(calls) < 3 else 0.01))
        return np.zeros(())

    found = pace(step, 5)
    assert len(found) == 5 and len(calls) == 9 and min(found) >= 0.01 and np.median(found) < 0.1
    line = rates([0.1, 0.1, 0.4], 4, 2)
    assert (line["steps"], line["median_step_ms"], line["images_per_second"]) == (3, 100.0, 20.0)
    assert line["p90_step_ms"] == pytest.approx(340) and line["images_per_second_per_device"] == 10.0


def test_the_loader_is_timed_without_what_was_read_ahead():
    def batches():
        for k in range(9):
            time.sleep(0.2 if k < 4 else 0.01)
            yield np.zeros(())

    assert 20 < loader_rate([batches()], 5) <= 100


def programs(lowered, compiled):
    memory = {"argument": 100, "output": 60, "alias": 50, "temp": 30, "generated_code": 5}
    stats = types.SimpleNamespace(**{f"{name}_size_in_bytes": value for name, value in memory.items()})
    return (
        types.SimpleNamespace(cost_analysis=lambda: {"flops": lowered}),
        types.SimpleNamespace(
            cost_analysis=lambda: {"flops": compiled, "bytes accessed": 6e9}, memory_analysis=lambda: stats
        ),
    )


def test_operations_hidden_in_library_calls_are_counted_before_compilation():
    done = roofline.work(*programs(4e12, 1.9e12), devices=2)
    assert (done["flops"], done["flops_from"], done["peak_bytes"]) == (1.9e12, "compiled", 145)
    done = roofline.work(*programs(4e12, 1e9), devices=2)
    assert (done["flops"], done["flops_from"]) == (2e12, "lowered")


def test_shares_of_a_known_device_and_of_an_unknown_one():
    done = {"flops": 98.94e12, "bytes": 670e9}
    found = roofline.reached(done, 1.0, types.SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3"), "bfloat16")
    assert found["share_of_peak"] == pytest.approx(0.1) and found["share_of_bandwidth"] == pytest.approx(0.2)
    found = roofline.reached(
        done, 2.0, types.SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3 MIG 1g.10gb"), "float32"
    )
    assert found["flops_per_second"] == 49.47e12 and found["share_of_peak"] is found["share_of_bandwidth"] is None


def test_running_out_of_memory_is_one_message(monkeypatch, tmp_path):
    def fail_with(message):
        def fail(*_):
            raise jax.errors.JaxRuntimeError(message)

        monkeypatch.setattr(training_benchmark, "pace", fail)
        benchmark(tiny.supervised_config(), batch=64, steps=1, data_dir=tmp_path)

    with pytest.raises(InputError, match="out of device memory with batch 64 at 32 x 32; lower --batch$"):
        fail_with("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        fail_with("INTERNAL: something else")


def test_what_no_optimizer_moves_is_not_trainable():
    inputs = (jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32),)
    net = Net(module=TinyNet(classes=3), inputs=inputs, optim=Optimizer(lr=0.1))
    total, trainable = count_parameters(net)
    assert total == trainable > 0
    kernel = 3 * 3 * 3 * 8
    groups = (Group(pattern="^conv/", lr=0.0), Group())
    partly = dataclasses.replace(net, optim=Optimizer(lr=0.1, groups=groups))
    assert count_parameters(partly) == (total, total - kernel)
    assert count_parameters(dataclasses.replace(net, optim=None)) == (total, 0)
