"""The recipe of label and prediction transfer."""

from __future__ import annotations

import dataclasses

import flax.linen as nn

from scarce_jax.cpu.diffusion import Diffusion
from scarce_jax.data.categories import expand
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.methods import common
from scarce_jax.methods.common import SegmenterStage, as_long_as, compute_dtype, with_frequencies
from scarce_jax.methods.segmentation import measured, network, train_segmenter
from scarce_jax.methods.tagging import train_classifier
from scarce_jax.methods.transfer.lnet import infer_label_maps, train_lnet
from scarce_jax.methods.transfer.pnet import (
    AdversarialStage,
    PNetStage,
    make_judge,
    train_adversarial,
    train_pnet,
    without_pnet,
)
from scarce_jax.methods.transfer.pnet_accuracy import infer_judgement, judgement_table
from scarce_jax.recipe import Artifact, Eval, Infer, Recipe, Source, Train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """Stages as in the module's docstring; `budget.strong_categories` names the categories that have masks.

    Attributes:
      cam: the classifier, on the trunk of the net that it names.
      lnet: a net of one output; `eval_every` stays 0. Label maps are made at its size.
      diffusion: settings of the self-diffusion; the background is the dataset's.
      segmenter: the segmentation net, which `adversarial` goes on with.
      pnet: P-Net alone.
      adversarial: both.
    """

    cam: SegmenterStage
    lnet: SegmenterStage
    diffusion: Diffusion = Diffusion()
    segmenter: SegmenterStage
    pnet: PNetStage
    adversarial: AdversarialStage


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Results `pnet` (the segmenter of `adversarial`), `lnet` (of `segmenter`), `label_maps`, and starred ones.

    Each has the figures `miou_strong` and `miou_weak`, over these categories without the background. Label maps are
    measured on their own images, whose masks no stage reads.
    """
    groups = categories(config, info)
    classes, stage = len(info.classes), config.segmenter
    module = network(config, stage, classes)
    cam = config.cam.net.classifier(classes - 1, compute_dtype(config))
    lnet = network(config, config.lnet, 1)
    judge = make_judge(config, config.pnet, stage, info.background)
    diffusion = dataclasses.replace(config.diffusion, background=info.background)
    segmenter = _train_on_maps("segmenter", "label_maps", config, module)
    labelled = segmenter.sources["labelled"]

    def train_both(name: str, both: AdversarialStage, pretrained: bool = True) -> Train:
        return train_adversarial(name, config, both, stage, module, judge, labelled, pretrained=pretrained)

    stages: list[Train | Infer] = [
        train_classifier("cam", config, config.cam, cam, info.background),
        train_lnet(config, config.lnet, lnet, info.background),
        infer_label_maps("label_maps", config, config.lnet, cam, lnet, diffusion, info),
        segmenter,
        train_pnet(config, config.pnet, stage, module, judge),
        infer_judgement(config, config.pnet, stage, module, judge, groups["weak"]),
        train_both("adversarial", config.adversarial),
    ]
    results = {
        "pnet": measured("pnet", config, stage, module, trained_in="adversarial"),
        "lnet": measured("lnet", config, stage, module, trained_in="segmenter"),
        "label_maps": _measured_maps("label_maps", config),
    }
    if config.compare:
        unopposed = train_both("lambda_zero", dataclasses.replace(config.adversarial, lambda_adv=0.0))
        compared = [
            _plain("strong_only", "fine", config, module),
            infer_label_maps("cam_maps", config, config.lnet, cam, None, diffusion, info),
            _train_on_maps("cam_only", "cam_maps", config, module),
            _plain("all_labels", "all", config, module),
            without_pnet(unopposed, stage),
            train_both("pnet_scratch", config.adversarial, pretrained=False),
        ]
        stages += compared
        results |= {
            other.name: measured(other.name, config, stage, module)
            if isinstance(other, Train)
            else _measured_maps(other.name, config)
            for other in compared
        }
    return Recipe(
        stages=with_frequencies(config, stages, stage, classes),
        results={name: dataclasses.replace(result, groups=groups) for name, result in results.items()},
        tables={"pnet": judgement_table()},
    )


def categories(config: Config, info: DatasetInfo) -> dict[str, tuple[int, ...]]:
    """Class ids of the "strong" and of the "weak" categories; the background is neither.

    Raises:
      InputError: there is no background, a strong category is unknown, or there are no strong or no weak ones.
    """
    if info.background is None:
        raise InputError(f"transfer: dataset {info.name} has no background class, from which objects are told apart")
    names = expand(config.budget.strong_categories)
    unknown = [name for name in names if name not in info.classes]
    objects = [k for k in range(len(info.classes)) if k != info.background]
    strong = tuple(k for k in objects if info.classes[k] in names)
    weak = tuple(k for k in objects if info.classes[k] not in names)
    if unknown or not strong or not weak:
        raise InputError(
            f"budget.strong_categories is {names}; expected some, but not all, of "
            f"{', '.join(info.classes[k] for k in objects)}"
        )
    return {"strong": strong, "weak": weak}


def _train_on_maps(name: str, maps: str, config: Config, module: nn.Module) -> Train:
    """The segmenter on the masks of strong images and on the label maps of all others."""
    label = Artifact(stage=maps, name="label")
    return train_segmenter(
        name,
        config,
        config.segmenter,
        module,
        ids=("fine", label),
        labels=("fine", label),
        keys_as="segmenter",
    )


def _plain(name: str, ids: str, config: Config, module: nn.Module) -> Train:
    """The segmenter on true masks, for as many steps as with label maps."""
    return as_long_as(
        train_segmenter(name, config, config.segmenter, module, ids=ids, keys_as="segmenter"), "segmenter"
    )


def _measured_maps(name: str, config: Config) -> Eval:
    """The label maps of a stage against the masks of their images, which the budget grants to no stage."""
    maps = Artifact(stage=name, name="label")
    source = Source(
        dataset=config.dataset,
        split=config.train_split,
        ids=maps,
        labels=("fine",),
        batch=config.lnet.eval_batch,
        size=config.lnet.size,
        transform=common.unaugmented,
    )
    return Eval(name=name, predict=None, source=source, inferred=maps, hidden_truth=True)
