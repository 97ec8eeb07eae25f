"""Auxiliary confidence: a second net judges each pixel of a segmentation net, and trusted pixels become labels.

"Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review). Stages (* with `compare`):
`frequencies` and `segmenter` on the labelled images; `statistics`: which classes it has right there; `auxiliary`,
trained on the frozen segmenter's probability maps; `selection`: how good the kept pixels of the evaluation split are
(tables 3 and 4); `pseudo_labels` of every unlabelled image, class and confidence; `semi`, trained on both (section 3.1,
third stage).

`labelled_long`* trains on the labelled images for as many steps as `semi` takes, `all_labels`* on the true masks of all
images, and `adversarial`* is the method of Hung et al. on the same budget. They start where `semi` does, and draw order
as it does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.losses import auxiliary_loss, correctness_balance, correctness_counts, inverse_log_weights
from scarce_jax.methods import common
from scarce_jax.methods.adversarial import AdversarialStage, train_adversarial
from scarce_jax.methods.common import SEGMENTER, SegmenterStage
from scarce_jax.methods.networks import compute_dtype, full_size_network, network
from scarce_jax.methods.selection import selection_histograms, selection_tables
from scarce_jax.methods.supervised import measured, train_segmenter
from scarce_jax.models.auxiliary import AuxiliaryNet
from scarce_jax.ops.warp import Augment
from scarce_jax.training.optim import Optimizer
from scarce_jax.training.recipe import (
    Artifact,
    Confident,
    Epochs,
    Infer,
    Mean,
    Net,
    NetState,
    Out,
    Recipe,
    Train,
    Turn,
)

AUXILIARY = "auxiliary"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuxiliaryStage:
    """Training of the auxiliary net (section 3.3); the segmenter is frozen.

    Attributes:
      steps, epochs: length of training, exactly one of them.
      batch, size, augment: as in the segmenter's stage.
      width: channels of its first convolution (32 in table 1); every layer scales with it.
      weighting: c of W = 1 / ln(c + p_class) in equation 1; None is W = 1.
      scope: over what gamma counts wrong and right pixels (see `losses.auxiliary_loss`); "none" is gamma = 1. With
        both the confidence is relative to what is usual for a class; with neither it is the probability of being right.
    """

    steps: int | None = None
    epochs: float | None = None
    batch: int
    size: tuple[int, int]
    augment: Augment
    width: int = 32
    optim: Optimizer
    weighting: float | None = 1.04
    scope: Literal["labelled_set", "batch", "none"] = "labelled_set"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SemiStage(SegmenterStage):
    """Training on labelled and pseudo-labelled images.

    Attributes:
      threshold: T_aux, the confidence from which a pixel of an unlabelled image is a label; 0.9 in the paper.
      start: from the initial values that `segmenter` had, or from what it became; so do the stages
        that it is compared with. The paper does not say.
      labelled_batch: so many images of every batch are labelled ones, and the others pseudo-labelled. None draws all
        from one shuffled union, as in the paper; of few labelled images a batch then has few.
    """

    threshold: float = 0.9
    start: Literal["initial", "segmenter"] = "initial"
    labelled_batch: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """Stages as in the module's docstring; `adversarial=None` leaves that comparison out.

    Attributes:
      class_weighting: c of the class weights 1 / ln(c + p_class) in every cross-entropy (1.1 in section 4.2); None
        weighs all pixels alike.
      thresholds: rows of the selection table.
    """

    segmenter: SegmenterStage
    auxiliary: AuxiliaryStage
    semi: SemiStage
    adversarial: AdversarialStage | None = None
    class_weighting: float | None = 1.1
    thresholds: tuple[float, ...] = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Results `semi`, `labelled_only` (the segmenter) and one per starred stage; tables `selection*`."""
    classes = len(info.classes)
    module = full_size_network(config, config.segmenter, classes, "segmenter")
    student = network(config, config.semi, classes)
    judge = AuxiliaryNet(classes=classes, width=config.auxiliary.width, dtype=compute_dtype(config))
    nets = _trained(config, module, judge)
    weighting = {"class_weighting": config.class_weighting}
    stages: list[Train | Infer] = [
        common.class_frequencies(config, config.segmenter, classes),
        train_segmenter("segmenter", config, config.segmenter, module, ids="fine", labels=("fine",), **weighting),
        _statistics(config, module, classes),
        _train_auxiliary(config, module, judge),
        _selection(config, nets, module, judge, classes),
        _pseudo_labels(config, nets, module, judge),
        _semi(config, student),
    ]
    results = {
        "semi": measured("semi", config, config.semi, student),
        "labelled_only": measured("labelled_only", config, config.segmenter, module, trained_in="segmenter"),
    }
    if config.compare:
        compared = {"labelled_long": "fine", "all_labels": "all"}
        # Without the threshold, which would make them other stages.
        fields = {field.name: getattr(config.semi, field.name) for field in dataclasses.fields(SegmenterStage)}
        plain = SegmenterStage(**fields)
        for name, ids in compared.items():
            stage = train_segmenter(
                name, config, plain, student, ids=ids, labels=("fine",), keys_as="segmenter", **weighting
            )
            if isinstance(stage.steps, Epochs):
                # As many steps as `semi` takes, whatever the number of images.
                stage = dataclasses.replace(stage, steps=dataclasses.replace(stage.steps, of="semi"))
            stages.append(_started(config, stage))
            results[name] = measured(name, config, config.semi, student)
        if config.adversarial is not None:
            rival = full_size_network(config, config.adversarial, classes, "adversarial")
            stage = train_adversarial(
                config, config.adversarial, rival, classes, config.class_weighting, keys_as="segmenter"
            )
            stages.append(_started(config, stage))
            results["adversarial"] = measured("adversarial", config, config.adversarial, rival)
    return Recipe(stages=tuple(stages), results=results, tables=selection_tables("selection", config.thresholds, info))


def _trained(config: Config, module: nn.Module, judge: nn.Module) -> dict[str, Net]:
    size = config.segmenter.size
    return {
        SEGMENTER: Net(
            module=module,
            inputs=(common.image_input(size),),
            init_from=Artifact(stage="segmenter", name=SEGMENTER),
        ),
        AUXILIARY: Net(
            module=judge, inputs=(_map_input(config, judge),), init_from=Artifact(stage="auxiliary", name=AUXILIARY)
        ),
    }


def _map_input(config: Config, judge: nn.Module) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *config.auxiliary.size, judge.classes), jnp.float32)


def _probabilities(module: nn.Module, nets: Mapping[str, NetState], images: jax.Array) -> jax.Array:
    """The frozen segmenter's class probabilities, float32 [B, H, W, K]."""
    logits, _ = module.apply(nets[SEGMENTER].variables, images, train=False)
    return jax.nn.softmax(logits.astype(jnp.float32))


def _judgement(module: nn.Module, judge: nn.Module) -> Callable:
    """`(nets, images) -> (probabilities [B, H, W, K], confidence logits [B, H, W])`, both float32."""

    def apply(nets: Mapping[str, NetState], images: jax.Array) -> tuple[jax.Array, jax.Array]:
        probabilities = _probabilities(module, nets, images)
        return probabilities, judge.apply(nets[AUXILIARY].variables, probabilities, train=False).astype(jnp.float32)

    return apply


def _statistics(config: Config, module: nn.Module, classes: int) -> Infer:
    """Shares of right and wrong pixels of each true class on the labelled images, for gamma (equation 1)."""

    def predict(nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        found = _probabilities(module, nets, batch["image"]).argmax(-1).astype(jnp.uint8)
        right, wrong = correctness_counts(found, batch["label"], classes)
        pixels = found.shape[1] * found.shape[2]
        return {"right": right / pixels, "wrong": wrong / pixels}

    source = common.inference_source(config, config.segmenter, ids="fine", labels=("fine",))
    net = Net(
        module=module,
        inputs=(common.image_input(config.segmenter.size),),
        init_from=Artifact(stage="segmenter", name=SEGMENTER),
    )
    return Infer(
        name="statistics",
        nets={SEGMENTER: net},
        predict=predict,
        source=source,
        settings={"size": config.segmenter.size},
        write=Mean(),
    )


def _train_auxiliary(config: Config, module: nn.Module, judge: nn.Module) -> Train:
    stage = config.auxiliary

    def loss(params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch["labelled"]
        probabilities = _probabilities(module, nets, rows["image"])
        variables = {"params": params, "batch_stats": nets[AUXILIARY].stats}
        logits, updated = judge.apply(variables, probabilities, train=True, mutable=["batch_stats"])
        predictions = probabilities.argmax(-1).astype(rows["label"].dtype)
        alike = jnp.ones_like(shared["p_class"])
        value = auxiliary_loss(
            logits,
            predictions,
            rows["label"],
            class_weights=alike if stage.weighting is None else inverse_log_weights(shared["p_class"], stage.weighting),
            gamma=alike if stage.scope == "none" else correctness_balance(shared["right"], shared["wrong"]),
            scope="batch" if stage.scope == "batch" else "labelled_set",
        )
        metrics = {"confidence": jax.nn.sigmoid(logits).mean()}
        return value, Out(metrics=metrics, stats={AUXILIARY: updated["batch_stats"]})

    nets = _trained(config, module, judge)
    return Train(
        name="auxiliary",
        nets={
            SEGMENTER: nets[SEGMENTER],
            AUXILIARY: dataclasses.replace(nets[AUXILIARY], optim=stage.optim, init_from=None),
        },
        turns=(Turn(net=AUXILIARY, loss=loss),),
        sources={"labelled": common.training_source(config, batch=stage.batch, size=stage.size, augment=stage.augment)},
        steps=common.length(stage, "auxiliary"),
        settings=stage,
        consts={
            "p_class": Artifact(stage="frequencies", name="p_class"),
            "right": Artifact(stage="statistics", name="right"),
            "wrong": Artifact(stage="statistics", name="wrong"),
        },
    )


def _selection(config: Config, nets: dict[str, Net], module: nn.Module, judge: nn.Module, classes: int) -> Infer:
    judgement = _judgement(module, judge)

    def predict(nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        probabilities, confidence = judgement(nets, batch["image"])
        return selection_histograms(probabilities, confidence, batch["label"], config.thresholds)

    return Infer(
        name="selection",
        nets=nets,
        predict=predict,
        source=common.evaluation_source(config, config.segmenter),
        settings={"size": config.segmenter.size, "thresholds": config.thresholds},
        write=Mean(),
    )


def _pseudo_labels(config: Config, nets: dict[str, Net], module: nn.Module, judge: nn.Module) -> Infer:
    """Class and confidence of the unlabelled images, not augmented; no threshold yet.

    The confidence, 0..255, is rounded down, so that a threshold of 1 selects nothing that is not certain.
    """
    judgement = _judgement(module, judge)

    def predict(nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        probabilities, confidence = judgement(nets, batch["image"])
        return {
            "label": probabilities.argmax(-1).astype(jnp.uint8),
            "confidence": jnp.floor(jax.nn.sigmoid(confidence) * 255).astype(jnp.uint8),
        }

    return Infer(
        name="pseudo_labels",
        nets=nets,
        predict=predict,
        source=common.inference_source(config, config.segmenter, ids="unlabelled"),
        settings={"size": config.segmenter.size},
    )


def _semi(config: Config, student: nn.Module) -> Train:
    pseudo = Artifact(stage="pseudo_labels", name="label")
    trusted = Confident(
        label=pseudo,
        confidence=Artifact(stage="pseudo_labels", name="confidence"),
        threshold=config.semi.threshold,
    )
    apart = config.semi.labelled_batch
    stage = train_segmenter(
        "semi",
        config,
        config.semi,
        student,
        ids=("fine", pseudo) if apart is None else pseudo,
        labels=("fine", trusted) if apart is None else (trusted,),
        keys_as="segmenter",
        class_weighting=config.class_weighting,
    )
    return _started(config, stage if apart is None else _with_labelled(stage, apart))


def _with_labelled(stage: Train, labelled: int) -> Train:
    """The stage, `labelled` images of whose batch are labelled ones.

    Raises:
      InputError: there are not so many images in a batch, or the others are none.
    """
    source, (turn,) = stage.sources["labelled"], stage.turns
    if not 0 < labelled < source.batch:
        raise InputError(f"semi.labelled_batch is {labelled}; expected from 1 to semi.batch - 1, {source.batch - 1}")
    sources = {
        "pseudo": dataclasses.replace(source, batch=source.batch - labelled),
        "labelled": dataclasses.replace(source, ids="fine", labels=("fine",), batch=labelled),
    }

    def loss(params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        together = jax.tree.map(lambda *rows: jnp.concatenate(rows), *(batch[name] for name in sources))
        return turn.loss(params, nets, {"labelled": together}, shared, key)

    return dataclasses.replace(stage, sources=sources, turns=(dataclasses.replace(turn, loss=loss),))


def _started(config: Config, stage: Train) -> Train:
    """The stage, with its net started from where the config says that `semi` starts."""
    if config.semi.start == "initial":
        return stage
    start = Artifact(stage="segmenter", name=SEGMENTER)
    segmenter = dataclasses.replace(stage.nets[SEGMENTER], init_from=start)
    return dataclasses.replace(stage, nets={**stage.nets, SEGMENTER: segmenter})
