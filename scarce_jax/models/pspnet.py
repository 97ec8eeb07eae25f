"""PSPNet (Zhao et al., 2017): dilated ResNet, pyramid pooling module (PPM), final block, auxiliary head.

Layer sizes follow the authors' PyTorch code (hszhao/semseg); at width 64 and depth 101 with 19 classes the
network has 67,948,390 parameters, 2,364,691 of them in the auxiliary head that only training uses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax.models.fields import KIND, check_choice, check_rate, check_width
from scarce_jax.models.layers import batch_norm, he_normal_fan_out, uniform_fan_in
from scarce_jax.models.resnet import BLOCKS, ResNet
from scarce_jax.models.tags import TagClassifier
from scarce_jax.ops.resize import adaptive_average_pool, resize_bilinear


class Embedding(NamedTuple):
    """Features that are linear in a few channels, kept as their factors: features = inputs @ weights."""

    inputs: jax.Array  # [B, H, W, k]
    weights: jax.Array  # [k, C], float32


Parts = tuple[jax.Array | Embedding, ...]
"""Features [B, H, W, C1 + C2 + ...] in parts: what is concatenated with what, before it is."""


class PartsConv(nn.Module):
    """Convolution over the concatenation of parts at stride 1, same size: [B, H, W, sum C] -> [.., features].

    Parameters are those of an `nn.Conv` over the concatenation, but an Embedding is never expanded: its
    weights are folded into the kernel, so that it costs its few input channels. For the detailer's 800
    channels that saves a third of the operations of a PSPNet-18 of width 32, and 5% of a PSPNet-101.
    """

    features: int
    kernel: int
    use_bias: bool = False
    kernel_init: Any = he_normal_fan_out
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, parts: Parts) -> jax.Array:
        channels = [part.weights.shape[1] if isinstance(part, Embedding) else part.shape[-1] for part in parts]
        embedded = [isinstance(part, Embedding) for part in parts]

        def init(key: jax.Array, window: tuple[int, int]) -> jax.Array:
            """What the same convolution without embeddings starts from, and draws of their own for those."""
            visual = sum(c for c, skip in zip(channels, embedded, strict=True) if not skip)
            drawn = self.kernel_init(key, (*window, visual, self.features), jnp.float32)
            pieces, start = [], 0
            for index, (count, own) in enumerate(zip(channels, embedded, strict=True)):
                if own:
                    shape = (*window, count, self.features)
                    pieces.append(self.kernel_init(jax.random.fold_in(key, index + 1), shape, jnp.float32))
                else:
                    pieces.append(drawn[:, :, start : start + count])
                    start += count
            return jnp.concatenate(pieces, 2)

        kernel = self.param("kernel", init, (self.kernel, self.kernel))
        inputs, kernels = [], []
        for part, part_kernel in zip(parts, jnp.split(kernel, np.cumsum(channels)[:-1], axis=2), strict=True):
            if isinstance(part, Embedding):
                part_kernel = jnp.einsum("kc,ijcf->ijkf", part.weights, part_kernel, precision="highest")
                part = part.inputs
            inputs.append(part.astype(self.dtype))
            kernels.append(part_kernel.astype(self.dtype))
        pad = self.kernel // 2
        y = jax.lax.conv_general_dilated(
            jnp.concatenate(inputs, -1),
            jnp.concatenate(kernels, 2),
            window_strides=(1, 1),
            padding=((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return y


class ConvBlock(nn.Module):
    """Convolution without bias, batch normalisation, ReLU: [B, H, W, sum C] -> [B, H, W, features]."""

    features: int
    kernel: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, parts: Parts, *, train: bool) -> jax.Array:
        x = PartsConv(self.features, self.kernel, dtype=self.dtype, name="conv")(parts)
        return nn.relu(batch_norm(train=train, dtype=self.dtype, name="bn")(x))


class PyramidPooling(nn.Module):
    """PPM (section 3.2): the input, and its averages over 1x1, 2x2, 3x3 and 6x6 bins, each reduced by 1x1.

    [B, H, W, sum C] -> [B, H, W, sum C + 4 * features], both in parts.
    """

    features: int
    bins: tuple[int, ...] = (1, 2, 3, 6)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, parts: Parts, *, train: bool) -> Parts:
        size = parts[0].shape[1:3]
        levels = []
        for bins in self.bins:
            pooled = tuple(
                Embedding(adaptive_average_pool(part.inputs, bins), part.weights)
                if isinstance(part, Embedding)
                else adaptive_average_pool(part, bins)
                for part in parts
            )
            level = ConvBlock(self.features, 1, dtype=self.dtype, name=f"bin{bins}")(pooled, train=train)
            levels.append(resize_bilinear(level, size, align_corners=True))
        return (*parts, *levels)


class PSPNet(nn.Module):
    """Image -> class logits at the image's own size.

    Attributes:
      classes: K.
      depth: of the ResNet: 18, 34, 50 or 101.
      width: base width of the ResNet; the PPM, the final block (8 * width) and the auxiliary block
        (4 * width) scale with it.
      deep_stem: see ResNet.
      dropout: rate at which whole channels are dropped before each of the two classifiers.
      aux: whether there is an auxiliary head on layer3 (the authors weight its loss by 0.4).
      dtype: of the computation up to the classifiers, which like parameters and batch statistics are float32.
    """

    classes: int
    depth: int = 101
    width: int = 64
    deep_stem: bool = False
    dropout: float = 0.1
    aux: bool = True
    dtype: Any = jnp.float32

    def setup(self):
        self.backbone = ResNet(self.depth, width=self.width, deep_stem=self.deep_stem, dtype=self.dtype)
        # The paper reduces every level to 1/4 of layer4's channels: 512 with bottlenecks at width 64.
        layer4 = 8 * self.width * (4 if self.depth >= 50 else 1)
        self.ppm = PyramidPooling(layer4 // 4, dtype=self.dtype)
        self.final_block = ConvBlock(8 * self.width, 3, dtype=self.dtype)
        self.final_dropout = nn.Dropout(self.dropout, broadcast_dims=(1, 2))
        self.classifier = _classifier(self.classes)
        if self.aux:
            self.aux_block = ConvBlock(4 * self.width, 3, dtype=self.dtype)
            self.aux_dropout = nn.Dropout(self.dropout, broadcast_dims=(1, 2))
            self.aux_classifier = _classifier(self.classes)

    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array | None]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB; any H and W.
          train: whether batch statistics are used and updated, and channels dropped (rng "dropout").

        Returns:
          float32 logits [B, H, W, K], and the auxiliary head's [B, H, W, K], None unless `train` and `aux`.
        """
        return self._segment(image, lambda place, parts: parts, train=train)

    def _segment(
        self, image: jax.Array, inject: Callable[[str, Parts], Parts], *, train: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        """The whole network; `inject(place, parts)` may add a part at each of the detailer's three places."""
        size = image.shape[1:3]
        layers = self.backbone(image, train=train)  # [B, h, w, C3 or C4], h = H / 8
        parts = self.ppm(inject("before_pool", (layers["layer4"],)), train=train)
        x = self.final_block(inject("after_pool", parts), train=train)
        x = self.final_dropout(x, deterministic=not train)
        logits = self.classifier(inject("after_final", (x,)))  # [B, h, w, K]
        logits = resize_bilinear(logits, size, align_corners=True)
        # Initialising creates the auxiliary head's parameters whatever `train` is.
        if not self.aux or not (train or self.is_initializing()):
            return logits, None
        x = self.aux_block((layers["layer3"],), train=train)
        x = self.aux_dropout(x, deterministic=not train)
        aux_logits = resize_bilinear(self.aux_classifier((x,)), size, align_corners=True)
        return logits, aux_logits if train else None


def _classifier(classes: int) -> PartsConv:
    # He-normal with fan-out would start the logits of 19 classes with a deviation of about 5.
    return PartsConv(classes, 1, use_bias=True, kernel_init=uniform_fan_in)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PSPNetConfig:
    """PSPNet (Zhao et al., 2017): a dilated ResNet with pyramid pooling and an auxiliary head.

    Attributes:
      depth: of the ResNet: 18, 34, 50 or 101 (the paper's).
      width: channels of the stem, at least 1; every layer scales with it. 64 in the paper.
      dropout: rate in 0..1 at which whole channels are dropped before the classifiers. 0.1 in the paper.
    """

    kind: Annotated[Literal["pspnet"], KIND] = "pspnet"
    depth: Literal[18, 34, 50, 101] = 101
    width: int = 64
    dropout: float = 0.1
    full_size: ClassVar[bool] = True

    def __post_init__(self):
        check_choice(self.kind, "depth", self.depth, tuple(BLOCKS))
        check_width(self.kind, self.width)
        check_rate(self.kind, self.dropout)

    def build(self, classes: int, dtype: Any = jnp.float32) -> PSPNet:
        """The segmentation net: `module(image, train=...) -> (logits, auxiliary logits or None)`."""
        return PSPNet(classes=classes, depth=self.depth, width=self.width, dropout=self.dropout, dtype=dtype)

    def classifier(self, tags: int, dtype: Any = jnp.float32, dropout: float | None = None) -> TagClassifier:
        """The classifier of image tags on the net's trunk; `dropout` of features, None for the net's own rate."""
        trunk = ResNet(self.depth, width=self.width, dtype=dtype)
        return TagClassifier(backbone=trunk, classes=tags, dropout=self.dropout if dropout is None else dropout)
