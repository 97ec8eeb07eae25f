"""Nets that start from another run's net or from a file of weights."""

import dataclasses
import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from scarce_jax import config_files, runs
from scarce_jax import mesh as mesh_lib
from scarce_jax.data.builders import load_info
from scarce_jax.dry_run import dry_run
from scarce_jax.errors import InputError
from scarce_jax.methods import supervised
from scarce_jax.models import weights
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.tiny import TinyConfig
from scarce_jax.optim import Group, Optimizer
from scarce_jax.recipe import Artifact, FromRun, Net, Pretrained, parse_origin
from scarce_jax.training import state as state_lib
from scarce_jax.training.origins import content, take
from scarce_jax.training.run import run
from tests import tiny, torch_files

STILL = Optimizer(lr=1.0, groups=(Group(lr=0.0),))
"""Leaves parameters at their initial values."""


ONE = mesh_lib.make_mesh(jax.devices()[:1])


def train(config, run, data_dir, **options):
    """Runs the config on one device."""
    return runs.train(config, run, data_dir=data_dir, mesh=ONE, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_data):
    """A finished run whose net others start from."""
    run = tmp_path_factory.mktemp("source") / "run"
    train(tiny.supervised_config(steps=2), run, tiny_data)
    return run


@pytest.fixture
def other(tmp_path, finished):
    """A copy of it, to change."""
    return shutil.copytree(finished, tmp_path / "other")


def still(origin, **changes):
    return tiny.supervised_config(steps=1, optim=STILL, init_from=origin, **changes)


def done(run, stage="segmenter"):
    return json.loads((run / stage / "DONE").read_text())


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("runs/a-1:segmenter/segmenter", FromRun(run="runs/a-1", stage="segmenter", net="segmenter")),
        ("/x:y/run:pnet/d#^backbone/", FromRun(run="/x:y/run", stage="pnet", net="d", pattern="^backbone/")),
        ("weights/resnet50.safetensors", Pretrained(source="weights/resnet50.safetensors")),
        ("a:b/resnet50.pth", Pretrained(source="a:b/resnet50.pth")),
        ("hf:timm/resnet50.tv_in1k", Pretrained(source="hf:timm/resnet50.tv_in1k")),
    ],
)
def test_origins_are_read_and_written_alike(text, origin):
    assert parse_origin(text) == origin and str(origin) == text


@pytest.mark.parametrize("text", ["resnet50", "runs/a", "runs/a:segmenter", "w.npz", "hf:resnet50", "hf:timm/a/b c"])
def test_an_origin_of_no_known_form_is_refused(text):
    with pytest.raises(InputError, match="expected RUN:STAGE/NET, RUN:STAGE/NET#PATTERN, a file ending in"):
        parse_origin(text)


def test_a_pattern_must_be_a_regular_expression():
    with pytest.raises(InputError, match=r"'\(' is no regular expression"):
        parse_origin("a:b/c#(")


IMAGE, MASK = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((1, 32, 32), jnp.uint8)


def net_from(origin, *inputs):
    return Net(module=TinyConfig(width=4).build(12), inputs=inputs, optim=STILL, init_from=parse_origin(origin))


def test_what_fits_of_another_net_is_taken_and_the_rest_is_drawn(finished):
    origin = f"{finished}:segmenter/segmenter"
    net = net_from(origin, IMAGE, MASK)
    taken = take(net.init_from, state_lib.abstract_net(net), ONE)
    # The first convolution also reads the coarse mask here.
    assert str(taken) == f"8 arrays of {origin}; at initial values: conv; not used: conv"
    stored = tiny.stored(finished)
    assert len(taken.values) == 8
    for name, value in taken.values.items():
        np.testing.assert_array_equal(value, stored[f"segmenter/segmenter/{name}"])


def test_batch_statistics_come_along_on_any_number_of_devices(finished):
    net = net_from(f"{finished}:segmenter/segmenter#bn", IMAGE)
    mesh = mesh_lib.make_mesh(jax.devices())
    taken = take(net.init_from, state_lib.abstract_net(net), mesh)
    names = {"params/bn/scale", "params/bn/bias", "batch_stats/bn/mean", "batch_stats/bn/var"}
    assert set(taken.values) == names
    drawn, state = (
        state_lib.init_state({"segmenter": net}, 1, 0, "s", {}, mesh, outside).nets["segmenter"].variables
        for outside in ({}, {"segmenter": taken})
    )
    stored, drawn = tiny.stored(finished), traverse_util.flatten_dict(drawn, sep="/")
    for name, value in traverse_util.flatten_dict(state, sep="/").items():
        assert value.sharding.is_fully_replicated and len(value.sharding.device_set) == 8
        expected = stored[f"segmenter/segmenter/{name}"] if name in names else drawn[name]
        np.testing.assert_array_equal(value, expected)
        assert name not in names or not np.array_equal(value, drawn[name])


def test_every_training_stage_has_it():
    origins = {"detailer": "a:b/c", "classifier": "w.pth", "student": "hf:d/e"}
    config = tiny.detailer_config(compare=True, student=True)
    for stage, origin in origins.items():
        config = tiny.replaced(config, stage, init_from=origin)
    assert config_files.from_json("detailer", json.loads(json.dumps(config_files.to_json(config)))) == config
    origins = {s["name"]: s["nets"]["segmenter"]["init_from"] for s in dry_run(config)["stages"]}
    assert origins == {
        "detailer": "a:b/c",
        "classifier": "w.pth",
        "detail": "detailer/segmenter",
        "student_detailed": "hf:d/e",
        "student_coarse": "hf:d/e",
    }


def test_a_dry_run_tells_what_it_cannot_find_here(caplog, tmp_path):
    weights, run = tmp_path / "r50.safetensors", f"{tmp_path}/run"
    missing = [str(weights), f"{run}:segmenter/segmenter"]
    for origin, path in zip(missing, (weights, run), strict=True):
        dry_run(tiny.replaced(tiny.supervised_config(), "segmenter", init_from=origin))
        assert caplog.messages == [f"init_from {origin}: {path} is not on this machine; `train` needs it"]
        caplog.clear()
    weights.touch()
    for origin in (missing[0], "hf:timm/resnet50.tv_in1k"):
        dry_run(tiny.replaced(tiny.supervised_config(), "segmenter", init_from=origin))
    assert not caplog.messages


def test_all_that_a_pattern_finds_must_fit(finished, tmp_path, tiny_data):
    config = tiny.replaced(
        tiny.detailer_config(steps=1), "detailer", init_from=f"{finished}:segmenter/segmenter#^conv|bn"
    )
    with pytest.raises(InputError) as caught:
        train(config, tmp_path / "run", tiny_data)
    assert "1 of 5 arrays do not fit: params/conv/kernel is [3, 3, 3, 8], expected [3, 3, 15, 8]" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_what_is_missing_is_named_before_anything_is_trained(other, tmp_path, tiny_data):
    for origin, message in (
        (f"{tmp_path}/none:segmenter/segmenter", "none is not a run folder"),
        (f"{other}:detailer/segmenter", "has no finished stage 'detailer'; finished: segmenter"),
        (f"{other}:segmenter/pnet", "no net 'pnet'; the stage left segmenter"),
        (
            f"{other}:segmenter/segmenter#bakbone",
            "no array of the net matches the pattern 'bakbone'; expected a part of",
        ),
        (f"{tmp_path}/none.safetensors", "none.safetensors: no such file"),
    ):
        with pytest.raises(InputError, match=message):
            train(still(origin), tmp_path / "run", tiny_data)
    for path in (other / "segmenter" / "nets" / "segmenter").rglob("*"):
        if path.is_file() and path.stat().st_size > 500 and "metadata" not in path.name:
            path.write_bytes(bytes(x ^ 1 for x in path.read_bytes()))
    with pytest.raises(InputError, match="init_from .*; train it again, or choose another net"):
        train(still(f"{other}:segmenter/segmenter"), tmp_path / "run", tiny_data)
    assert not (tmp_path / "run").exists()


def test_content_counts_and_its_place_does_not(other, tmp_path, tiny_data, caplog):
    run, moved = tmp_path / "run", tmp_path / "moved"
    config = still(f"{other}:segmenter/segmenter")
    with caplog.at_level(logging.INFO, "scarce_jax"):
        train(config, run, tiny_data)
    assert f"segmenter: segmenter starts from 9 arrays of {other}:segmenter/segmenter; at initial" in caplog.text
    facts = done(run)["init_from"]["segmenter"]
    assert facts["source"] == config.segmenter.init_from and facts["arrays"] == 9 and facts["drawn"] == []
    before, after = tiny.stored(other), tiny.stored(run)
    assert all(np.array_equal(before[name], after[name]) for name in before if "/params/" in name)
    first = (run / "segmenter" / "DONE").stat().st_mtime_ns
    shutil.move(other, moved)
    # A finished stage does not need it any more, but a name that was never looked at is not believed.
    train(config, run, tiny_data)
    with pytest.raises(InputError, match="elsewhere is not a run folder"):
        train(still(f"{tmp_path}/elsewhere:segmenter/segmenter"), run, tiny_data)
    with pytest.raises(InputError, match="other is not a run folder"):
        train(config, run, tiny_data, redo="segmenter")
    train(still(f"{moved}:segmenter/segmenter"), run, tiny_data)
    assert (run / "segmenter" / "DONE").stat().st_mtime_ns == first
    # Its parameters are the same, its batch statistics are not.
    shutil.copytree(run, other)
    with pytest.raises(InputError, match=r"stage segmenter was begun .*\n  nets.segmenter.init_from.net: "):
        train(config, run, tiny_data)


RESNET = PSPNetConfig(backbone=ResNetConfig(depth=18, width=4))


@pytest.fixture
def trunk(tmp_path):
    """Tensors of torchvision's names for the trunk of a narrow PSPNet, and a file of them."""
    rng = np.random.default_rng(0)
    net = RESNET.build(12)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
    leaves = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    tensors = {"fc.weight": np.zeros((3, 32), np.float32)}
    for path, shape in weights.flat_shapes(shapes).items():
        _, part, *owner, leaf = path.split("/")
        if part == "backbone":
            key = ".".join([*owner, leaves[leaf]]).replace("_block", ".").replace("downsample_conv", "downsample.0")
            value = rng.uniform(0.5, 1, shape).astype(np.float32)
            value = value.transpose(3, 2, 0, 1) if len(shape) == 4 else value
            tensors[key.replace("downsample_bn", "downsample.1")] = value
    return tensors, torch_files.save(tmp_path / "r18.safetensors", tensors)


def test_a_file_of_weights_fills_the_trunk(trunk, tmp_path, tiny_data):
    tensors, path = trunk
    net = Net(module=RESNET.build(12), inputs=(IMAGE,), optim=STILL, init_from=Pretrained(source=str(path)))
    taken = take(net.init_from, state_lib.abstract_net(net), ONE)
    assert str(taken).startswith(f"{len(tensors) - 1} arrays of {path}; at initial values: aux_")
    assert "backbone" not in str(taken) and str(taken).endswith("; not used: fc.weight")
    state = state_lib.init_state({"segmenter": net}, 1, 0, "s", {}, ONE, {"segmenter": taken})
    variables = state.nets["segmenter"].variables
    kernel = variables["params"]["backbone"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel, tensors["conv1.weight"].transpose(2, 3, 1, 0))
    variance = variables["batch_stats"]["backbone"]["layer4_block0"]["downsample_bn"]["var"]
    np.testing.assert_array_equal(variance, tensors["layer4.0.downsample.1.running_var"])
    moved = Pretrained(source=str(path.rename(tmp_path / "moved.safetensors")))
    assert content(moved) == taken.facts["content"]
    tensors["conv1.weight"][0, 0, 0, 0] += 1
    assert content(Pretrained(source=str(torch_files.save(path, tensors)))) != content(moved)
    wide = still(str(path), net=PSPNetConfig(backbone=ResNetConfig(depth=18, width=8)))
    with pytest.raises(InputError, match="width 4, and the net is a ResNet of width 8; set --segmenter.*width 4"):
        train(wide, tmp_path / "wide", tiny_data)
    assert not (tmp_path / "wide").exists()


def test_a_frozen_net_may_come_from_outside_and_is_stored_with_the_run(finished, tmp_path, tiny_data):
    config = tiny.supervised_config(steps=1)
    info = load_info("scenes", tiny_data)
    recipe = supervised.recipe(config, info)
    (stage,), result = recipe.stages, recipe.results["segmenter"]
    origin = FromRun(run=str(finished), stage="segmenter", net="segmenter")
    teacher = dataclasses.replace(stage.nets["segmenter"], optim=None, init_from=origin)
    stored_teacher = dataclasses.replace(
        result.nets["segmenter"], init_from=Artifact(stage="segmenter", name="teacher")
    )
    recipe = dataclasses.replace(
        recipe,
        stages=(dataclasses.replace(stage, nets={**stage.nets, "teacher": teacher}),),
        results={"teacher": dataclasses.replace(result, nets={"segmenter": stored_teacher})},
    )
    summary = run(
        recipe,
        info,
        run_dir=tmp_path / "run",
        data_dir=tiny_data,
        header={"method": "supervised"},
        seed=0,
        budget=config.budget,
        train_split="train",
        runtime=config.runtime,
        mesh=ONE,
    )
    assert done(tmp_path / "run")["init_from"]["teacher"]["source"] == str(origin)
    stored, source = tiny.stored(tmp_path / "run"), tiny.stored(finished)
    paths = [path for path in stored if "/teacher/" in path]
    assert len(paths) == 9
    for path in paths:
        np.testing.assert_array_equal(stored[path], source[path.replace("/teacher/", "/segmenter/")])
    measured = json.loads((finished / "summary.json").read_text())["results"]["segmenter"]
    assert summary["results"]["teacher"]["miou"] == measured["miou"]
    with pytest.raises(ValueError, match="net segmenter starts from .*; expected a net of an earlier stage"):
        dataclasses.replace(result, nets={"segmenter": teacher})


def test_a_dry_run_names_the_origin_without_looking_at_it():
    config = still("runs/none:segmenter/segmenter#^backbone/")
    segmenter = dry_run(config)["stages"][0]["nets"]["segmenter"]
    assert segmenter["init_from"] == "runs/none:segmenter/segmenter#^backbone/"
    with pytest.raises(InputError, match="init_from 'resnet50': expected RUN:STAGE/NET"):
        dry_run(still("resnet50"))
    assert str(Artifact(stage="detailer", name="segmenter")) == "detailer/segmenter"
