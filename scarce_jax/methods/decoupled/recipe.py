"""The recipe of the decoupled method."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage, TrainStage, as_long_as, compute_dtype, with_frequencies
from scarce_jax.methods.decoupled.figure_ground import (
    ByClass,
    PredictByClass,
    SegmentationStage,
    reestimated,
    train_segmentation,
)
from scarce_jax.methods.decoupled.pointing import SaliencyMaps, infer_pointing, pointing_table
from scarce_jax.methods.segmentation import measured, network, train_segmenter
from scarce_jax.methods.tagging import CLASSIFIER, tags_measured, train_classifier
from scarce_jax.models.deconvolution import DeconvNetConfig
from scarce_jax.models.decoupled import DecoupledClassifierConfig, SegmentationNet
from scarce_jax.ops.augment import Augment
from scarce_jax.recipe import Artifact, Eval, Infer, Net, NetState, Predict, Recipe, Train


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierStage(TrainStage):
    """Training of the classifier on image tags.

    Attributes:
      net: the classifier; the segmentation net has its width, window and convolutions.
      size: (height, width) to which whole frames are resized before augmentation, and at which tags are measured.
      augment: random changes of each image.
    """

    net: DecoupledClassifierConfig = DecoupledClassifierConfig()
    size: tuple[int, int]
    augment: Augment


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeconvNetStage(SegmenterStage):
    """Training of the baseline; with neither steps nor epochs it is as long as that of `decoupled`."""

    net: DeconvNetConfig = DeconvNetConfig()


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
    weighed = config.deconvnet or config.decoupled
    return Recipe(
        stages=with_frequencies(config, stages, weighed, len(info.classes)),
        results=results,
        tables={"pointing": pointing_table("pointing", info)},
    )


def _check(config: Config, info: DatasetInfo) -> None:
    """Raises InputError where the dataset or the size of an image does not suit the nets."""
    if info.background is None:
        raise InputError(f"decoupled: dataset {info.name} has no background class, from which objects are told apart")
    kernel = config.classifier.net.fc6_kernel
    sides = {
        "classifier.augment.crop": (config.classifier.augment.crop, kernel),
        "classifier.size": (config.classifier.size, kernel),
        "decoupled.crops.crop": (config.decoupled.crops.crop, kernel),
    }
    if config.deconvnet is not None:
        kernel = config.deconvnet.net.fc6_kernel
        sides |= {
            "deconvnet.augment.crop": (config.deconvnet.augment.crop, kernel),
            "deconvnet.size": (config.deconvnet.size, kernel),
        }
    for name, (size, kernel) in sides.items():
        _check_size(name, size, kernel)


def _check_size(name: str, size: tuple[int, int], kernel: int) -> None:
    if any(side % 32 or side < 32 * kernel for side in size):
        raise InputError(
            f"{name} is {size}; expected multiples of 32, of at least {32 * kernel} for an fc6_kernel of {kernel}"
        )


@dataclasses.dataclass(frozen=True)
class SizeChecked:
    """A prediction that names a size which its nets do not take: views of the image may have one."""

    predict: Predict
    kernel: int

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        _check_size("size of images or windows", batch["image"].shape[1:3], self.kernel)
        return self.predict(nets, batch, consts)


def _nets(config: Config, info: DatasetInfo) -> ByClass:
    net, dtype = config.classifier.net, compute_dtype(config)
    segmenter = SegmentationNet(
        width=net.width,
        hidden=config.decoupled.hidden,
        fc6_kernel=net.fc6_kernel,
        convolutions=net.convolutions,
        dtype=dtype,
    )
    return ByClass(net.build(len(info.classes) - 1, dtype), segmenter, len(info.classes), info.background)


def _strong_classifier(config: Config, module: nn.Module, background: int) -> Train:
    """The classifier's training on the images with masks alone."""
    stage = config.classifier
    if config.strong_steps is not None:
        stage = dataclasses.replace(stage, steps=config.strong_steps, epochs=None)
    train = train_classifier("strong_classifier", config, stage, module, background)
    tagged = dataclasses.replace(train.sources["tagged"], ids="fine")
    return dataclasses.replace(as_long_as(train, "classifier"), sources={"tagged": tagged}, keys_as="classifier")


def _classifier(config: Config, by_class: ByClass, stage: str) -> Net:
    """What the stage left, for images of the size at which masks are predicted."""
    images = common.image_input(config.decoupled.crops.crop)
    return common.frozen(by_class.classifier, (images,), stage, CLASSIFIER)


def _segmentation(
    stages: list[Train | Infer], name: str, config: Config, by_class: ByClass, classifier: str
) -> dict[str, Eval]:
    """Adds the stages of a segmentation net on the classifier that this stage left, and returns the result."""
    stage = config.decoupled
    net = _classifier(config, by_class, classifier)
    train = as_long_as(train_segmentation(name, config, stage, by_class, net), "decoupled")
    train = dataclasses.replace(train, keys_as=None if name == "decoupled" else "decoupled")
    stages.append(train)
    trained_in = name
    if stage.reestimate:
        trained_in = f"{name}_statistics"
        stages.append(reestimated(trained_in, config, stage, by_class, train))
    init_from = Artifact(stage=trained_in, name=SEGMENTER)
    segmenter = dataclasses.replace(train.nets[SEGMENTER], optim=None, init_from=init_from)
    result = Eval(
        name=name,
        nets={CLASSIFIER: net, SEGMENTER: segmenter},
        predict=SizeChecked(PredictByClass(by_class), config.classifier.net.fc6_kernel),
        source=dataclasses.replace(common.evaluation_source(config, stage), size=stage.crops.crop),
        maps=SaliencyMaps(by_class),
    )
    return {name: result}


def _deconvnet(stages: list[Train | Infer], config: Config, info: DatasetInfo) -> dict[str, Eval]:
    """Adds the baseline, and returns its result."""
    stage = config.deconvnet
    has_length = stage.steps is not None or stage.epochs is not None
    if not has_length:
        stage = dataclasses.replace(stage, steps=config.decoupled.steps, epochs=config.decoupled.epochs)
    module = network(config, stage, len(info.classes))
    train = train_segmenter("deconvnet", config, stage, module)
    stages.append(train if has_length else as_long_as(train, "decoupled"))
    result = measured("deconvnet", config, stage, module)
    return {"deconvnet": dataclasses.replace(result, predict=SizeChecked(result.predict, stage.net.fc6_kernel))}
