"""The decoupled method: tags of all images teach which classes there are, a few masks where any class is.

Hong, Noh, Han: "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation". Stages (* with `compare`):
`classifier`, trained on the tags of all images; `pointing`, whether its saliency lies on the classes; `decoupled`,
bridging layers and deconvolution net, trained on the few masks with the classifier frozen. The budget is meant to be
`per_class`.

`strong_classifier`* and `strong_only`* are both trained on the images with masks alone, and `deconvnet`* is one net for
all classes, trained on them for as many steps. With `decoupled.reestimate` stages `decoupled_statistics` and
`strong_only_statistics`* average batch statistics after training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER
from scarce_jax.methods.decoupled.figure_ground import (
    ByClass,
    SegmentationStage,
    predict_by_class,
    reestimated,
    train_segmentation,
)
from scarce_jax.methods.decoupled.pointing import infer_pointing, pointing_table, saliency_maps
from scarce_jax.methods.networks import compute_dtype
from scarce_jax.methods.supervised import CLASSIFIER, measured, tags_measured, train_classifier, train_segmenter
from scarce_jax.models.deconvolution import DeconvNet
from scarce_jax.models.decoupled import DecoupledClassifier, SegmentationNet
from scarce_jax.models.vgg import CONVOLUTIONS
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer
from scarce_jax.recipe import Artifact, Epochs, Eval, Infer, Net, NetState, Recipe, Train


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierStage:
    """Training of the classifier on image tags.

    Attributes:
      steps, epochs: length of training, exactly one of them.
      batch: examples per step over all devices.
      size: (height, width) to which whole frames are resized before augmentation, and at which tags are measured.
      width: channels of VGG-16's first convolutions (64 in the paper); every layer of both nets scales with it.
      hidden: channels of fc6 and fc7; None for 64 * width, the paper's 4096.
      fc6_kernel: side of fc6's window on pool5, a 32nd of the image; 7 in the paper.
      convolutions: of VGG-16's five groups, and as many deconvolutions; less for small images (see VGG16Trunk).
      batch_norm: batch normalisation in VGG-16, which has none in the paper, for training from scratch.
      dropout: rate after fc6 and fc7.
      eval_every: steps between measurements on the evaluation split while training; 0 measures nothing.
      eval_batch: images per device in evaluation and inference.
      init_from: as in `common.SegmenterStage`.
    """

    steps: int | None = None
    epochs: float | None = None
    batch: int
    size: tuple[int, int]
    augment: Augment
    width: int = 64
    hidden: int | None = None
    fc6_kernel: int = 7
    convolutions: tuple[int, int, int, int, int] = CONVOLUTIONS
    batch_norm: bool = False
    dropout: float = 0.5
    optim: Optimizer
    eval_every: int = 0
    eval_batch: int = 4
    init_from: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeconvNetStage:
    """Training of the baseline.

    Attributes:
      steps, epochs: length of training; with neither it is that of `decoupled`.
      batch: examples per step over all devices.
      size: (height, width) to which whole frames are resized before augmentation, and at which masks are predicted.
      width, hidden, fc6_kernel, convolutions: as in the classifier's stage.
      eval_every: steps between measurements on the evaluation split while training; 0 measures the result alone.
      eval_batch: images per device in evaluation and inference.
      init_from: as in `common.SegmenterStage`.
    """

    steps: int | None = None
    epochs: float | None = None
    batch: int
    size: tuple[int, int]
    augment: Augment
    width: int = 64
    hidden: int | None = None
    fc6_kernel: int = 7
    convolutions: tuple[int, int, int, int, int] = CONVOLUTIONS
    optim: Optimizer
    eval_every: int = 0
    eval_batch: int = 4
    init_from: str | None = None
    aux_weight: ClassVar[float] = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """Stages as in the module's docstring; `deconvnet=None` leaves that comparison out.

    Attributes:
      strong_steps: length of `strong_classifier`, which knows its few images by heart long before the other one is
        trained; None for as many steps as that takes.
    """

    classifier: ClassifierStage
    decoupled: SegmentationStage
    deconvnet: DeconvNetStage | None = None
    strong_steps: int | None = None


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Results `decoupled`, `strong_only`* and `deconvnet`*, and the tags of `classifier` and `strong_classifier`*.

    Table: `pointing`.
    """
    _check(config, info)
    by_class = _nets(config, info)
    classifier = by_class.classifier
    stages: list[Train | Infer] = [
        train_classifier("classifier", config, config.classifier, classifier, info.background),
        infer_pointing("pointing", config, config.decoupled, by_class, _classifier(config, by_class, "classifier")),
    ]
    results = _segmentation(stages, "decoupled", config, by_class, "classifier")
    results["classifier"] = tags_measured("classifier", config, config.classifier, classifier, "classifier")
    if config.compare:
        stages.append(_strong_classifier(config, classifier, info.background))
        results |= _segmentation(stages, "strong_only", config, by_class, "strong_classifier")
        name = "strong_classifier"
        results[name] = tags_measured(name, config, config.classifier, classifier, name)
        if config.deconvnet is not None:
            results |= _deconvnet(stages, config, info)
    return Recipe(stages=tuple(stages), results=results, tables={"pointing": pointing_table("pointing", info)})


def _check(config: Config, info: DatasetInfo) -> None:
    """Raises InputError where the dataset or the size of an image does not suit the nets, or these are no VGG-16's."""
    if info.background is None:
        raise InputError(f"decoupled: dataset {info.name} has no background class, from which objects are told apart")
    numbers = {"classifier.convolutions": config.classifier.convolutions}
    sides = {
        "classifier.augment.crop": (config.classifier.augment.crop, config.classifier.fc6_kernel),
        "classifier.size": (config.classifier.size, config.classifier.fc6_kernel),
        "decoupled.crops.crop": (config.decoupled.crops.crop, config.classifier.fc6_kernel),
    }
    if config.deconvnet is not None:
        numbers["deconvnet.convolutions"] = config.deconvnet.convolutions
        sides |= {
            "deconvnet.augment.crop": (config.deconvnet.augment.crop, config.deconvnet.fc6_kernel),
            "deconvnet.size": (config.deconvnet.size, config.deconvnet.fc6_kernel),
        }
    for name, (size, kernel) in sides.items():
        _check_size(name, size, kernel)
    for name, given in numbers.items():
        if min(given) < 1:
            raise InputError(f"{name} is {given}; expected at least 1 for each group")


def _check_size(name: str, size: tuple[int, int], kernel: int) -> None:
    if any(side % 32 or side < 32 * kernel for side in size):
        raise InputError(
            f"{name} is {size}; expected multiples of 32, of at least {32 * kernel} for an fc6_kernel of {kernel}"
        )


def _checked(result: Eval, kernel: int) -> Eval:
    """The result, which names a size that its nets do not take: views of the image may have one."""

    def predict(nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        _check_size(f"size of images or windows for result {result.name}", batch["image"].shape[1:3], kernel)
        return result.predict(nets, batch, consts)

    return dataclasses.replace(result, predict=predict)


def _nets(config: Config, info: DatasetInfo) -> ByClass:
    stage, dtype = config.classifier, compute_dtype(config)
    classifier = DecoupledClassifier(
        classes=len(info.classes) - 1,
        width=stage.width,
        hidden=stage.hidden,
        fc6_kernel=stage.fc6_kernel,
        convolutions=stage.convolutions,
        batch_norm=stage.batch_norm,
        dropout=stage.dropout,
        dtype=dtype,
    )
    segmenter = SegmentationNet(
        width=stage.width,
        hidden=config.decoupled.hidden,
        fc6_kernel=stage.fc6_kernel,
        convolutions=stage.convolutions,
        dtype=dtype,
    )
    return ByClass(classifier, segmenter, len(info.classes), info.background)


def _as_long(stage: Train, other: str) -> Train:
    """The stage with as many steps as the other one takes, whatever the number of its own images."""
    if not isinstance(stage.steps, Epochs):
        return stage
    return dataclasses.replace(stage, steps=dataclasses.replace(stage.steps, of=other))


def _strong_classifier(config: Config, module: DecoupledClassifier, background: int) -> Train:
    """The classifier's training on the images with masks alone."""
    stage = config.classifier
    if config.strong_steps is not None:
        stage = dataclasses.replace(stage, steps=config.strong_steps, epochs=None)
    train = train_classifier("strong_classifier", config, stage, module, background)
    tagged = dataclasses.replace(train.sources["tagged"], ids="fine")
    return dataclasses.replace(_as_long(train, "classifier"), sources={"tagged": tagged}, keys_as="classifier")


def _classifier(config: Config, by_class: ByClass, stage: str) -> Net:
    """What the stage left, for images of the size at which masks are predicted."""
    inputs = (common.image_input(config.decoupled.crops.crop),)
    return Net(module=by_class.classifier, inputs=inputs, init_from=Artifact(stage=stage, name=CLASSIFIER))


def _segmentation(
    stages: list[Train | Infer], name: str, config: Config, by_class: ByClass, classifier: str
) -> dict[str, Eval]:
    """Adds the stages of a segmentation net on the classifier that this stage left, and gives the result."""
    stage = config.decoupled
    net = _classifier(config, by_class, classifier)
    train = _as_long(train_segmentation(name, config, stage, by_class, net), "decoupled")
    train = dataclasses.replace(train, keys_as=None if name == "decoupled" else "decoupled")
    stages.append(train)
    left = name
    if stage.reestimate:
        left = f"{name}_statistics"
        stages.append(reestimated(left, config, stage, by_class, train))
    segmenter = dataclasses.replace(train.nets[SEGMENTER], optim=None, init_from=Artifact(stage=left, name=SEGMENTER))
    result = Eval(
        name=name,
        nets={CLASSIFIER: net, SEGMENTER: segmenter},
        predict=predict_by_class(by_class),
        source=dataclasses.replace(common.evaluation_source(config, stage), size=stage.crops.crop),
        maps=saliency_maps(by_class),
    )
    return {name: _checked(result, config.classifier.fc6_kernel)}


def _deconvnet(stages: list[Train | Infer], config: Config, info: DatasetInfo) -> dict[str, Eval]:
    """Adds the baseline, and gives its result."""
    stage = config.deconvnet
    own = stage.steps is not None or stage.epochs is not None
    if not own:
        stage = dataclasses.replace(stage, steps=config.decoupled.steps, epochs=config.decoupled.epochs)
    module = DeconvNet(
        classes=len(info.classes),
        width=stage.width,
        hidden=stage.hidden,
        fc6_kernel=stage.fc6_kernel,
        convolutions=stage.convolutions,
        dtype=compute_dtype(config),
    )
    train = train_segmenter("deconvnet", config, stage, module, ids="fine", labels=("fine",))
    stages.append(train if own else _as_long(train, "decoupled"))
    return {"deconvnet": _checked(measured("deconvnet", config, stage, module), stage.fc6_kernel)}
