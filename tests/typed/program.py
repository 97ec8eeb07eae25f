"""A program as a user writes it, for mypy --strict alone: it is never run. No public name has the type Any."""

import pathlib
from collections.abc import Iterator
from typing import Any, assert_type

import numpy as np

import scarce_jax
from scarce_jax import InputError, evaluate, load, predict, replay, train
from scarce_jax.data.budget import Budget
from scarce_jax.evaluation.predict import PredictedMaps, Prediction, Predictor
from scarce_jax.methods import supervised
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer
from scarce_jax.recipe import Views
from scarce_jax.shipped import variables

RUN = pathlib.Path("runs/mine")

config = supervised.Config(
    dataset="scenes",
    budget=Budget(fine=50),
    segmenter=SegmenterStage(
        steps=300,
        batch=4,
        size=(192, 192),
        augment=Augment(crop=(128, 128)),
        net=PSPNetConfig(backbone=ResNetConfig(depth=18)),
        optim=Optimizer(kind="adam", lr=2e-3),
    ),
)
assert_type(config.budget, Budget)
assert_type(config.segmenter.size, tuple[int, int])
supervised.Config(dataset=1)  # type: ignore[call-arg, arg-type]

assert_type(variables("detailer_scenes"), dict[str, Any])
assert_type(train(config, RUN, data_dir="data", reuse=[RUN, "other"]), dict[str, Any])
assert_type(evaluate(str(RUN), "segmenter", views=Views(flip=True)), dict[str, Any])
assert_type(predict(RUN, [RUN / "a.png"], "out", coarse="coarse"), dict[str, Any])
assert_type(replay(RUN), dict[str, Any])
train(config, 1)  # type: ignore[arg-type]
evaluate(RUN, flip=True)  # type: ignore[call-arg]
scarce_jax.trian(config)  # type: ignore[attr-defined]

predictor = load(RUN)
assert_type(predictor, Predictor)
assert_type(predictor.name, str)
assert_type(predictor.map_names, tuple[str, ...])
assert_type(predictor.size, tuple[int, int] | None)
assert_type(predictor.batch, int)
assert_type(predictor.classes, tuple[str, ...])
assert_type(predictor.palette, tuple[tuple[int, int, int], ...])
assert_type(predictor.native_ids, tuple[int, ...] | None)
assert_type(predictor.void_ids, tuple[int, ...])
assert_type(predictor.devices, int)
assert_type(predictor.variables, dict[str, Any])
assert_type(predictor.needs_coarse, bool)

image = np.zeros((192, 256, 3), np.uint8)
mask: np.ndarray = predictor.predict(image)
predictor.predict("a.png")  # type: ignore[arg-type]
assert_type(predictor.probabilities(image, coarse=mask), np.ndarray)
assert_type(predictor.maps(image), np.ndarray)


def row(number: int) -> tuple[dict[str, np.ndarray] | None, str]:
    return predictor.row(image, None), f"image {number}"


streamed = predictor.stream(row, count=2, threads=1)
assert_type(streamed, Iterator[tuple[int, str, Prediction | PredictedMaps | None]])
for _, name, prediction in streamed:
    assert_type(name, str)
    if isinstance(prediction, Prediction):
        assert_type(prediction.labels, np.ndarray)
        assert_type(prediction.confidence, np.ndarray)

try:
    load("nowhere")
except InputError as error:
    assert_type(error, InputError)
