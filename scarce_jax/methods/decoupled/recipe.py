"""Recipe of the method `decoupled`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, CachedStage, SegmenterStage, as_long_as, compute_dtype
from scarce_jax.methods.decoupled.figure_ground import (
    ByClass,
    MapsByClass,
    PredictByClass,
    SegmentationStage,
    reestimated,
    train_segmentation,
)
from scarce_jax.methods.decoupled.pointing import BridgingMaps, SaliencyMaps, infer_pointing, pointing_table
from scarce_jax.methods.frequencies import with_frequencies
from scarce_jax.methods.inputs import evaluation_source, net_inputs
from scarce_jax.methods.segmentation import measured, network, train_segmenter
from scarce_jax.methods.tagging import CLASSIFIER, tags_measured, train_classifier
from scarce_jax.models.deconvolution import DeconvNetConfig
from scarce_jax.models.decoupled import DecoupledClassifierConfig
from scarce_jax.models.vgg import VGGConfig
from scarce_jax.ops.resize import resize_bilinear
from scarce_jax.ranges import Count
from scarce_jax.recipe import Artifact, Eval, Maps, Net, NetState, Predict, Recipe, Stage, Train


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierStage(CachedStage):
    """Settings of the classifier's training on image tags.

    Attributes:
      net: the classifier. The segmentation net has the same width and fc6_kernel.
    """

    net: DecoupledClassifierConfig = DecoupledClassifierConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeconvNetStage(SegmenterStage):
    """Settings of the baseline's training. Without steps and epochs it is as long as that of `decoupled`."""

    net: DeconvNetConfig = DeconvNetConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """Config of the method `decoupled`.

    Attributes:
      classifier: training of the classifier.
      decoupled: training of bridging layers and deconvolution net.
      deconvnet: training of the baseline DeconvNet, with `compare`; None omits it.
      strong_steps: steps of `strong_classifier`, which overfits its few images early; None is as many as `classifier`.
    """

    classifier: ClassifierStage
    decoupled: SegmentationStage
    deconvnet: DeconvNetStage | None = None
    strong_steps: Count | None = None


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Results `decoupled`, `classifier` (its tags) and those of `compare`; table `pointing`.

    With `compare` there are also `strong_only`, `strong_classifier` (its tags) and `deconvnet`. Maps with one map a
    class are `class_maps` (M_f of the classes that are found, and M_b, figure 3), `bridging` (figure 2) and `saliency`.
    """
    _check(config, info)
    net, dtype, classes = config.classifier.net, compute_dtype(config), len(info.classes)
    stage = config.decoupled
    segmenter = net.segmentation_net(stage.hidden, stage.deconvolutions, stage.width, dtype)
    by_class = ByClass(net.build(classes - 1, dtype), segmenter, classes, info.background)
    classifier = _classifier(config, by_class, "classifier")
    segmentation, result = _segmentation("decoupled", config, by_class, "classifier")
    stages = [
        train_classifier("classifier", config, config.classifier, by_class.classifier, info.background),
        infer_pointing("pointing", config, config.decoupled, by_class, classifier),
        *segmentation,
    ]
    results = {"decoupled": result, "classifier": _measured_tags("classifier", config, by_class)}
    if config.compare:
        segmentation, results["strong_only"] = _segmentation("strong_only", config, by_class, "strong_classifier")
        stages += [_strong_classifier(config, by_class), *segmentation]
        results["strong_classifier"] = _measured_tags("strong_classifier", config, by_class)
        if config.deconvnet is not None:
            train, results["deconvnet"] = _deconvnet(config, classes)
            stages.append(train)
    return Recipe(
        stages=with_frequencies(config, stages, config.deconvnet or config.decoupled, classes),
        results=results,
        tables={"pointing": pointing_table("pointing", info)},
        maps=_maps(result, by_class, config.classifier.net.fc6_kernel, info.classes),
    )


def _check(config: Config, info: DatasetInfo) -> None:
    """Raises InputError if the dataset, a width or a size of images does not suit the nets."""
    if info.background is None:
        raise InputError(f"decoupled: dataset {info.name} has no background class; use a dataset that has one")
    if config.decoupled.width is not None and isinstance(config.classifier.net.backbone, VGGConfig):
        raise InputError(
            f"decoupled.width is {config.decoupled.width}; expected None on a VGG-16, whose switches fix the channels; "
            "set classifier.net.backbone.width, or classifier.net.backbone to resnet"
        )
    kernel = config.classifier.net.fc6_kernel
    _check_size("classifier.augment.crop", config.classifier.augment.crop, kernel)
    _check_size("classifier.size", config.classifier.size, kernel)
    _check_size("decoupled.crops.crop", config.decoupled.crops.crop, kernel)
    if config.deconvnet is not None:
        kernel = config.deconvnet.net.fc6_kernel
        _check_size("deconvnet.augment.crop", config.deconvnet.augment.crop, kernel)
        _check_size("deconvnet.size", config.deconvnet.size, kernel)


def _check_size(name: str, size: tuple[int, int], kernel: int) -> None:
    if any(side % 32 or side < 32 * kernel for side in size):
        raise InputError(
            f"{name} is {size}; expected multiples of 32, each at least {32 * kernel} for an fc6_kernel of {kernel}"
        )


@dataclasses.dataclass(frozen=True)
class SizeChecked:
    """A prediction that raises InputError for images or windows of a size that the net does not accept."""

    predict: Predict
    kernel: int

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        _check_size("size of images or windows", batch["image"].shape[1:3], self.kernel)
        return self.predict(nets, batch, consts)


@dataclasses.dataclass(frozen=True)
class AtImageSize:
    """Maps [B, H, W, K] at the size of the images, from those of a coarser grid whose cells tile the image."""

    predict: Predict

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        maps = self.predict(nets, batch, consts)
        return resize_bilinear(maps, batch["image"].shape[1:3], align_corners=False)


def _classifier(config: Config, by_class: ByClass, stage: str) -> Net:
    """The classifier of an earlier stage, for images of the size at which masks are predicted."""
    return common.frozen(by_class.classifier, net_inputs(config.decoupled.crops.crop), stage, CLASSIFIER)


def _strong_classifier(config: Config, by_class: ByClass) -> Train:
    """Stage `strong_classifier`: the classifier's training on only the images with masks."""
    stage = config.classifier
    if config.strong_steps is not None:
        stage = dataclasses.replace(stage, steps=config.strong_steps, epochs=None)
    train = train_classifier("strong_classifier", config, stage, by_class.classifier, by_class.background)
    tagged = dataclasses.replace(train.sources["tagged"], ids="fine")
    return dataclasses.replace(as_long_as(train, "classifier"), sources={"tagged": tagged}, keys_as="classifier")


def _deconvnet(config: Config, classes: int) -> tuple[Train, Eval]:
    """Stage and result `deconvnet`."""
    stage = config.deconvnet
    has_length = stage.steps is not None or stage.epochs is not None
    if not has_length:
        stage = dataclasses.replace(stage, steps=config.decoupled.steps, epochs=config.decoupled.epochs)
    module = network(config, stage, classes)
    train = train_segmenter("deconvnet", config, stage, module)
    result = measured("deconvnet", config, stage, module)
    result = dataclasses.replace(result, predict=SizeChecked(result.predict, stage.net.fc6_kernel))
    return train if has_length else as_long_as(train, "decoupled"), result


def _measured_tags(name: str, config: Config, by_class: ByClass) -> Eval:
    return tags_measured(name, config, config.classifier, by_class.classifier, name)


def _segmentation(name: str, config: Config, by_class: ByClass, classifier: str) -> tuple[list[Stage], Eval]:
    """The stages that train a segmentation net with the classifier of the stage `classifier`, and the result."""
    settings, net = config.decoupled, _classifier(config, by_class, classifier)
    train = as_long_as(train_segmentation(name, config, settings, by_class, net), "decoupled")
    stages = [dataclasses.replace(train, keys_as=None if name == "decoupled" else "decoupled")]
    if settings.reestimate:
        stages.append(reestimated(f"{name}_statistics", config, settings, by_class, train))
    init_from = Artifact(stage=stages[-1].name, name=SEGMENTER)
    result = Eval(
        name=name,
        nets={CLASSIFIER: net, SEGMENTER: dataclasses.replace(train.nets[SEGMENTER], optim=None, init_from=init_from)},
        predict=SizeChecked(PredictByClass(by_class), config.classifier.net.fc6_kernel),
        source=evaluation_source(config, settings, size=settings.crops.crop),
    )
    return stages, result


def _maps(result: Eval, by_class: ByClass, kernel: int, classes: tuple[str, ...]) -> dict[str, Maps]:
    """What the nets of the result `decoupled` make of an image, class by class."""
    predicts = {
        "class_maps": MapsByClass(by_class),
        "bridging": BridgingMaps(by_class),
        "saliency": SaliencyMaps(by_class),
    }
    return {
        name: Maps(
            name=name,
            names=classes,
            nets=result.nets,
            predict=SizeChecked(AtImageSize(predict), kernel),
            source=result.source,
        )
        for name, predict in predicts.items()
    }
