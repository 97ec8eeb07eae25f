"""Frozen features that are computed once."""

import dataclasses
import functools
import json
import types

import jax
import numpy as np
import pytest

from scarce_jax import runs
from scarce_jax.data.datasets import SCENES
from scarce_jax.errors import InputError
from scarce_jax.methods import auxiliary, detailer, transfer
from scarce_jax.models.deconvolution import DeconvNetConfig
from scarce_jax.models.decoupled import DecoupledClassifierConfig
from scarce_jax.models.deeplabv3plus import DeepLabV3PlusConfig
from scarce_jax.models.encoded import Encoded, encode, levels_read
from scarce_jax.models.fcn import FCNDetailerConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.vgg import VGGConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.recipe import Recipe
from scarce_jax.training import cache
from scarce_jax.training import state as state_lib
from scarce_jax.training.batches import make_batch
from scarce_jax.training.loop import open_inputs
from scarce_jax.training.session import Session
from tests import tiny

RESNET = ResNetConfig(depth=18, width=4, frozen=3)
STILL = Augment(crop=(32, 32), scale=(1.0, 1.0), rotate=0.0, flip=0.0)


def config(**changes):
    return tiny.supervised_config(**{"net": PSPNetConfig(backbone=RESNET), "steps": 4, **changes})


def trained(settings, folder, data_dir, devices=1, stage="segmenter"):
    """Arrays of the net, and the losses of the steps."""
    runs.train(settings, folder, data_dir=data_dir, mesh=tiny.mesh(devices))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return tiny.stored(folder), [x[f"{stage}/loss"] for x in lines if f"{stage}/loss" in x]


@pytest.mark.parametrize(
    "backbone", [RESNET, VGGConfig(width=4, batch_norm=True, frozen=2), VGGConfig(width=4, frozen=5)]
)
@pytest.mark.parametrize("net", [PSPNetConfig, DeepLabV3PlusConfig])
def test_a_net_continues_from_its_frozen_levels(net, backbone):
    module = net(backbone=backbone).build(3)
    image = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    variables = module.init(jax.random.key(1), image, train=False)
    levels = module.apply(variables, image, method=encode)

    def apply(x):
        (logits, aux), _ = module.apply(
            variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(2)}
        )
        return logits.coarse, None if aux is None else aux.coarse

    names = module.backbone.frozen_levels
    assert set(names) == set(levels)
    read = levels_read(apply, names, levels, (32, 32))
    # PSPNet's auxiliary head reads the last level but one, which is frozen only if all of the VGG is.
    others = {PSPNetConfig: "layer4", DeepLabV3PlusConfig: backbone.low_level}
    assert read == tuple(name for name in names if name in (others[net], names[-1]))
    unread = tuple((name, x.shape[1:], x.dtype) for name, x in levels.items() if name not in read)
    encoded = Encoded({name: levels[name] for name in read}, unread, (32, 32))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), apply(encoded), apply(image))


def test_one_draw_without_augmentation_is_exact(tmp_path, tiny_data):
    plain, losses = trained(config(augment=STILL), tmp_path / "plain", tiny_data)
    cached, cached_losses = trained(config(augment=STILL, cache=1), tmp_path / "cached", tiny_data)
    np.testing.assert_allclose(cached_losses, losses, rtol=1e-4)
    for name, value in plain.items():
        np.testing.assert_allclose(cached[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_each_epoch_takes_another_draw_and_devices_agree(tmp_path, tiny_data, caplog):
    caplog.set_level("INFO")
    # 8 images and batches of 8: a step is an epoch.
    net = PSPNetConfig(backbone=RESNET, dropout=0.0)
    settings = config(net=net, cache=2, batch=8, steps=3, optim=dataclasses.replace(config().segmenter.optim, lr=1e-9))
    _, losses = trained(settings, tmp_path / "one", tiny_data)
    assert "frozen features of 2 draws of 8 images" in caplog.text
    assert "starts from random values, which the frozen parts of its backbone keep; set init_from" in caplog.text
    assert losses[0] != pytest.approx(losses[1], rel=1e-5)
    assert losses[0] == pytest.approx(losses[2], rel=1e-3)
    _, on_four = trained(settings, tmp_path / "four", tiny_data, devices=4)
    np.testing.assert_allclose(on_four, losses, rtol=1e-4)


def test_the_detailer_keeps_its_coarse_masks_with_the_features(tmp_path, tiny_data):
    backbone = VGGConfig(width=2, convolutions=(1,) * 5, frozen=3)
    net = FCNDetailerConfig(backbone=backbone, layers=0, embedding=8)
    stage = detailer.recipe(tiny.detailer_config(net=net, cache=2), SCENES).stage("detailer")
    source = dataclasses.replace(stage.sources["labelled"], ids="all")
    stage, mesh = dataclasses.replace(stage, sources={"labelled": source}), tiny.mesh()
    session = Session(Recipe(stages=(stage,), results={}), SCENES.classes, tmp_path, tiny_data, mesh)
    inputs = open_inputs(session, stage, {"labelled": session.inputs.open(source)})
    nets = state_lib.init_state(stage.nets, 1, 0, "detailer", {}, mesh).nets
    cache.fill(stage, inputs, nets, mesh, {})
    kept, count = inputs["labelled"].arrays, inputs["labelled"].examples
    assert kept["image"].levels.keys() == {"layer3"} and kept["coarse"].shape == (2 * count, 32, 32)
    # Masks are those of the augmented images, and the loss reads both.
    row = {name: x[:1] for name, x in inputs["labelled"].load().items()}
    key = jax.random.fold_in(inputs["labelled"].key, 1)
    transformed = jax.jit(functools.partial(make_batch, mesh, source.transform))
    expected = transformed({"row": np.zeros(1, np.int32), "decoded": row}, key, {})
    np.testing.assert_array_equal(kept["coarse"][count], expected["coarse"][0])
    rows = jax.tree.map(lambda x: x[:4], kept)
    (turn,) = stage.turns
    loss, _ = jax.eval_shape(turn.loss, nets["segmenter"].params, nets, {"labelled": rows}, {}, jax.random.key(0))
    assert loss.shape == ()


def test_the_classifier_of_decoupled_keeps_its_features(tmp_path, tiny_data, caplog):
    caplog.set_level("INFO", logger="scarce_jax")
    still = dataclasses.replace(STILL, crop=(64, 64))
    net = DecoupledClassifierConfig(backbone=dataclasses.replace(RESNET, frozen=4), hidden=4, fc6_kernel=1)
    base = dataclasses.replace(tiny.decoupled_config(), results=("classifier",), deconvnet=None)
    losses = []
    for draws in (0, 1):
        settings = tiny.replaced(base, "classifier", net=net, augment=still, cache=draws)
        losses.append(trained(settings, tmp_path / str(draws), tiny_data, stage="classifier")[1])
    assert "classifier: frozen features of 1 draw of 12 images" in caplog.text
    assert losses[0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_a_net_without_a_frozen_part_is_refused(tmp_path, tiny_data):
    unfrozen = PSPNetConfig(backbone=dataclasses.replace(RESNET, frozen=0))
    for net in (unfrozen, tiny.stage()["net"]):
        with pytest.raises(InputError, match=r"--segmenter\.cache 3: .* set --segmenter\.net\.backbone\.frozen"):
            trained(config(net=net, cache=3), tmp_path / "run", tiny_data)


def test_features_that_do_not_fit_are_refused(tmp_path, tiny_data, monkeypatch):
    monkeypatch.setattr(cache, "_memory", lambda mesh: 1000)
    with pytest.raises(InputError, match=r"--segmenter\.cache 3: the frozen features of 8 images take .* lower it"):
        trained(config(cache=3), tmp_path / "run", tiny_data)


def test_all_sources_of_a_stage_share_the_room(monkeypatch):
    rooms = []

    def filled(where, kept, source, net, mesh, consts, room):
        rooms.append(room)
        return 30

    monkeypatch.setattr(cache, "_fill", filled)
    monkeypatch.setattr(cache, "_memory", lambda mesh: 1000)
    semi = tiny.replaced(tiny.auxiliary_config(net=PSPNetConfig(backbone=RESNET)), "semi", labelled_batch=3, cache=2)
    stage = auxiliary.recipe(semi, SCENES).stage("semi")
    inputs = dict.fromkeys(stage.sources, types.SimpleNamespace(examples=8))
    cache.fill(stage, inputs, dict.fromkeys(stage.nets), tiny.mesh(), {})
    assert rooms == [cache.SHARE * 1000, cache.SHARE * 1000 - 30]


def test_a_stage_that_reads_more_of_an_image_than_its_features_keeps_none():
    config = tiny.replaced(tiny.transfer_config(), "segmenter", net=PSPNetConfig(backbone=RESNET), cache=2)
    recipe = transfer.recipe(config, SCENES)
    assert recipe.stage("segmenter").sources["labelled"].cache.draws == 2
    assert recipe.stage("adversarial").sources["labelled"].cache is None


@pytest.mark.parametrize("frozen", [2, 5])
def test_a_deconvolution_net_cannot_go_without_its_switches(frozen):
    backbone = VGGConfig(width=2, convolutions=(1,) * 5, frozen=frozen)
    module = DeconvNetConfig(backbone=backbone, hidden=4, fc6_kernel=1).build(3)
    levels = {name: jax.ShapeDtypeStruct((1, 1, 1, 2), jax.numpy.float32) for name in module.backbone.frozen_levels}
    key = jax.random.key(0)
    with pytest.raises(InputError, match="cache: expected 0, because the unpooling reads the switches"):
        jax.eval_shape(lambda x: module.init(key, x, train=True), Encoded(levels, (), (32, 32)))
