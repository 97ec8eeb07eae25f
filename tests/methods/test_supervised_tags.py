"""Encoder pretraining by image tags: training, its measurement, and what other runs take from it."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax import mesh as mesh_lib
from scarce_jax import runs
from scarce_jax.cli import main
from scarce_jax.data.budget import Budget
from scarce_jax.data.datasets import SCENES
from scarce_jax.errors import InputError
from scarce_jax.evaluation.tags import average_precision, summarise_tags
from scarce_jax.models import weights
from scarce_jax.models.pspnet import PSPNet
from scarce_jax.models.resnet import ResNet
from scarce_jax.models.tags import TagClassifier
from scarce_jax.models.tiny import TinyEncoder
from scarce_jax.optim import Optimizer
from scarce_jax.recipe import Net, Views, parse_origin
from scarce_jax.training import state as state_lib
from scarce_jax.training.origins import take
from tests import tiny

IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


class TinySegmenter(nn.Module):
    """The tiny encoder under the trunk's name, and a head."""

    @nn.compact
    def __call__(self, image, *, train):
        features = TinyEncoder(4, name=weights.TRUNK)(image, train=train)["layer1"]
        return nn.Conv(12, (1, 1), name="classifier")(features)


def config(**changes):
    supervised = tiny.supervised_config(**{"steps": 12, "eval_every": 6, **changes})
    return dataclasses.replace(supervised, target="tags", budget=Budget())


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_data):
    """A finished run on eight devices: 7 images in evaluation do not fill their batches of two."""
    run = tmp_path_factory.mktemp("tags") / "run"
    summary = runs.train(config(optim=Optimizer(kind="adam", lr=0.01)), run, data_dir=tiny_data)
    return run, summary


def test_average_precision_is_the_area_under_the_raw_curve():
    truth = np.array([True, False, True, False])
    # Positives at ranks 1 and 3.
    assert average_precision(np.array([4.0, 3.0, 2.0, 1.0]), truth) == pytest.approx((1 + 2 / 3) / 2)
    # A tie of the second positive with a negative passes as one, whatever the order.
    for order in ([0, 1, 2, 3], [0, 2, 1, 3]):
        assert average_precision(np.array([4.0, 3.0, 3.0, 1.0])[order], truth[order]) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.zeros(4), truth) == pytest.approx(0.5)
    assert average_precision(np.zeros(4), np.zeros(4, bool)) is None
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 5, 40).astype(float), rng.random(40) < 0.3
    points = [((truth & (scores >= t)).sum() / truth.sum(), truth[scores >= t].mean()) for t in np.unique(scores)[::-1]]
    recall, precision = np.transpose([(0.0, 1.0), *points])
    assert average_precision(scores, truth) == pytest.approx(np.sum(np.diff(recall) * precision[1:]))


def test_figures_leave_out_the_background_and_what_no_image_has():
    tags = np.array([[0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]], np.uint8)
    logits = np.array([[9, 2.0, 1, -1], [9, 1, -2, -1], [9, -1, -3, -1]])
    figures = summarise_tags(logits, tags, ("ground", "a", "b", "c"), 0)
    # a: perfect. b: its two images come last, at ranks 2 and 3. c: no image has it or is said to have it.
    b = (1 / 2 + 2 / 3) / 2
    assert figures["per_class"] == {"a": 1.0, "b": pytest.approx(b), "c": None}
    assert figures["map"] == pytest.approx((1 + b) / 2) and figures["mean_f1"] == pytest.approx((1 + 0) / 2)
    assert summarise_tags(logits[:, 1:], tags, ("ground", "a", "b", "c"), 0) == figures
    nothing = summarise_tags(-np.ones((2, 2)), np.zeros((2, 2)), ("a", "b"), None)
    assert nothing == {"map": None, "mean_f1": None, "per_class": {"a": None, "b": None}}
    with pytest.raises(ValueError, match="do not fit 4 classes"):
        summarise_tags(logits[:, 2:], tags, ("ground", "a", "b", "c"), 0)


def test_a_run_of_tags_is_trained_measured_and_evaluated(finished, tiny_data, capsys):
    run, summary = finished
    assert list(summary["results"]) == ["tags"]
    figures = summary["results"]["tags"]
    assert figures["images"] == tiny.SIZES["val"] and 0 < figures["map"] <= 1
    assert list(figures["per_class"]) == list(SCENES.classes[1:])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["classifier/loss"] for line in lines if line["kind"] == "train"]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) < 1.2
    measured = [line for line in lines if line["kind"] == "eval"]
    assert [line["step"] for line in measured] == [6, 12]
    assert {key: measured[-1][key] for key in ("map", "mean_f1")} == {key: figures[key] for key in ("map", "mean_f1")}
    read = json.loads((run / "segmenter" / "DONE").read_text())["read"]["tagged"]
    assert (read["images"], read["ids"]) == (tiny.SIZES["train"], "tags")
    assert main(["evaluate", str(run), "--data-dir", str(tiny_data), "--json"]) == 0
    *shown, last = capsys.readouterr().out.splitlines()
    again = json.loads(last)
    assert all(again[key] == figures[key] for key in ("map", "mean_f1", "per_class", "images"))
    assert f"mAP {figures['map']:.4f}  mean F1 {figures['mean_f1']:.4f}" in shown
    assert main(["train", *_file(run), "--workdir", str(run), "--data-dir", str(tiny_data)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("tags "))
    assert row.split() == ["tags", f"{figures['map']:.4f}", f"{figures['mean_f1']:.4f}", str(tiny.SIZES["val"])]


def _file(run):
    """A config file of the run's config."""
    path = run.parent / "config.py"
    path.write_text(
        "from tests.methods.test_supervised_tags import config\nfrom scarce_jax.optim import Optimizer\n"
        "config = config(optim=Optimizer(kind='adam', lr=0.01))\n"
    )
    return [str(path)]


def test_tags_predict_no_masks(finished, tiny_data):
    run, _ = finished
    with pytest.raises(InputError, match="result tags: predicts image tags, not masks"):
        runs.load(run)
    with pytest.raises(InputError, match="result tags: .* takes no --flip, --scales, --window or --crf"):
        runs.evaluate(run, views=Views(flip=True), data_dir=tiny_data)


def test_a_segmenter_takes_over_the_trunk(finished):
    run, _ = finished
    net = Net(
        module=TinySegmenter(),
        inputs=(IMAGE,),
        optim=Optimizer(lr=0.1),
        init_from=parse_origin(f"{run}:segmenter/classifier#^{weights.TRUNK}/"),
    )
    taken = take(net.init_from, state_lib.abstract_net(net), mesh_lib.make_mesh())
    assert taken.drawn == ("classifier",) and taken.facts["unused"] == ["classifier"]
    stored = tiny.stored(run)
    for name in ("params/backbone/conv1/kernel", "batch_stats/backbone/bn1/var"):
        np.testing.assert_array_equal(taken.values[name], stored[f"segmenter/classifier/{name}"])


def test_the_mean_of_a_class_activation_map_and_the_bias_are_the_logit():
    module = TagClassifier(TinyEncoder(4), 5)
    image = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    variables = module.init(jax.random.key(0), image, train=False)
    bias = jnp.arange(5.0)
    variables["params"]["classifier"]["bias"] = bias
    maps = module.apply(variables, image, method="class_activation_maps")
    assert maps.shape == (2, 16, 16, 5) and maps.dtype == jnp.float32
    logits = module.apply(variables, image, train=False)
    np.testing.assert_allclose(maps.mean((1, 2)) + bias, logits, rtol=1e-5, atol=1e-5)


def test_the_trunk_of_a_tag_classifier_is_that_of_a_pspnet():
    def shapes(module):
        variables = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(IMAGE.shape), train=False))
        return {k: v for k, v in weights.flat_shapes(variables).items() if k.split("/")[1] == "backbone"}

    ours = shapes(TagClassifier(ResNet(18, width=8), 3))
    assert len(ours) == 100 and ours == shapes(PSPNet(5, ResNet(18, width=8), 8))
