"""The config of the three-step method."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from scarce_jax.methods import common
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.three_step.cams import Cams
from scarce_jax.methods.three_step.classifier import ClassifierStage
from scarce_jax.methods.three_step.irnet import IRNetStage, Walk
from scarce_jax.ranges import Share
from scarce_jax.recipe import Views


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """Config of the method `three_step`.

    Attributes:
      classifier: training of the classifier.
      cams: class activation maps, and how they become labels.
      irnet: training of IRNet; labels are made at its size.
      walk: the random walk.
      segmenter: training of the segmentation net.
      tta: views of the result `segment_tta`.
      left_out: name of a class that no step learns: its tags are removed, and no pseudo label has it. It keeps its id,
        and counts in the mean IoU. "person" in the paper. None leaves out none.
      binary: training of a classifier of the class that was left out, by its tag alone, on all images with tags; its
        `balance` and `rare_class_sampling` see images with the tag and images without it as two classes. It gives the
        result `segment_tta_added`. None trains none.
      add_threshold: the class is added where its class activation map, whose largest value is 1, is above this, 0..1.
      add_to_labels: also add the class to the pseudo labels, where they say background, before they train the
        segmenter. The paper leaves that to others (section 5.1). Images that show this class alone have no pseudo
        labels, so it is learnt from those that show another one too.
    """

    has_baselines = False

    classifier: ClassifierStage
    cams: Cams = Cams()
    irnet: IRNetStage
    walk: Walk = Walk()
    segmenter: SegmenterStage
    tta: Views = Views(flip=True, scales=(0.5, 1.0, 2.0), average="logits")
    left_out: str | None = None
    binary: ClassifierStage | None = None
    add_threshold: Share = 0.3
    add_to_labels: bool = False

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        yield from common.without_fine_masks(self)
        if self.binary is not None and self.left_out is None:
            yield "binary", "None while left_out is None; name the class that it is to recognise with --left-out"
        if self.add_to_labels and self.binary is None:
            yield "add_to_labels", "False while binary is None; set binary, whose maps are added"
        if self.segmenter.class_weighting is not None:
            yield (
                "segmenter.class_weighting",
                "None, because it is computed from fine masks, which this method does not read",
            )
