"""The nets of Hong, Noh and Han, "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation".

A classification net finds the classes of an image. The gradient of a class's score with respect to pool5 is the
saliency of the class. From pool5 and the saliency a segmentation net predicts whether each pixel is of the class.
Details that the paper omits follow the authors' published Caffe definitions.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.batch_norm import batch_norm
from scarce_jax.models.deconvolution import (
    STRIDE,
    Deconvolution,
    FullyConnected,
    StridedBackbone,
    encode,
    mirrored,
    score_layer,
    units,
)
from scarce_jax.models.fields import BackboneNetConfig
from scarce_jax.models.layers import Convolution
from scarce_jax.models.vgg import CONVOLUTIONS, VGGConfig
from scarce_jax.ranges import BelowOne, Channels, Few

HEAD_PATTERN = r"^score/"
"""Matches the layer that VGG-16 does not have, for a higher learning rate: `Group(pattern=HEAD_PATTERN, lr=10)`."""


class Classified(NamedTuple):
    """Outputs of the classification net.

    Attributes:
      pool5: [B, H/32, W/32, C], in the dtype of the computation: the last features of the backbone, which are pool5 of
        VGG-16.
      switches: switches of VGG-16's pool1 to pool5, uint8; other backbones have none.
      scores: float32 [B, h, w, K], class logits at each position of the window of fc6.
    """

    pool5: jax.Array
    switches: tuple[jax.Array, ...]
    scores: jax.Array

    @property
    def average(self) -> jax.Array:
        """Logits [B, K] that are trained. Their sigmoid decides which classes an image has."""
        return self.scores.mean((1, 2))

    @property
    def maximum(self) -> jax.Array:
        """Logits [B, K] that are differentiated for the saliency."""
        return self.scores.max((1, 2))


class DecoupledClassifier(nn.Module):
    """Image -> class logits (section 3.2): VGG-16 with fc6 as a convolution, and the average of its scores.

    For a 320 x 320 image pool5 is 10 x 10 and the scores are 4 x 4; for 224 x 224 they are 7 x 7 and 1 x 1. 134,342,484
    parameters with 20 classes. fc6 and fc7 start from He's values, or from VGG's weights, and the layer of the scores
    from N(0, 0.01).

    Attributes:
      classes: K, without the background.
      backbone: of stride 32, see `BackboneConfig`; its last features stand for pool5.
      hidden: channels of fc6 and fc7. 4096 in the paper.
      fc6_kernel: side of the window of fc6 on pool5. 7 in the paper; images smaller than 224 need less.
      dropout: rate of the dropout after fc6 and fc7.
      dtype: dtype of the computation before the scores, which are float32 as are parameters and batch statistics.
    """

    classes: int
    backbone: nn.Module
    hidden: int = 4096
    fc6_kernel: int = 7
    dropout: float = 0.5
    dtype: Any = jnp.float32

    def setup(self):
        options = {"use_bias": True, "dtype": self.dtype}
        # He's values over the inputs, which are fewer than the outputs here; `convolution` has them over the outputs.
        initial = nn.initializers.he_normal()
        self.fc6 = Convolution(self.hidden, self.fc6_kernel, padding=0, kernel_init=initial, **options)
        self.fc7 = Convolution(self.hidden, 1, **options)
        self.score = nn.Conv(self.classes, (1, 1), kernel_init=nn.initializers.normal(0.01))
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Classifies images.

        Args:
          image: float [B, H, W, 3], normalised RGB. H and W are multiples of 32, at least 32 * fc6_kernel.
          train: use and update the statistics of this batch, and drop features (random key "dropout").

        Returns:
          float32 logits [B, K], averaged over the positions of the window of fc6.

        Raises:
          ValueError: the image has another size.
        """
        return self.classify(image, train=train).average

    def classify(self, image: jax.Array, *, train: bool = False) -> Classified:
        """The outputs that the segmentation net reads."""
        pool5, switches = encode(self.backbone, image, train=train)
        return Classified(pool5, switches, self.head(pool5, train=train))

    def head(self, pool5: jax.Array, *, train: bool = False) -> jax.Array:
        """fc6, fc7 and the scores: [B, h, w, C] -> float32 [B, h - fc6_kernel + 1, w - fc6_kernel + 1, K].

        Raises:
          ValueError: pool5 is smaller than the window of fc6.
        """
        height, width = pool5.shape[1:3]
        if min(height, width) < self.fc6_kernel:
            raise ValueError(
                f"pool5 is {height} x {width}, smaller than fc6's window, {self.fc6_kernel} x {self.fc6_kernel}; "
                f"use images of at least {32 * self.fc6_kernel} pixels, or a smaller fc6_kernel"
            )
        x = pool5
        for layer in (self.fc6, self.fc7):
            x = self.drop(layer(x, relu=True), deterministic=not train)
        return self.score(x.astype(jnp.float32))


def class_saliency(
    classifier: DecoupledClassifier,
    variables: Any,
    pool5: jax.Array,
    labels: jax.Array,
    probabilities: jax.Array | None = None,
) -> jax.Array:
    """Class-specific saliency maps (section 4.1): gradients of class scores with respect to pool5.

    The saliency of a label vector is the gradient of a sum over its classes: the largest score of each class times the
    class's probability, which is held constant. It is computed by one `jax.vjp` of the classifier's head. The head runs
    once for any number L of label vectors, its backward pass once per vector, and the trunk not at all.

    Args:
      classifier: the net; its `fc6_kernel` must fit pool5.
      variables: its variables.
      pool5: [B, h, w, C], see `Classified`.
      labels: [B, L, K], 1 for each class of a label vector, else 0.
      probabilities: [B, K]; None is the sigmoid of the largest scores, with which the segmentation net is trained. The
        authors' inference uses the sigmoid of the averaged scores. (The paper prints no such factor.)

    Returns:
      [B, L, h, w, C] in pool5's dtype, of any sign and not normalised.

    Raises:
      ValueError: `labels` has another shape.
    """
    if labels.ndim != 3 or labels.shape[::2] != (pool5.shape[0], classifier.classes):
        expected = f"[{pool5.shape[0]}, L, {classifier.classes}]"
        raise ValueError(
            f"label vectors have shape {labels.shape}; expected {expected} for images, vectors and classes"
        )
    scores, pull = jax.vjp(lambda x: classifier.apply(variables, x, method="head"), pool5)
    places = scores.reshape(len(scores), -1, classifier.classes)  # [B, P, K]
    largest = jnp.arange(places.shape[1])[:, None] == places.argmax(1, keepdims=True)
    if probabilities is None:
        probabilities = jax.nn.sigmoid(places.max(1))
    seeds = (labels * probabilities[:, None])[:, :, None]  # [B, L, 1, K]
    # [B, L, P, K] -> [B, L, h, w, K], as the scores.
    cotangents = jnp.where(largest[:, None], seeds, 0.0).reshape(*labels.shape[:2], *scores.shape[1:])
    (saliency,) = jax.vmap(pull, in_axes=1, out_axes=1)(cotangents.astype(scores.dtype))
    return saliency


class SegmentationNet(nn.Module):
    """pool5, class-specific saliency and switches -> whether each pixel is of the classes (sections 3.3 and 4.1).

    The bridging layers normalise pool5 and the saliency separately, concatenate them, and apply fc6-seg and fc7-seg.
    fc6-deconv and the deconvolution net follow. All classes share the weights. 173,107,906 parameters.

    The classifier may have a backbone without switches (see `Deconvolution`).

    For several label vectors of an image, map over the saliency alone:
    `jax.vmap(lambda s: net.apply(variables, pool5, s, *switches, train=False), in_axes=1, out_axes=1)`.

    Attributes:
      width: channels of deconv1; 64 in the paper. With switches it is `head_width` of the classifier's backbone.
      hidden: channels of fc6-seg and fc7-seg. 2048 in the paper.
      fc6_kernel: side of the window of fc6-seg and fc6-deconv on pool5. 7 in the paper.
      deconvolutions: number of deconvolutions in groups 1 to 5.
      dtype: dtype of the computation before the logits, which are float32 as are parameters and batch statistics.
    """

    width: int = 64
    hidden: int = 2048
    fc6_kernel: int = 7
    deconvolutions: tuple[int, ...] = CONVOLUTIONS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pool5: jax.Array, saliency: jax.Array, *switches: jax.Array, train: bool) -> jax.Array:
        """Segments the classes of the saliency.

        Args:
          pool5: floating [B, h, w, C], see `Classified`. h and w are at least fc6_kernel.
          saliency: floating, of the same shape.
          switches: switches of VGG-16's pool1 to pool5; none of another backbone.
          train: use and update the statistics of this batch.

        Returns:
          float32 logits [B, 32 * h, 32 * w, 2]: background, foreground.

        Raises:
          ValueError: shapes do not fit.
        """
        if pool5.shape != saliency.shape:
            raise ValueError(f"pool5 has shape {pool5.shape}, its saliency {saliency.shape}; expected equal shapes")
        spatial = batch_norm(train=train, dtype=self.dtype, name="bn_pool5")(pool5)
        # The authors' epsilon. The usual one would outweigh the variance of the gradients, which are small.
        specific = batch_norm(train=train, epsilon=1e-9, dtype=self.dtype, name="bn_saliency")(saliency)
        x = jnp.concatenate([spatial, specific], -1)  # [B, h, w, 2 * C]
        fully = FullyConnected(self.hidden, self.width, self.fc6_kernel, self.dtype, name="bridge")
        x = fully(x, train=train)
        x = Deconvolution(self.width, self.deconvolutions, self.dtype, name="deconvolution")(x, switches, train=train)
        return score_layer(2, self.width, "seg_score")(x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoupledClassifierConfig(BackboneNetConfig):
    """The classification net of the decoupled method (section 3.2), VGG-16 with fc6 as a convolution.

    Attributes:
      backbone: the backbone, chosen by its kind; all layers of both nets scale with its width.
      hidden: channels of fc6 and fc7, at least 1; None is 64 * width on VGG-16, 4096 in the paper, and 16 * width on a
        ResNet.
      fc6_kernel: side of the window of fc6 on pool5, at least 1; pool5 has a 32nd of the image's size. 7 in the paper.
      dropout: rate of the dropout, below 1, after fc6 and fc7. 0.5 in the paper.
    """

    kind: ClassVar[str] = "decoupled classifier"
    module = DecoupledClassifier
    stride = STRIDE

    backbone: StridedBackbone = VGGConfig()
    hidden: Channels | None = None
    fc6_kernel: Few = 7
    dropout: BelowOne = 0.5

    def _settings(self) -> dict[str, Any]:
        hidden = self.hidden or units(self.backbone) * self.backbone.head_width
        return super()._settings() | {"hidden": hidden}

    def segmentation_net(
        self,
        hidden: int | None = None,
        deconvolutions: tuple[int, ...] | None = None,
        width: int | None = None,
        dtype: Any = jnp.float32,
    ) -> SegmentationNet:
        """The segmentation net that reads the classifier.

        Args:
          hidden: channels of fc6-seg and fc7-seg; None is 32 * width on VGG-16, and 8 * width on a ResNet.
          deconvolutions: number of deconvolutions in groups 1 to 5; None is that of VGG-16's convolutions, and 2, 2, 3,
            3, 3 on a ResNet.
          width: channels of deconv1; None is `head_width` of the backbone.
        """
        width = width or self.backbone.head_width
        return SegmentationNet(
            width,
            hidden=hidden or units(self.backbone) * width // 2,
            fc6_kernel=self.fc6_kernel,
            deconvolutions=deconvolutions or mirrored(self.backbone),
            dtype=dtype,
        )
