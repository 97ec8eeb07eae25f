"""Recipe of the method `transfer`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import flax.linen as nn

from scarce_jax.cpu.diffusion import Diffusion
from scarce_jax.data.categories import expand
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage, as_long_as, compute_dtype
from scarce_jax.methods.frequencies import with_frequencies
from scarce_jax.methods.segmentation import measured, measured_records, network, segmentation_loss, train_segmenter
from scarce_jax.methods.tagging import train_classifier
from scarce_jax.methods.transfer.lnet import infer_label_maps, objectness_map, train_lnet
from scarce_jax.methods.transfer.pnet import PNET, AdversarialStage, PNetStage, train_adversarial, train_pnet
from scarce_jax.methods.transfer.pnet_accuracy import infer_judgement, judgement_table
from scarce_jax.methods.transfer.pnet_masks import PNetJudge
from scarce_jax.models.pnet import PNet
from scarce_jax.recipe import Artifact, Eval, Infer, Recipe, Train, Turn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """Config of the method `transfer`. The strong categories are in `budget.strong_categories`.

    Attributes:
      cam: training of the tag classifier on the trunk of `cam.net`.
      lnet: training of the L-Net, a net with one output; `eval_every` must be 0. Label maps have its image size.
      diffusion: settings of the self-diffusion; its `background` is taken from the dataset.
      segmenter: training of the segmentation net on masks and label maps.
      pnet: training of the P-Net alone.
      adversarial: training of segmenter and P-Net against each other.
    """

    cam: SegmenterStage
    lnet: SegmenterStage
    diffusion: Diffusion = Diffusion()
    segmenter: SegmenterStage
    pnet: PNetStage
    adversarial: AdversarialStage

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        for name in ("pnet", "adversarial"):
            stage = getattr(self, name)
            if self.pnet.mismatched and stage.batch // stage.accumulate < 2:
                yield f"{name}.batch", "at least 2 for each of its parts (accumulate) with pnet.mismatched"


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Results `pnet` (the segmenter of `adversarial`), `lnet` (of `segmenter`), `label_maps` and those of `compare`.

    With `compare` there is one more result for each starred stage. All results have the figures `miou_strong` and
    `miou_weak`, over the strong and the weak categories without the background, and `miou_weak_and_background`. Label
    maps are measured on their own images, whose true masks no other stage reads.

    The maps `lnet_map` are those of the L-Net itself.
    """
    groups = categories(config, info)
    classes, stage = len(info.classes), config.segmenter
    module = network(config, stage, classes)
    cam = config.cam.net.classifier(classes - 1, compute_dtype(config))
    lnet = network(config, config.lnet, 1)
    side = config.pnet.side
    size = stage.augment.crop if side is None else (side, side)
    pnet = PNet(width=config.pnet.width, dtype=compute_dtype(config))
    options = {name: getattr(config.pnet, name) for name in ("mask", "mismatched", "false_positives")}
    judge = PNetJudge(pnet, size, config.pnet.categories, info.background, **options)
    diffusion = dataclasses.replace(config.diffusion, background=info.background)
    segmenter = _train_on_maps("segmenter", "label_maps", config, module)
    opposed = train_adversarial(config, config.adversarial, stage, module, judge, segmenter.sources["labelled"])
    stages: list[Train | Infer] = [
        train_classifier("cam", config, config.cam, cam, info.background),
        train_lnet(config, config.lnet, lnet, info.background),
        infer_label_maps("label_maps", config, config.lnet, cam, lnet, diffusion, info),
        segmenter,
        train_pnet(config, config.pnet, stage, module, judge),
        infer_judgement(config, config.pnet, stage, module, judge, groups["weak"]),
        opposed,
    ]
    results = {
        "pnet": measured("pnet", config, stage, module, trained_in="adversarial"),
        "lnet": measured("lnet", config, stage, module, trained_in="segmenter"),
        "label_maps": _measured_maps("label_maps", config),
    }
    if config.compare:
        unopposed, alone = {SEGMENTER: opposed.nets[SEGMENTER]}, {"labelled": opposed.sources["labelled"]}
        plain = Turn(net=SEGMENTER, loss=segmentation_loss(module, stage))
        scratch = {**opposed.nets, PNET: dataclasses.replace(opposed.nets[PNET], init_from=None)}
        compared = [
            _train_on_masks("strong_only", "fine", config, module),
            infer_label_maps("cam_maps", config, config.lnet, cam, None, diffusion, info),
            _train_on_maps("cam_only", "cam_maps", config, module),
            _train_on_masks("all_labels", "all", config, module),
            # With lambda = 0 the P-Net does not change the segmenter. Leaving it out halves the time of a step.
            dataclasses.replace(opposed, name="lambda_zero", nets=unopposed, turns=(plain,), sources=alone),
            dataclasses.replace(opposed, name="pnet_scratch", nets=scratch),
        ]
        stages += compared
        results |= {
            other.name: measured(other.name, config, stage, module)
            if isinstance(other, Train)
            else _measured_maps(other.name, config)
            for other in compared
        }
    # Where the strong categories are those of another dataset, the weak ones and the background are the whole task.
    groups["weak_and_background"] = (info.background, *groups["weak"])
    return Recipe(
        stages=with_frequencies(config, stages, stage, classes),
        results={name: dataclasses.replace(result, groups=groups) for name, result in results.items()},
        tables={"pnet": judgement_table()},
        maps={"lnet_map": objectness_map("lnet_map", config, config.lnet, lnet)},
    )


def categories(config: Config, info: DatasetInfo) -> dict[str, tuple[int, ...]]:
    """Class ids of the "strong" and of the "weak" categories; the background is in neither group.

    Raises:
      InputError: the dataset has no background, a strong category is unknown, or one of the groups is empty.
    """
    if info.background is None:
        raise InputError(f"transfer: dataset {info.name} has no background class; use a dataset that has one")
    names = expand(config.budget.strong_categories)
    objects = [k for k in range(len(info.classes)) if k != info.background]
    strong = tuple(k for k in objects if info.classes[k] in names)
    weak = tuple(k for k in objects if info.classes[k] not in names)
    if not strong or not weak or any(name not in info.classes for name in names):
        raise InputError(
            f"budget.strong_categories is {names}; expected some, but not all, of "
            f"{', '.join(info.classes[k] for k in objects)}"
        )
    return {"strong": strong, "weak": weak}


def _train_on_maps(name: str, maps: str, config: Config, module: nn.Module) -> Train:
    """Trains the segmenter on the masks of the strong images and on the label maps of the others."""
    label = Artifact(stage=maps, name="label")
    parts = ("fine", label)
    return train_segmenter(name, config, config.segmenter, module, ids=parts, labels=parts, keys_as="segmenter")


def _train_on_masks(name: str, ids: str, config: Config, module: nn.Module) -> Train:
    """Trains the segmenter on true masks, for as many steps as on label maps."""
    stage = train_segmenter(name, config, config.segmenter, module, ids=ids, keys_as="segmenter")
    return as_long_as(stage, "segmenter")


def _measured_maps(name: str, config: Config) -> Eval:
    """The label maps of a stage against the true masks of their images, which no stage may read."""
    return measured_records(name, config, config.lnet, Artifact(stage=name, name="label"))
