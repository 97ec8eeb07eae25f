"""Passes over data: records, means, host work in processes, and what later stages take from them."""

import dataclasses
import json
import os
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax import recipe as recipe_lib
from scarce_jax.data.budget import Budget
from scarce_jax.data.builders import load_info, prepare
from scarce_jax.data.records import PART, Records, load_mean
from scarce_jax.data.source import ExampleField, Reader, Rows, load_all
from scarce_jax.errors import InputError
from scarce_jax.mesh import make_mesh
from scarce_jax.methods.inputs import image_input, unaugmented
from scarce_jax.ops.augment import normalise
from scarce_jax.optim import Optimizer
from scarce_jax.recipe import Artifact, Eval, Infer, Mean, Net, Out, Recipe, Source, Train, Turn
from scarce_jax.training.run import run
from tests import tiny
from tests.training.grow import Grow
from tests.training.many_scenes import ManyScenes

SIZE = (16, 16)
OPTIM = Optimizer(lr=0.05)
DATASET = "tests.training.many_scenes:ManyScenes"
IMAGES = ManyScenes.SIZES["train"]
"""One part of records and the beginning of another one; no number of devices here divides it."""


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, image, train):
        x = nn.Conv(4, (3, 3), 2, name="conv")(image)
        return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn")(x))


class Head(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, train):
        return nn.Conv(self.classes, (1, 1), name="classifier")(x)


def encoder_loss(params, nets, batch, shared, key):
    variables = {"params": params, "batch_stats": nets["encoder"].batch_stats}
    x, updated = Encoder().apply(variables, batch["all"]["image"], train=True, mutable=["batch_stats"])
    return jnp.mean((x - 1) ** 2), Out(batch_stats={"encoder": updated["batch_stats"]})


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Each image's own BatchNorm statistics, and how often each class occurs."""

    classes: int

    def __call__(self, nets, batch, consts):
        def one(image, label):
            variables = nets["encoder"].variables
            _, updated = Encoder().apply(variables, image[None], train=True, mutable=["batch_stats"])
            before, after = nets["encoder"].batch_stats["bn"], updated["batch_stats"]["bn"]
            own = {f"bn/{name}": (after[name] - 0.9 * before[name]) / 0.1 for name in ("mean", "var")}
            return {**own, "frequency": (label[..., None] == jnp.arange(self.classes)).mean((0, 1))}

        return jax.vmap(one)(batch["image"], batch["label"])


@dataclasses.dataclass(frozen=True)
class Brightness:
    """A mask of the features above the frequency of class 0, and their sum."""

    threshold: int

    def __call__(self, nets, batch, consts):
        x = Encoder().apply(nets["encoder"].variables, batch["image"], train=False)
        mask = x.mean(-1) > consts["frequency"][0] + self.threshold
        return {"mask": mask.astype(jnp.uint8), "sum": x.sum((1, 2, 3))}


@dataclasses.dataclass(frozen=True)
class HeadLoss:
    classes: int

    def __call__(self, params, nets, batch, shared, key):
        x = Encoder().apply(nets["encoder"].variables, batch["all"]["image"], train=False)
        logits = Head(self.classes).apply({"params": params}, x, train=True)
        stats = nets["encoder"].batch_stats["bn"]
        metrics = {"mean": stats["mean"].sum(), "var": stats["var"].sum(), "frequency": shared["frequency"][0]}
        metrics["labels"] = batch["all"]["label"].astype(jnp.float32).sum()
        return jnp.mean(logits**2), Out(metrics=metrics)


@dataclasses.dataclass(frozen=True)
class HeadLogits:
    classes: int

    def __call__(self, nets, batch, consts):
        x = Encoder().apply(nets["encoder"].variables, batch["image"], train=False)
        return Head(self.classes).apply(nets["head"].variables, x, train=False).repeat(2, 1).repeat(2, 2)


def source(**changes):
    fields = {"dataset": DATASET, "split": "train", "size": SIZE, "batch": 8, "transform": unaugmented}
    return Source(**{**fields, **changes})


def net(module, inputs, origin=None, optim=None):
    return Net(module=module, inputs=inputs, init_from=origin, optim=optim)


def toy(classes, finish, threshold=0, batch=2):
    """Train an encoder, re-estimate its BatchNorm, infer masks, and train heads on it frozen, twice."""
    encoder, head = Encoder(), Head(classes)
    image, features = (image_input(SIZE),), (jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32),)
    measured = Artifact(stage="statistics", name="encoder")
    frequency = {"frequency": Artifact(stage="statistics", name="frequency")}
    masks = Artifact(stage="maps", name="mask")
    heads = [
        Train(
            name=name,
            nets={"encoder": net(encoder, image, measured), "head": net(head, features, None, OPTIM)},
            turns=(Turn(net="head", loss=HeadLoss(classes)),),
            sources={"all": source(ids=masks, labels=(masks,))},
            steps=2,
            consts=frequency,
            keys_as="head",
        )
        for name in ("head", "again")
    ]
    stages = (
        Train(
            name="base",
            nets={"encoder": net(encoder, image, None, OPTIM)},
            turns=(Turn(net="encoder", loss=encoder_loss),),
            sources={"all": source()},
            steps=2,
        ),
        Infer(
            name="statistics",
            nets={"encoder": net(encoder, image, Artifact(stage="base", name="encoder"))},
            predict=Statistics(classes),
            source=source(labels=("fine",), batch=batch),
            write=Mean(into="encoder"),
        ),
        Infer(
            name="maps",
            nets={"encoder": net(encoder, image, measured)},
            predict=Brightness(threshold),
            source=source(batch=batch),
            finish=finish,
            consts=frequency,
        ),
        *heads,
    )
    nets = {
        "encoder": net(encoder, image, measured),
        "head": net(head, features, Artifact(stage="again", name="head")),
    }
    result = Eval(
        name="head",
        nets=nets,
        predict=HeadLogits(classes),
        source=source(split="val", labels=("fine",), batch=batch),
    )
    return Recipe(stages=stages, results={"head": result})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare(DATASET, folder)
    return folder


@pytest.fixture(scope="module")
def fault(tmp_path_factory):
    """A file; while it exists, host work on the example that it names fails."""
    return tmp_path_factory.mktemp("fault") / "fault"


@pytest.fixture(scope="module")
def carry_out(data, fault):
    """Runs the toy recipe in a folder, on some devices."""

    def run_in(folder, devices=2, **changes):
        info = load_info(DATASET, data)
        return run(
            toy(len(info.classes), Grow(str(fault)), **changes),
            info,
            run_dir=folder,
            data_dir=str(data),
            header={"method": "toy"},
            seed=0,
            budget=Budget(),
            train_split="train",
            runtime=tiny.RUNTIME,
            mesh=make_mesh(jax.devices()[:devices]),
        )

    return run_in


@pytest.fixture(scope="module")
def finished(tmp_path_factory, carry_out):
    """A run on two devices, whose last batch is filled up."""
    folder = tmp_path_factory.mktemp("infer")
    carry_out(folder)
    return folder


def encoder_output(folder, data, stats):
    """Every training image and its features by Flax alone, with given statistics."""
    rows = Rows(Reader(DATASET, "train", str(data)), range(IMAGES), labels=(ExampleField("fine"),), size=SIZE)
    stored = tiny.stored(folder)
    params = {
        module: {
            name.rpartition("/")[2]: array
            for name, array in stored.items()
            if name.startswith(f"base/encoder/params/{module}/")
        }
        for module in ("conv", "bn")
    }
    decoded = load_all(rows, 1)
    images, labels = normalise(jnp.asarray(decoded["image"])), decoded["label"]
    conv = nn.Conv(4, (3, 3), 2).apply({"params": params["conv"]}, images)
    if stats is None:
        return rows.ids, labels, np.asarray(conv)
    x = Encoder().apply({"params": params, "batch_stats": {"bn": stats}}, images, train=False)
    return rows.ids, labels, np.asarray(x)


def test_a_mean_is_that_of_every_example_once(finished, data):
    _, labels, conv = encoder_output(finished, data, None)
    means = {name: load_mean(finished, "statistics", name) for name in ("bn/mean", "bn/var", "frequency")}
    np.testing.assert_allclose(means["bn/mean"], conv.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(means["bn/var"], conv.var((1, 2)).mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(means["frequency"], [(labels == k).mean() for k in range(12)], rtol=1e-5, atol=1e-7)
    with pytest.raises(InputError, match="mean.npz: has bn/mean.*, expected 'other'; run again with --redo statistics"):
        load_mean(finished, "statistics", "other")


def test_means_do_not_depend_on_batch_and_devices(finished, tmp_path, carry_out):
    carry_out(tmp_path / "run", devices=8)
    for name in ("bn/mean", "frequency"):
        means = [load_mean(folder, "statistics", name) for folder in (finished, tmp_path / "run")]
        np.testing.assert_allclose(*means, rtol=1e-4, atol=1e-5)


def test_records_hold_every_example_finished_in_other_processes(finished, data):
    stats = {name: load_mean(finished, "statistics", f"bn/{name}") for name in ("mean", "var")}
    ids, labels, x = encoder_output(finished, data, stats)
    records = Records(finished / "maps/records")
    assert list(records.ids) == list(ids)
    assert sorted(p.name[:10] for p in records.folder.iterdir()) == ["part-00000", "part-00001"]
    frequency = load_mean(finished, "statistics", "frequency")
    for k, name in enumerate(ids):
        entry = records.read(name)
        assert str(entry["name"]) == name and int(entry["process"]) != os.getpid() and not entry["jax"]
        # The re-estimated net and the mean reached the stage.
        np.testing.assert_allclose(entry["sum"], x[k].sum(), rtol=1e-4)
        expected = (x[k].mean(-1) > frequency[0]).repeat(2, 0).repeat(2, 1)
        assert entry["mask"].shape == SIZE and (entry["mask"] == expected).mean() > 0.98
    assert json.loads((finished / "maps/DONE").read_text())["inferred"] == IMAGES


def test_later_stages_start_from_the_reestimated_net_and_leave_it_alone(finished):
    lines = [json.loads(x) for x in (finished / "metrics.jsonl").read_text().splitlines()]
    means = {n: load_mean(finished, "statistics", n) for n in ("bn/mean", "bn/var", "frequency")}
    records = Records(finished / "maps/records")
    for stage in ("head", "again"):
        logged = [x for x in lines if x["stage"] == stage]
        assert [x["step"] for x in logged] == [1, 2]
        for x in logged:
            np.testing.assert_allclose(x["head/mean"], means["bn/mean"].sum(), rtol=1e-5)
            np.testing.assert_allclose(x["head/var"], means["bn/var"].sum(), rtol=1e-5)
            np.testing.assert_allclose(x["head/frequency"], means["frequency"][0], rtol=1e-6)
        # A frozen net is not stored again.
        assert [p.name for p in (finished / stage / "nets").iterdir()] == ["head"]
    # The masks of the records are the labels: eight of them a step.
    sums = [int(records.read(name)["mask"].sum()) for name in records.ids]
    assert sum(sums) > 0 and lines[-1]["head/labels"] <= sum(sorted(sums)[-8:])
    stored = tiny.stored(finished)
    # Equal draws (keys_as), equal frozen net: equal heads, though the first stage gave its state away step by step.
    for name in ("kernel", "bias"):
        head, again = (stored[f"{stage}/head/params/classifier/{name}"] for stage in ("head", "again"))
        np.testing.assert_array_equal(head, again)
    assert recipe_lib.reads(toy(12, None).stages[-1])[0] == Artifact(stage="statistics", name="encoder")


def test_an_interrupted_pass_repeats_one_part_at_most(finished, tmp_path, carry_out, fault):
    folder = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(folder / "maps")
    complete = Records(finished / "maps/records")
    # Of the second part.
    fault.write_text(list(complete.ids)[PART])
    with pytest.raises(RuntimeError, match="power cut"):
        carry_out(folder)
    fault.unlink()
    (first,) = (folder / "maps/records").iterdir()
    before = first.stat()
    with pytest.raises(InputError, match="stage maps was begun with other settings.*\n.*threshold: 0 -> 1"):
        carry_out(folder, threshold=1)
    carry_out(folder)
    # The part that was done stayed as it was.
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert json.loads((folder / "maps/DONE").read_text())["inferred"] == IMAGES - PART > 0
    resumed = Records(folder / "maps/records")
    for name in complete.ids:
        for field in ("mask", "sum"):
            np.testing.assert_array_equal(*(records.read(name)[field] for records in (complete, resumed)))
