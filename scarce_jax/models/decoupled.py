"""The networks of "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation".

A classification net finds an image's classes; the gradient of a class's score by pool5, its class-specific saliency,
tells a segmentation net which of them to segment; that net labels every pixel as this class or not. Layers and sizes
are those of the authors' published Caffe definitions, where the paper gives none.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.errors import InputError
from scarce_jax.models.deconvolution import POOLS, Deconvolution, FullyConnected, score_layer
from scarce_jax.models.fields import check_rate, check_vgg, check_width
from scarce_jax.models.layers import MOMENTUM, batch_norm, convolution
from scarce_jax.models.vgg import CONVOLUTIONS, VGG16Trunk

HEAD_PATTERN = r"^score/"
"""Matches the layer that is not VGG-16's, for a higher learning rate: `Group(pattern=HEAD_PATTERN, lr=10)`."""


class Classified(NamedTuple):
    """Outputs of the classification net.

    Attributes:
      pool5: [B, H/32, W/32, 8 * width], in the computation's dtype.
      switches: of pool1 to pool5, uint8.
      scores: float32 [B, h, w, K], the classes' logits at every place of the fc6 window.
    """

    pool5: jax.Array
    switches: tuple[jax.Array, ...]
    scores: jax.Array

    @property
    def average(self) -> jax.Array:
        """[B, K]: the logits that are trained, and whose sigmoid decides which classes an image has."""
        return self.scores.mean((1, 2))

    @property
    def maximum(self) -> jax.Array:
        """[B, K]: the logits that are differentiated for the saliency."""
        return self.scores.max((1, 2))


class DecoupledClassifier(nn.Module):
    """Image -> logits of its classes (section 3.2): VGG-16 with fc6 as a convolution, and the average of its scores.

    A 320 x 320 image has a pool5 of 10 x 10 and scores of 4 x 4, one of 224 x 224 a pool5 of 7 x 7 and one score.
    134,342,484 parameters with 20 classes. fc6 and fc7 start from He's values (or VGG's), the scores' layer from
    N(0, 0.01).

    Attributes:
      classes: K, the background not counted.
      width: of the trunk (see VGG16Trunk). The paper's is 64.
      hidden: channels of fc6 and fc7; None for 64 * width, the paper's 4096.
      fc6_kernel: side of fc6's window on pool5, the paper's 7; less for images of less than 224.
      batch_norm: in the trunk, for training from scratch; the paper's net has none.
      dropout: rate after fc6 and fc7.
      convolutions: of the trunk's groups (see VGG16Trunk).
      dtype: of the computation up to the scores, which like parameters and batch statistics are float32.
    """

    classes: int
    width: int = 64
    hidden: int | None = None
    fc6_kernel: int = 7
    batch_norm: bool = False
    dropout: float = 0.5
    convolutions: tuple[int, ...] = CONVOLUTIONS
    dtype: Any = jnp.float32

    def setup(self):
        hidden = 64 * self.width if self.hidden is None else self.hidden
        self.backbone = VGG16Trunk(self.width, self.batch_norm, POOLS, self.convolutions, dtype=self.dtype)
        kernel = (self.fc6_kernel, self.fc6_kernel)
        # Over the inputs, which are fewer; elsewhere in the trunk they are as many as the outputs.
        self.fc6 = nn.Conv(hidden, kernel, padding="VALID", kernel_init=nn.initializers.he_normal(), dtype=self.dtype)
        self.fc7 = convolution(hidden, 1, use_bias=True, dtype=self.dtype)
        self.score = nn.Conv(self.classes, (1, 1), kernel_init=nn.initializers.normal(0.01))
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Classifies images.

        Args:
          image: float [B, H, W, 3], normalised RGB; H and W multiples of 32, at least 32 * fc6_kernel.
          train: whether batch statistics are used and updated, and features dropped (rng "dropout").

        Returns:
          float32 logits [B, K], averaged over the places of fc6's window.

        Raises:
          ValueError: the image is of another size.
        """
        return self.classify(image, train=train).average

    def classify(self, image: jax.Array, *, train: bool = False) -> Classified:
        """All that the segmentation net needs: `module.apply(variables, image, method="classify")`."""
        pool5, switches = self.backbone(image, train=train)
        return Classified(pool5, switches, self.head(pool5, train=train))

    def head(self, pool5: jax.Array, *, train: bool = False) -> jax.Array:
        """fc6, fc7 and the scores: [B, h, w, 8 * width] -> float32 [B, h - fc6_kernel + 1, w - fc6_kernel + 1, K].

        Raises:
          ValueError: pool5 is smaller than fc6's window.
        """
        height, width = pool5.shape[1:3]
        if min(height, width) < self.fc6_kernel:
            raise ValueError(
                f"pool5 is {height} x {width}, smaller than fc6's window, {self.fc6_kernel} x {self.fc6_kernel}; "
                f"give images of at least {32 * self.fc6_kernel} pixels, or a smaller fc6_kernel"
            )
        x = pool5
        for layer in (self.fc6, self.fc7):
            x = self.drop(nn.relu(layer(x)), deterministic=not train)
        return self.score(x.astype(jnp.float32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoupledClassifierConfig:
    """The classification net of the decoupled method (section 3.2), VGG-16 with fc6 as a convolution.

    Attributes:
      width: channels of VGG-16's conv1, at least 1; every layer of both nets scales with it. 64 in the paper.
      hidden: channels of fc6 and fc7, at least 1; None for 64 * width, the paper's 4096.
      fc6_kernel: side of fc6's window on pool5, a 32nd of the image, at least 1. 7 in the paper.
      convolutions: of VGG-16's five groups, and as many deconvolutions, at least 1 each; less for small images.
      batch_norm: batch normalisation in VGG-16, which has none in the paper, for training from scratch.
      dropout: rate in 0..1 after fc6 and fc7. 0.5 in the paper.
    """

    width: int = 64
    hidden: int | None = None
    fc6_kernel: int = 7
    convolutions: tuple[int, int, int, int, int] = CONVOLUTIONS
    batch_norm: bool = False
    dropout: float = 0.5

    def __post_init__(self):
        check_width("decoupled classifier", self.width)
        check_rate("decoupled classifier", self.dropout)
        check_vgg("decoupled classifier", self.convolutions)
        for name in ("hidden", "fc6_kernel"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise InputError(f"decoupled classifier: {name} is {number}; expected at least 1")

    def build(self, tags: int, dtype: Any = jnp.float32) -> DecoupledClassifier:
        """The net: `module(image, train=...) -> logits [B, tags]`."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return DecoupledClassifier(classes=tags, dtype=dtype, **fields)


def class_saliency(
    classifier: DecoupledClassifier,
    variables: Any,
    pool5: jax.Array,
    labels: jax.Array,
    probabilities: jax.Array | None = None,
) -> jax.Array:
    """Class-specific saliency maps (section 4.1): the gradient of the scores of these classes at pool5.

    One `jax.vjp` of the classifier's head. Its cotangent has, for every class of a label vector, the class's
    probability at the place of the map of scores where that class's score is largest, and zeros elsewhere: the map is
    the derivative of the sum over these classes of probability * largest score, the probability held constant. The
    maps of several classes in one vector add up. The trunk is not run, and the head once whatever the number L of
    label vectors; only the way back is per vector.

    Args:
      classifier: its `fc6_kernel` must fit pool5.
      variables: its variables.
      pool5: [B, h, w, C], as in `Classified`.
      labels: [B, L, K], 1 where a vector has the class, else 0.
      probabilities: [B, K]; None for the sigmoid of the largest scores, which the segmentation net is trained with.
        The authors' inference gives the sigmoid of the averaged ones. (The paper prints no such factor.)

    Returns:
      [B, L, h, w, C] in pool5's dtype, any sign, not normalised.

    Raises:
      ValueError: `labels` are of another shape.
    """
    if labels.ndim != 3 or labels.shape[::2] != (pool5.shape[0], classifier.classes):
        expected = f"[{pool5.shape[0]}, L, {classifier.classes}]"
        raise ValueError(f"label vectors have shape {labels.shape}; expected {expected}, by image, vector and class")
    scores, pull = jax.vjp(lambda x: classifier.apply(variables, x, method="head"), pool5)
    places = scores.reshape(len(scores), -1, classifier.classes)  # [B, P, K]
    largest = jnp.arange(places.shape[1])[:, None] == places.argmax(1, keepdims=True)
    if probabilities is None:
        probabilities = jax.nn.sigmoid(places.max(1))
    seeds = (labels * probabilities[:, None])[:, :, None]  # [B, L, 1, K]
    # [B, L, P, K] -> [B, L, h, w, K], the shape of the scores
    cotangents = jnp.where(largest[:, None], seeds, 0.0).reshape(*labels.shape[:2], *scores.shape[1:])
    (saliency,) = jax.vmap(pull, in_axes=1, out_axes=1)(cotangents.astype(scores.dtype))
    return saliency


class SegmentationNet(nn.Module):
    """pool5, class-specific saliency and switches -> is each pixel of these classes (sections 3.3 and 4.1)?

    The bridging layers are the separate batch normalisation of pool5 and of the saliency, their concatenation, fc6-seg
    and fc7-seg; fc6-deconv and the deconvolution net follow. All weights are shared by all classes. 173,107,906
    parameters.

    For several label vectors of an image, map over the saliency alone:
    `jax.vmap(lambda s: net.apply(variables, pool5, s, *switches, train=False), in_axes=1, out_axes=1)`.

    Attributes:
      width: channels of deconv1; must be the classifier's. The paper's is 64.
      hidden: channels of fc6-seg and fc7-seg; None for 32 * width, the paper's 2048.
      fc6_kernel: side of the window of fc6-seg and fc6-deconv on pool5, the paper's 7.
      convolutions: deconvolutions of groups 1 to 5, as the classifier has convolutions.
      dtype: of the computation up to the logits, which like parameters and batch statistics are float32.
    """

    width: int = 64
    hidden: int | None = None
    fc6_kernel: int = 7
    convolutions: tuple[int, ...] = CONVOLUTIONS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pool5: jax.Array, saliency: jax.Array, *switches: jax.Array, train: bool) -> jax.Array:
        """Segments the classes that the saliency is of.

        Args:
          pool5: floating [B, h, w, 8 * width], as in `Classified`; h and w at least fc6_kernel.
          saliency: floating, of the same shape.
          switches: five, of pool1 to pool5.
          train: whether batch statistics are used and updated.

        Returns:
          float32 logits [B, 32 * h, 32 * w, 2]: background, foreground.

        Raises:
          ValueError: shapes do not fit.
        """
        if pool5.shape != saliency.shape:
            raise ValueError(f"pool5 has shape {pool5.shape}, its saliency {saliency.shape}; expected equal ones")
        spatial = batch_norm(train=train, dtype=self.dtype, name="bn_pool5")(pool5)
        # The authors' epsilon: gradients are so small that the usual one would be most of the variance.
        specific = nn.BatchNorm(
            use_running_average=not train, momentum=MOMENTUM, epsilon=1e-9, dtype=self.dtype, name="bn_saliency"
        )(saliency)
        x = jnp.concatenate([spatial, specific], -1)  # [B, h, w, 16 * width]
        hidden = 32 * self.width if self.hidden is None else self.hidden
        fully = FullyConnected(hidden, self.width, self.fc6_kernel, self.dtype, name="bridge")
        x = fully(x, train=train)
        x = Deconvolution(self.width, self.convolutions, self.dtype, name="deconvolution")(x, switches, train=train)
        return score_layer(2, "seg_score")(x)
