"""The method's comparison is fair: classifier and detailer differ in what reads the coarse mask and nothing else."""

import dataclasses
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from scarce_jax.data.datasets import SCENES
from scarce_jax.data.source import ExampleField, Reader, Rows
from scarce_jax.mesh import make_mesh
from scarce_jax.methods import detailer
from scarce_jax.models.deeplabv3plus import DeepLabV3PlusConfig
from scarce_jax.models.detailer import DetailerConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.training import state as state_lib
from scarce_jax.training.batches import TrainInput
from tests import tiny

CONFIGS = sorted((tiny.ROOT / "configs").glob("detailer_*.py"))
SMALL = ResNetConfig(depth=18, width=4)


def initial(stage, seed=0):
    """The arrays that a training stage of one net starts from, by path."""
    (role, net), *_ = stage.nets.items()
    key = state_lib.named_key(seed, stage.keys_as or stage.name, role)
    # Drawing is all that is compiled, and its speed does not matter.
    options = {"xla_backend_optimization_level": 0}
    drawn = jax.jit(lambda key: state_lib.init_net(net, key).variables, compiler_options=options)(key)
    return {path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(drawn, sep="/").items()}


def test_every_shared_weight_starts_from_the_same_value():
    config = tiny.detailer_config(compare=True, student=True, net=PSPNetConfig(backbone=SMALL))
    config = tiny.replaced(config, "detailer", net=DetailerConfig(backbone=SMALL, embedding=8))
    recipe = detailer.recipe(config, SCENES)
    ours, theirs = initial(recipe.stage("detailer")), initial(recipe.stage("classifier"))
    assert set(ours) - set(theirs) == {"params/coarse_embedding/kernel", "params/coarse_embedding/bias"}
    assert set(theirs) <= set(ours)
    wider = [path for path in theirs if ours[path].shape != theirs[path].shape]
    assert wider == ["params/final_block/conv/kernel"]
    for path, value in theirs.items():
        shared = ours[path]
        if path in wider:
            # The first input channels are the picture's, the rest reads the coarse mask.
            assert shared.shape[2] == value.shape[2] + config.detailer.net.embedding
            shared = shared[:, :, : value.shape[2]]
        np.testing.assert_array_equal(shared, value, err_msg=path)
    kernels = [path for path in theirs if path.endswith("kernel")]
    assert len(kernels) > 20 and all(np.std(theirs[path]) > 0 for path in kernels)
    students = [recipe.stage(name) for name in ("student_detailed", "student_coarse")]
    assert students[0].keys_as == students[1].keys_as not in (None, "detailer")


def draws(stage, rows, mesh, seed=0):
    """(images, augmented rows) of the first steps of a stage."""
    drawn_as = stage.keys_as or stage.name
    (name, source), *_ = stage.sources.items()
    inputs = TrainInput(source, rows, seed, f"{drawn_as}/{name}", mesh, 1, True)
    batches = [np.asarray(batch["decoded"]["image"]) for batch in inputs.batches(0, 3)]
    row = {
        "image": jnp.arange(3 * 32 * 32, dtype=jnp.uint8).reshape(32, 32, 3),
        "label": jnp.zeros((32, 32), jnp.uint8),
    }
    row |= {"height": jnp.int32(32), "width": jnp.int32(32)}
    warped = [source.transform(row, jax.random.fold_in(inputs.key, k), {})["image"] for k in range(2)]
    return batches, [np.asarray(image) for image in warped]


def test_both_see_the_same_images_in_the_same_order_under_the_same_augmentation(tiny_data):
    recipe = detailer.recipe(tiny.detailer_config(compare=True, student=True), SCENES)
    reader, mesh = Reader("scenes", "train", str(tiny_data)), make_mesh()
    rows = Rows(reader=reader, indices=range(12), labels=(ExampleField("fine"),), size=(32, 32))
    by_stage = {s.name: draws(s, rows, mesh) for s in recipe.stages if s.name != "detail"}
    for one, other in (("detailer", "classifier"), ("student_detailed", "student_coarse")):
        for a, b in zip(by_stage[one], by_stage[other], strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(by_stage["detailer"][0], by_stage["student_coarse"][0])
    assert not np.array_equal(by_stage["detailer"][1][0], by_stage["detailer"][1][1])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_set_both_alike(path):
    config = dataclasses.replace(runpy.run_path(str(path))["config"], compare=True)
    assert list(config.remarks()) == []
    longer = tiny.replaced(config, "classifier", steps=7, epochs=None)
    assert len(list(longer.remarks())) == 1
    assert list(dataclasses.replace(longer, compare=False).remarks()) == []


def test_settings_that_differ_are_named():
    config = tiny.detailer_config(compare=True, net=PSPNetConfig(backbone=SMALL))
    config = tiny.replaced(config, "detailer", net=DetailerConfig(backbone=SMALL, embedding=8))
    assert list(config.remarks()) == []
    optim = dataclasses.replace(config.classifier.optim, lr=0.5 * config.classifier.optim.lr)
    backbone = dataclasses.replace(SMALL, width=8)
    options = {"optim": optim, "init_from": "weights.safetensors", "eval_batch": 1}
    wider = tiny.replaced(config, "classifier", net=PSPNetConfig(backbone=backbone), **options)
    assert "whose settings are others: optim.lr, init_from, net.backbone.width;" in next(wider.remarks())
    other = tiny.replaced(config, "classifier", net=DeepLabV3PlusConfig(backbone=SMALL))
    assert "whose settings are others: net;" in next(other.remarks())
