"""Every method on any backbone: the programs of all its stages, and a training on nets that have no switches."""

import dataclasses
import json

import numpy as np
import pytest

from scarce_jax import methods, runs
from scarce_jax.data.datasets import SCENES
from scarce_jax.models.cam_vgg import CamVGGConfig
from scarce_jax.models.largefov import LargeFOVConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.vgg import VGGConfig
from scarce_jax.synthetic import lower
from scarce_jax.training.state import abstract_net
from tests import tiny

BACKBONES = {
    "resnet": ResNetConfig(depth=18, width=4, geometry="caffe", normalisation="caffe", frozen=1),
    "vgg16": VGGConfig(width=4, batch_norm=True, convolutions=(1,) * 5, normalisation="caffe", frozen=1),
}
FIRST_LAYER = {"resnet": "conv1", "vgg16": "conv1_1"}


def supervised_config(backbone):
    return tiny.supervised_config(net=LargeFOVConfig(backbone=backbone))


def transfer_config(backbone):
    return tiny.transfer_config(net=LargeFOVConfig(backbone=backbone))


def decoupled_config(backbone):
    config = tiny.decoupled_config(compare=True, steps=2)
    for stage in ("classifier", "deconvnet"):
        net = dataclasses.replace(getattr(config, stage).net, backbone=backbone)
        config = tiny.replaced(config, stage, net=net)
    return tiny.replaced(config, "decoupled", deconvolutions=(1,) * 5)


def three_step_config(backbone):
    wide = dataclasses.replace(backbone, width=16)
    config = tiny.replaced(tiny.three_step_config(), "classifier", net=CamVGGConfig(backbone=wide))
    if isinstance(backbone, ResNetConfig):
        return tiny.replaced(config, "irnet", backbone=wide)
    return tiny.replaced(config, "irnet", init_from="resnet.safetensors")


CONFIGS = {
    supervised_config: {"segmenter"},
    transfer_config: {"cam", "lnet", "segmenter", "adversarial"},
    decoupled_config: {"classifier", "strong_classifier", "deconvnet"},
    three_step_config: {"classifier"},
}
"""Makes a config with a backbone -> the stages that train the backbone."""


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda make: make.__name__)
def test_every_stage_of_every_method_takes_any_backbone(config, kind):
    recipe = methods.recipe_of(config(BACKBONES[kind]), SCENES)
    trained = set()
    for stage in recipe.stages:
        nets = [net for net in stage.nets.values() if hasattr(net.module, "backbone")]
        if not nets or (kind == "vgg16" and stage.name in ("irnet", "displacement_mean")):
            continue
        lower(stage, recipe, SCENES, tiny.mesh())
        for net in nets:
            if net.optim is not None:
                assert FIRST_LAYER[kind] in abstract_net(net).params["backbone"]
                frozen, *_ = net.optim.groups
                assert frozen.lr == 0 and frozen.pattern == BACKBONES[kind].frozen_pattern
                trained.add(stage.name)
    assert trained == CONFIGS[config]


def test_the_decoupled_nets_train_on_a_resnet(tmp_path, tiny_data):
    config = dataclasses.replace(decoupled_config(BACKBONES["resnet"]), compare=False)
    with tiny.little_optimised():
        summary = runs.train(config, tmp_path, data_dir=tiny_data, mesh=tiny.mesh())
        mask = runs.load(tmp_path, mesh=tiny.mesh()).predict(np.full((50, 70, 3), 128, np.uint8))
    assert mask.shape == (50, 70)
    assert 0 <= summary["results"]["decoupled"]["miou"] <= 1
    losses = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in losses if np.isfinite(line.get("loss", np.nan))} >= {"classifier", "decoupled"}
    means = {name: x for name, x in tiny.stored(tmp_path).items() if "/backbone/" in name and name.endswith("/mean")}
    assert all(np.any(x) == ("/bn1/" not in name or "_block" in name) for name, x in means.items())
    assert len(means) == 20
