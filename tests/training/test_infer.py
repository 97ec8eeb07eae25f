"""Passes over data: records, means, host work in processes, and what later stages take from them."""

import json
import os
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax import mesh as mesh_lib
from scarce_jax import recipe as recipe_lib
from scarce_jax.data.budget import Budget
from scarce_jax.data.builders import load_info
from scarce_jax.data.records import Records
from scarce_jax.errors import InputError
from scarce_jax.methods.common import image_input, unaugmented
from scarce_jax.optim import Optimizer
from scarce_jax.recipe import Artifact, Eval, Infer, Mean, Net, Out, Recipe, Source, Train, Turn
from scarce_jax.training import infer as infer_lib
from scarce_jax.training.run import run
from tests import tiny

SIZE = (16, 16)
OPTIM = Optimizer(lr=0.05)


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


def toy(classes, finish, threshold=0, batch=2):
    """Train an encoder, re-estimate its BatchNorm, infer masks, and train heads on it frozen, twice."""
    encoder, head = Encoder(), Head(classes)
    features = jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32)

    def source(**changes):
        given = {"dataset": "scenes", "split": "train", "size": SIZE, "batch": 8, "transform": unaugmented}
        return Source(**{**given, **changes})

    def encoder_loss(params, nets, batch, shared, key):
        variables = {"params": params, "batch_stats": nets["encoder"].stats}
        x, updated = encoder.apply(variables, batch["all"]["image"], train=True, mutable=["batch_stats"])
        return jnp.mean((x - 1) ** 2), Out(stats={"encoder": updated["batch_stats"]})

    def statistics(nets, batch, consts):
        def one(image, label):
            x, found = encoder.apply(nets["encoder"].variables, image[None], train=True, mutable=["batch_stats"])
            before, after = nets["encoder"].stats["bn"], found["batch_stats"]["bn"]
            own = {f"bn/{name}": (after[name] - 0.9 * before[name]) / 0.1 for name in ("mean", "var")}
            return {**own, "frequency": (label[..., None] == jnp.arange(classes)).mean((0, 1))}

        return jax.vmap(one)(batch["image"], batch["label"])

    def brightness(nets, batch, consts):
        x = encoder.apply(nets["encoder"].variables, batch["image"], train=False)
        return {"mask": (x.mean(-1) > consts["frequency"][0]).astype(jnp.uint8), "sum": x.sum((1, 2, 3))}

    def head_loss(params, nets, batch, shared, key):
        x = encoder.apply(nets["encoder"].variables, batch["all"]["image"], train=False)
        logits = head.apply({"params": params}, x, train=True)
        stats = nets["encoder"].stats["bn"]
        metrics = {"mean": stats["mean"].sum(), "var": stats["var"].sum(), "frequency": shared["frequency"][0]}
        metrics["labels"] = batch["all"]["label"].astype(jnp.float32).sum()
        return jnp.mean(logits**2), Out(metrics=metrics)

    def predict(nets, batch, consts):
        x = encoder.apply(nets["encoder"].variables, batch["image"], train=False)
        return head.apply(nets["head"].variables, x, train=False).repeat(2, 1).repeat(2, 2)

    def net(module, inputs, origin=None, optim=None):
        return Net(module=module, inputs=inputs, init_from=origin, optim=optim)

    image = (image_input(SIZE),)
    measured = Artifact(stage="statistics", name="encoder")
    frequency = {"frequency": Artifact(stage="statistics", name="frequency")}

    heads = [
        Train(
            name=name,
            nets={"encoder": net(encoder, image, measured), "head": net(head, (features,), None, OPTIM)},
            turns=(Turn(net="head", loss=head_loss),),
            sources={
                "all": source(ids=Artifact(stage="maps", name="mask"), labels=(Artifact(stage="maps", name="mask"),))
            },
            steps=2,
            settings={},
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
            settings={},
        ),
        Infer(
            name="statistics",
            nets={"encoder": net(encoder, image, Artifact(stage="base", name="encoder"))},
            predict=statistics,
            source=source(labels=("fine",), batch=batch),
            settings={},
            write=Mean(into="encoder"),
        ),
        Infer(
            name="maps",
            nets={"encoder": net(encoder, image, measured)},
            predict=brightness,
            source=source(batch=batch),
            settings={"threshold": threshold},
            finish=finish,
            consts=frequency,
        ),
        *heads,
    )
    nets = {
        "encoder": net(encoder, image, measured),
        "head": net(head, (features,), Artifact(stage="again", name="head")),
    }
    result = Eval(name="head", nets=nets, predict=predict, source=source(split="val", labels=("fine",), batch=batch))
    return Recipe(stages=stages, results={"head": result})


def make_finish():
    """Host work that says where it ran."""

    def finish(name, fields):
        import os
        import sys

        found = {"mask": fields["mask"].repeat(2, 0).repeat(2, 1), "sum": fields["sum"], "name": np.array(name)}
        return {**found, "process": np.array(os.getpid()), "jax": np.array("jax" in sys.modules)}

    return finish


def carry_out(folder, data, devices=2, **changes):
    whole = mesh_lib.make_mesh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh_lib, "make_mesh", lambda given=None: whole(given or jax.devices()[:devices]))
        info = load_info("scenes", data)
        return run(
            toy(len(info.classes), make_finish(), **changes),
            info,
            run_dir=folder,
            data_dir=str(data),
            header={"method": "toy"},
            seed=0,
            budget=Budget(),
            train_split="train",
            runtime=tiny.RUNTIME,
        )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_data):
    """A run on two devices: 12 images, three batches of 4, in parts of 5: tails of a batch and of a part."""
    folder = tmp_path_factory.mktemp("infer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infer_lib, "PART", 5)
        carry_out(folder, tiny_data)
    return folder


def encoder_output(folder, data, stats):
    """Every training image and its features by Flax alone, with given statistics."""
    from scarce_jax.data.source import Reader, Rows
    from scarce_jax.ops.augment import normalise

    reader = Reader("scenes", "train", str(data))
    rows = Rows(reader, range(12), labels=("fine",), size=SIZE)
    stored = tiny.stored(folder)
    params = {
        module: {
            name.rpartition("/")[2]: array
            for name, array in stored.items()
            if name.startswith(f"base/encoder/params/{module}/")
        }
        for module in ("conv", "bn")
    }
    images = jnp.stack([normalise(jnp.asarray(rows[k]["image"])) for k in range(12)])
    labels = np.stack([rows[k]["label"] for k in range(12)])
    conv = nn.Conv(4, (3, 3), 2).apply({"params": params["conv"]}, images)
    if stats is None:
        return rows.ids, labels, np.asarray(conv)
    x = Encoder().apply({"params": params, "batch_stats": {"bn": stats}}, images, train=False)
    return rows.ids, labels, np.asarray(x)


def test_a_mean_is_that_of_every_example_once(finished, tiny_data):
    _, labels, conv = encoder_output(finished, tiny_data, None)
    found = {name: infer_lib.load_mean(finished, "statistics", name) for name in ("bn/mean", "bn/var", "frequency")}
    np.testing.assert_allclose(found["bn/mean"], conv.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["bn/var"], conv.var((1, 2)).mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["frequency"], [(labels == k).mean() for k in range(12)], rtol=1e-5, atol=1e-7)
    with pytest.raises(InputError, match="'other' cannot be read .*--redo statistics"):
        infer_lib.load_mean(finished, "statistics", "other")


def test_means_do_not_depend_on_batch_and_devices(finished, tmp_path, tiny_data):
    # One pass of 16 rows for 12 images.
    carry_out(tmp_path / "run", tiny_data, devices=8)
    for name in ("bn/mean", "frequency"):
        means = [infer_lib.load_mean(folder, "statistics", name) for folder in (finished, tmp_path / "run")]
        np.testing.assert_allclose(*means, rtol=1e-4, atol=1e-5)


def test_records_hold_every_example_finished_in_other_processes(finished, tiny_data):
    stats = {name: infer_lib.load_mean(finished, "statistics", f"bn/{name}") for name in ("mean", "var")}
    ids, labels, x = encoder_output(finished, tiny_data, stats)
    records = Records(finished / "maps/records")
    assert list(records.ids) == list(ids)
    assert sorted(p.name[:10] for p in records.folder.iterdir()) == ["part-00000", "part-00001", "part-00002"]
    frequency = infer_lib.load_mean(finished, "statistics", "frequency")
    for k, name in enumerate(ids):
        entry = records.read(name)
        assert str(entry["name"]) == name and int(entry["process"]) != os.getpid() and not entry["jax"]
        # The re-estimated net and the mean reached the stage.
        np.testing.assert_allclose(entry["sum"], x[k].sum(), rtol=1e-4)
        expected = (x[k].mean(-1) > frequency[0]).repeat(2, 0).repeat(2, 1)
        assert entry["mask"].shape == SIZE and (entry["mask"] == expected).mean() > 0.98
    assert json.loads((finished / "maps/DONE").read_text())["inferred"] == 12


def test_later_stages_start_from_the_reestimated_net_and_leave_it_alone(finished):
    lines = [json.loads(x) for x in (finished / "metrics.jsonl").read_text().splitlines()]
    means = {n: infer_lib.load_mean(finished, "statistics", n) for n in ("bn/mean", "bn/var", "frequency")}
    records = Records(finished / "maps/records")
    for stage in ("head", "again"):
        found = [x for x in lines if x["stage"] == stage]
        assert [x["step"] for x in found] == [1, 2]
        for x in found:
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


def test_an_interrupted_pass_repeats_one_part_at_most(finished, tmp_path, tiny_data, monkeypatch):
    folder = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(folder / "maps")
    monkeypatch.setattr(infer_lib, "PART", 5)
    written = []

    def write(records, number, entries, write=infer_lib.write_part):
        if number == 2 and len(written) == 2:
            raise RuntimeError("power cut")
        written.append(number)
        return write(records, number, entries)

    monkeypatch.setattr(infer_lib, "write_part", write)
    with pytest.raises(RuntimeError, match="power cut"):
        carry_out(folder, tiny_data)
    assert written == [0, 1]
    with pytest.raises(InputError, match="stage maps was begun with other settings.*\n.*threshold: 0 -> 1"):
        carry_out(folder, tiny_data, threshold=1)
    written.append(None)
    carry_out(folder, tiny_data)
    assert written == [0, 1, None, 2]
    assert json.loads((folder / "maps/DONE").read_text())["inferred"] == 2
    records = [Records(f / "maps/records") for f in (finished, folder)]
    for name in records[0].ids:
        for field in ("mask", "sum"):
            np.testing.assert_array_equal(*(r.read(name)[field] for r in records))
