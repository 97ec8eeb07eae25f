"""What the backbone of a stage's net freezes: a group of the optimizer; and the sides that a patch allows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax import optim, runs
from scarce_jax.data.datasets import SCENES
from scarce_jax.errors import InputError
from scarce_jax.methods import transfer
from scarce_jax.methods.common import SegmenterStage, with_backbone
from scarce_jax.models.dinov2 import DINOv2Config
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Group, Optimizer
from scarce_jax.ranges import check
from scarce_jax.recipe import Train
from tests import tiny

DECAYING = Optimizer(lr=0.1, weight_decay=0.1, ema=0.5)
PARAMS = {
    "backbone": {name: {"kernel": jnp.ones(2)} for name in ("conv1", "layer1_block0", "layer2_block0")},
    "classifier": {"kernel": jnp.ones(2)},
}


def pspnet(**settings):
    return PSPNetConfig(backbone=ResNetConfig(depth=18, width=2, **settings))


def updates(optimizer, gradient):
    """What two steps add to PARAMS, by path, and the number of values in the optimizer's state."""
    tx = optim.build(optimizer, PARAMS, 2)
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(2):
        step, state = tx.update(jax.tree.map(lambda p: jnp.full_like(p, gradient), params), state, params)
        params = jax.tree.map(jnp.add, params, step)
    added = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), params, PARAMS)
    values = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim)
    return dict(zip(optim.parameter_paths(PARAMS), jax.tree.leaves(added), strict=True)), values


@pytest.mark.parametrize("gradient", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_neither_gradient_nor_weight_decay_changes_what_is_frozen(kind, gradient):
    optimizer = dataclasses.replace(DECAYING, kind=kind)
    stage = SegmenterStage(**tiny.stage(net=pspnet(frozen=2), optim=optimizer))
    added, values = updates(with_backbone(optimizer, stage), gradient)
    still = {path for path, change in added.items() if change == 0}
    assert still == {"backbone/conv1/kernel", "backbone/layer1_block0/kernel"}
    # There is no moment and no average of them either.
    everything, twice = updates(optimizer, gradient)
    assert all(everything.values()) and values == twice // 2


def test_the_groups_of_the_stage_follow_and_may_be_frozen_whole():
    groups = (Group(pattern="^backbone/", lr=0.5), Group())
    optimizer = dataclasses.replace(DECAYING, groups=groups)
    stage = SegmenterStage(**tiny.stage(net=pspnet(frozen=5), optim=optimizer))
    assert with_backbone(optimizer, stage).groups[1:] == groups
    added, _ = updates(with_backbone(optimizer, stage), 1.0)
    assert [path for path, change in added.items() if change] == ["classifier/kernel"]


@pytest.mark.parametrize("net", [pspnet(), pspnet(frozen_statistics=True), tiny.TinyConfig()])
def test_nothing_else_changes_the_optimizer(net):
    assert with_backbone(DECAYING, SegmenterStage(**tiny.stage(net=net))) is DECAYING


def test_every_stage_of_a_net_freezes_its_backbone():
    config = tiny.replaced(tiny.transfer_config(compare=True), "segmenter", net=pspnet(frozen=3))
    trained = [stage for stage in transfer.recipe(config, SCENES).stages if isinstance(stage, Train)]
    frozen = {stage.name for stage in trained if "segmenter" in stage.nets and stage.nets["segmenter"].optim}
    assert frozen > {"segmenter", "adversarial", "lambda_zero", "strong_only"}
    for stage in trained:
        if stage.name in frozen:
            assert stage.nets["segmenter"].optim.groups[0].lr == 0, stage.name


def test_training_keeps_a_frozen_backbone_to_the_bit(tiny_data, tmp_path):
    optimizer = Optimizer(lr=0.01, weight_decay=0.1, groups=(Group(pattern="^backbone/", lr=0.1), Group()))
    config = tiny.supervised_config(net=pspnet(frozen=5), optim=optimizer, steps=2)
    began = tiny.supervised_config(net=pspnet(frozen=5), optim=dataclasses.replace(optimizer, lr=1e-12), steps=1)
    with tiny.little_optimised():
        for name, one in (("began", began), ("run", config)):
            runs.train(one, tmp_path / name, data_dir=tiny_data, mesh=tiny.mesh())
    before, after = (tiny.stored(tmp_path / name) for name in ("began", "run"))
    changed = {path.split("/")[1] for path in after if np.any(before[path] != after[path])}
    assert changed and "backbone" not in changed
    assert len([path for path in after if "/backbone/" in path]) > 50


@pytest.mark.parametrize(
    ("size", "crop", "fault"),
    [
        ((56, 70), (42, 60), ("--s.augment.crop 42 60", "42 56")),
        ((50, 70), (42, 42), ("--s.size 50 70", "56 70")),
        ((56, 56), (3, 14), ("--s.augment.crop 3 14", "14 14")),
        ((56, 70), (42, 42), None),
    ],
)
def test_sides_must_be_multiples_of_the_patch(size, crop, fault):
    changes = {"size": size, "augment": Augment(crop=crop)}
    stage = SegmenterStage(**tiny.stage(net=PSPNetConfig(backbone=DINOv2Config()), **changes))
    if fault is None:
        check(stage, "s")
        return
    with pytest.raises(InputError) as error:
        check(stage, "s")
    flag, nearest = fault
    assert str(error.value) == f"{flag}: expected multiples of 14, the patch of net.backbone, such as {nearest}"
    check(SegmenterStage(**tiny.stage(net=pspnet(), **changes)), "s")
