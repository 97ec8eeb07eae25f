"""Adding the class that was left out back, by the class activation maps of a binary classifier.

The paper adds "person" to its final masks by "CAM for class person from a binary classifier" (table 3), and would try
adding it to the labels of the segmenter (section 5.1). It does not say how; the rules here are this library's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.methods import common
from scarce_jax.methods.common import compute_dtype
from scarce_jax.methods.inputs import as_stored, inference_source, net_inputs
from scarce_jax.methods.tagging import CLASSIFIER, tags_measured, train_classifier
from scarce_jax.methods.three_step.cams import ClassMaps, added_maps
from scarce_jax.methods.three_step.classifier import with_held_out, with_weight
from scarce_jax.methods.three_step.config import Config
from scarce_jax.methods.three_step.left_out import Kept, measured_on_kept, trained_on_kept
from scarce_jax.ops.resize import resize_bilinear
from scarce_jax.recipe import Artifact, Eval, Infer, NetState, Predict, Train

BINARY = "binary"
"""Name of the stage of the binary classifier, and of its result."""

SHOWN = ("without the class", "with the class")
"""What the status of `BinaryMap` says of an image and the class that was left out."""


@dataclasses.dataclass(frozen=True)
class BinaryDraws:
    """Draws per epoch by two classes of images, those with a tag and those without, as a `Source.weight`.

    Attributes:
      weight: `(tags [N, 2] uint8) -> [N]`; None draws each image once.
      chosen: id of the class with the tag.
      name: of the class, for the message.
    """

    weight: Callable[[np.ndarray], np.ndarray] | None
    chosen: int
    name: str

    def __call__(self, tags: np.ndarray) -> np.ndarray:
        """Raises InputError if all images have the tag, or none."""
        has = np.asarray(tags)[:, self.chosen] > 0
        if has.all() or not has.any():
            raise InputError(
                f"{BINARY}: {'all' if has.all() else 'none'} of {len(has)} training images have the tag {self.name!r}, "
                f"expected some with it and some without; leave out another class, or set binary to none"
            )
        pair = np.stack((has, ~has), 1).astype(np.uint8)
        return np.ones(len(has)) if self.weight is None else self.weight(pair)


@dataclasses.dataclass(frozen=True)
class BinaryMap:
    """Combines the views of `ClassMaps` of a binary classifier, as `CompactMaps` does, but of its class alone.

    An image shows the class if its tag says so, or if the probability, a mean over the views, is above 0.5: the tag is
    often missing, which is why the class was left out.

    Attributes:
      size: (height, width) of the images.
      chosen: id of the class.
    """

    size: tuple[int, int]
    chosen: int

    def __call__(
        self, predictions: Sequence[Mapping[str, jax.Array]], mirrored: Sequence[bool]
    ) -> dict[str, jax.Array]:
        """ "maps" uint8 [B, H/4, W/4, 1], 255 being 1, all 0 for images without the class; "status" uint8 [B]."""
        maps = added_maps(predictions, mirrored, self.size)  # [B, h, w, 1]
        probability = sum(jax.nn.sigmoid(view["logits"][:, 0]) for view in predictions) / len(predictions)
        shown = (predictions[0]["tags"][:, self.chosen] > 0) | (probability > 0.5)
        maps = jnp.where(shown[:, None, None, None], normalised(maps), 0.0)
        return {"maps": jnp.round(255 * maps).astype(jnp.uint8), "status": shown.astype(jnp.uint8)}


def normalised(maps: jax.Array) -> jax.Array:
    """Maps float [B, h, w, 1], at least 0, each divided by its largest value."""
    return maps / jnp.maximum(maps.max((1, 2, 3), keepdims=True), 1e-5)


@dataclasses.dataclass(frozen=True)
class AddedLabels:
    """Labels to which the class that was left out is added: an inference pass over rows with "label" and "maps".

    Attributes:
      chosen: id of the class.
      background: class whose pixels alone it takes.
      threshold: it takes them where its map is above this, 0..1.
    """

    chosen: int
    background: int
    threshold: float

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        """ "label" uint8 [B, H, W]; void stays void."""
        label = batch["label"]
        maps = resize_bilinear(batch["maps"].astype(jnp.float32) / 255, label.shape[1:3], align_corners=False)
        taken = (label == self.background) & (maps[..., 0] > self.threshold)
        return {"label": jnp.where(taken, jnp.uint8(self.chosen), label)}


@dataclasses.dataclass(frozen=True)
class AddedScores:
    """Prediction of a segmenter to which the class that was left out is added: logits [B, H, W, K].

    Where the binary classifier gives the view a probability above 0.5, the score of the class is the larger one of its
    own and

        (score of the background) + (class activation map, divided by its largest value) - threshold,

    elsewhere its own, which a segmenter that never learnt the class makes small. The scores of all other classes stay,
    so the class takes pixels and changes nothing else: mostly those of the background, where the map, or its mean over
    views whose logits are averaged, is above the threshold. A view in which the class is not seen votes by its own
    score, so that the class is seldom added where not all views show it.

    The classifier reads each view at the size of its training, so that views of different scales agree on whether the
    image shows the class.

    Attributes:
      predict: of the segmenter.
      classifier: the binary classifier.
      size: (height, width) at which it reads a view.
      chosen: id of the class.
      background: class.
      threshold: 0..1.
    """

    predict: Predict
    classifier: nn.Module
    size: tuple[int, int]
    chosen: int
    background: int
    threshold: float

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        scores = self.predict(nets, batch, consts).astype(jnp.float32)
        image = resize_bilinear(batch["image"], self.size, align_corners=False)
        variables = nets[CLASSIFIER].variables
        maps = self.classifier.apply(variables, image, method="class_activation_maps")  # [B, h, w, 1]
        shown = self.classifier.apply(variables, image, train=False)[:, 0] > 0
        maps = resize_bilinear(normalised(jax.nn.relu(maps)), scores.shape[1:3], align_corners=False)[..., 0]
        own, added = scores[..., self.chosen], scores[..., self.background] + maps - self.threshold
        return scores.at[..., self.chosen].set(jnp.where(shown[:, None, None], jnp.maximum(own, added), own))


class BinaryStages:
    """The stages and results of the binary classifier.

    Args:
      chosen: id of the class that was left out.
    """

    def __init__(self, config: Config, info: DatasetInfo, chosen: int):
        self.config, self.settings, self.info, self.chosen = config, config.binary, info, chosen
        self.module = self.settings.net.classifier(1, compute_dtype(config))
        self.kept = Kept.only(chosen, info)
        self.nets = {CLASSIFIER: common.frozen(self.module, net_inputs(self.settings.size), BINARY, CLASSIFIER)}

    def train(self) -> Train:
        """Stage `binary`."""
        stage = train_classifier(BINARY, self.config, self.settings, self.module, None)
        (source,) = stage.sources.values()
        draws = BinaryDraws(self.settings.balance or source.weight, self.chosen, self.config.left_out)
        stage = with_weight(stage, draws)
        return with_held_out(trained_on_kept(stage, self.module, self.kept), self.config, self.settings)

    def infer_maps(self) -> Infer:
        """Stage `binary_cams`: the maps of the training images that show the class."""
        return Infer(
            name="binary_cams",
            nets=self.nets,
            predict=ClassMaps(self.module),
            source=inference_source(self.config, self.settings, ids="tags", fields=("tags",)),
            views=self.config.cams.views,
            combine=BinaryMap(self.settings.size, self.chosen),
            status=SHOWN,
        )

    def infer_labels(self, pseudo: Artifact) -> Infer:
        """Stage `added_labels`: the pseudo labels, with the class."""
        maps = Artifact(stage="binary_cams", name="maps")
        source = inference_source(
            self.config, self.config.irnet, ids=pseudo, labels=(pseudo,), fields=(maps,), transform=as_stored
        )
        predict = AddedLabels(self.chosen, self.info.background, self.config.add_threshold)
        return Infer(name="added_labels", nets={}, predict=predict, source=source)

    def measured(self) -> Eval:
        """Result `binary`: tags of the class alone."""
        result = tags_measured(BINARY, self.config, self.settings, self.module, BINARY)
        return measured_on_kept(result, self.module, self.kept)

    def added(self, segment: Eval, name: str) -> Eval:
        """The result of a segmenter to which the class is added."""
        predict = AddedScores(
            segment.predict,
            self.module,
            self.settings.size,
            self.chosen,
            self.info.background,
            self.config.add_threshold,
        )
        nets = {**segment.nets, **self.nets}
        whole = "the binary classifier judges whole images"
        return dataclasses.replace(segment, name=name, nets=nets, predict=predict, no_window=whole)
