"""PSPNet (Zhao et al., 2017): dilated backbone, pyramid pooling module (PPM), final block and auxiliary head.

Layer sizes follow the authors' PyTorch code (hszhao/semseg). On a ResNet-101 of width 64 and with 19 classes the net
has 67,948,390 parameters; 2,364,691 of them are in the auxiliary head, which is used only in training.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax.models.backbones import Backbone
from scarce_jax.models.batch_norm import BatchNorm, batch_norm, with_normalisation
from scarce_jax.models.fields import KIND, BackboneNetConfig
from scarce_jax.models.layers import he_normal_fan_out, uniform_fan_in
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.tracing import entering_head
from scarce_jax.ops.logits import Logits, from_patches
from scarce_jax.ops.product import float32_product
from scarce_jax.ops.pyramid import pool_pyramid, resized_convolution
from scarce_jax.ranges import BelowOne


class Embedding(NamedTuple):
    """Features [B, H, W, C] that are a linear function of a few channels, as factors: inputs @ weights."""

    inputs: jax.Array  # [B, H, W, k]
    weights: jax.Array  # [k, C], float32

    @property
    def channels(self) -> int:
        return self.weights.shape[1]


class Level(NamedTuple):
    """Features [B, H, W, C] that are a bilinear resize, with aligned corners, of a small grid."""

    grid: jax.Array  # [B, n, n, C]

    @property
    def channels(self) -> int:
        return self.grid.shape[-1]


Parts = tuple[jax.Array | Embedding | Level, ...]
"""Parts of features [B, H, W, C1 + C2 + ...], before they are concatenated."""


class PartsConv(nn.Module):
    """Convolution at stride 1 over the concatenation of parts: [B, H, W, sum C] -> [B, H, W, features].

    The parameters are those of an `nn.Conv` over the concatenation. The first part is an array.

    An Embedding is never expanded: its weights are multiplied into the kernel, so that it costs only its few input
    channels. For the detailer's 800 channels that saves a third of the operations of a PSPNet-18 of width 32, and 5% of
    those of a PSPNet-101. A Level is not resized: see `resized_convolution`.
    """

    features: int
    kernel: int
    use_bias: bool = False
    kernel_init: Any = he_normal_fan_out
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, parts: Parts, bn: BatchNorm | None = None, *, relu: bool = False) -> jax.Array:
        channels = [part.channels if isinstance(part, Embedding | Level) else part.shape[-1] for part in parts]
        embedded = [isinstance(part, Embedding) for part in parts]

        def init(key: jax.Array, window: tuple[int, int]) -> jax.Array:
            """Draws embeddings apart, so that all other initial values are those of the convolution without them."""
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
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32) if self.use_bias else None
        multiply = functools.partial(self._multiply, parts, channels)
        return with_normalisation(multiply, kernel, bias, jnp.float32, bn, None, relu)

    def _multiply(self, parts: Parts, channels: list[int], kernel: jax.Array) -> jax.Array:
        inputs, kernels, grids, grid_kernels = [], [], [], []
        for part, part_kernel in zip(parts, jnp.split(kernel, np.cumsum(channels)[:-1], axis=2), strict=True):
            if isinstance(part, Level):
                grids.append(part.grid.astype(self.dtype))
                grid_kernels.append(part_kernel.astype(self.dtype))
                continue
            if isinstance(part, Embedding):
                part_kernel = jnp.einsum("kc,ijcf->ijkf", part.weights, part_kernel, precision="highest")
                part = part.inputs
            inputs.append(part.astype(self.dtype))
            kernels.append(part_kernel)
        y = self.convolve(jnp.concatenate(inputs, -1), jnp.concatenate(kernels, 2))
        return y + resized_convolution(grids, grid_kernels, y.shape[1:3]) if grids else y

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Convolves x, in `dtype`, with a float32 kernel."""
        pad = self.kernel // 2
        padding, names = ((pad, pad), (pad, pad)), ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel.astype(x.dtype), (1, 1), padding, dimension_numbers=names)


class PartsHead(PartsConv):
    """PartsConv of 1x1 with bias and a float32 result, see `Head`: parts of [B, H, W, sum C] -> [B, H, W, features]."""

    kernel: int = 1
    use_bias: bool = True
    # With he_normal_fan_out the initial logits of 19 classes would have a standard deviation of about 5.
    kernel_init: Any = uniform_fan_in

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return float32_product(x, kernel[0, 0])


class ConvBlock(nn.Module):
    """Convolution without bias, batch normalisation, ReLU: [B, H, W, sum C] -> [B, H, W, features]."""

    features: int
    kernel: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, parts: Parts, *, train: bool) -> jax.Array:
        layer = PartsConv(self.features, self.kernel, dtype=self.dtype, name="conv")
        return layer(parts, batch_norm(train=train, dtype=self.dtype, name="bn"), relu=True)


class PyramidPooling(nn.Module):
    """PPM (section 3.2): the input, and its averages over 1x1, 2x2, 3x3 and 6x6 bins after a 1x1 convolution.

    Parts of [B, H, W, C] -> parts of [B, H, W, C + 4 * (C0 // 4)]. As in the paper, each level has a quarter of the
    channels of the backbone's features, which are the first part, of C0 channels.
    """

    bins: tuple[int, ...] = (1, 2, 3, 6)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, parts: Parts, *, train: bool) -> Parts:
        pooled = [pool_pyramid(part.inputs if isinstance(part, Embedding) else part, self.bins) for part in parts]
        levels = []
        for index, bins in enumerate(self.bins):
            averages = tuple(
                part._replace(inputs=grids[index]) if isinstance(part, Embedding) else grids[index]
                for part, grids in zip(parts, pooled, strict=True)
            )
            block = ConvBlock(parts[0].shape[-1] // 4, 1, dtype=self.dtype, name=f"bin{bins}")
            levels.append(Level(block(averages, train=train)))
        return (*parts, *levels)


class PSPNet(nn.Module):
    """Image -> class logits at the image's own size.

    Attributes:
      classes: K.
      backbone: encoder, as `BackboneConfig` describes it.
      width: unit of the channels: the final block has 8 times as many, the auxiliary head 4 times. 64 in the paper.
      dropout: probability with which each channel is dropped before the two classifiers.
      patch: see `BackboneConfig`.
      aux: whether there is an auxiliary head on the last level of the backbone but one. The authors weight its loss by
        0.4.
      dtype: dtype of the computation; the sums of the classifiers, parameters and batch statistics are float32.
    """

    classes: int
    backbone: nn.Module
    width: int = 64
    patch: int = 1
    dropout: float = 0.1
    aux: bool = True
    dtype: Any = jnp.float32

    def setup(self):
        self.ppm = PyramidPooling(dtype=self.dtype)
        self.final_block = ConvBlock(8 * self.width, 3, dtype=self.dtype)
        self.final_dropout = nn.Dropout(self.dropout, broadcast_dims=(1, 2))
        self.classifier = PartsHead(self.classes, dtype=self.dtype)
        if self.aux:
            self.aux_block = ConvBlock(4 * self.width, 3, dtype=self.dtype)
            self.aux_dropout = nn.Dropout(self.dropout, broadcast_dims=(1, 2))
            self.aux_classifier = PartsHead(self.classes, dtype=self.dtype)

    def __call__(self, image: jax.Array, *, train: bool) -> tuple[Logits, Logits | None]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB, of any size.
          train: use and update the statistics of this batch, and drop channels (random key "dropout").

        Returns:
          Two float32 [B, H, W, K], not yet resized unless patches reach beyond the image (`ops.logits`): the logits and
          those of the auxiliary head. The latter are None unless `train` and `aux`.
        """
        return self._segment(image, lambda place, parts: parts, train=train)

    def _segment(
        self, image: jax.Array, inject: Callable[[str, Parts], Parts], *, train: bool, mask: jax.Array | None = None
    ) -> tuple[Logits, Logits | None]:
        """The whole net. `inject(place, parts)` may add a part to the features at each place of INJECTIONS.

        Args:
          mask: see `from_patches`.
        """
        size = image.shape[1:3]
        *_, auxiliary, last = entering_head(self.backbone(image, train=train)).values()  # [B, h, w, C] each
        parts = self.ppm(inject("before_pool", (last,)), train=train)
        x = self.final_block(inject("after_pool", parts), train=train)
        x = self.final_dropout(x, deterministic=not train)
        logits = self.classifier(inject("after_final", (x,)))  # [B, h, w, K]
        logits = from_patches(logits, size, self.patch, mask)
        # The initialisation creates the parameters of the auxiliary head whether `train` is set or not.
        if not self.aux or not (train or self.is_initializing()):
            return logits, None
        x = self.aux_block((auxiliary,), train=train)
        x = self.aux_dropout(x, deterministic=not train)
        aux_logits = from_patches(self.aux_classifier((x,)), size, self.patch)
        return logits, aux_logits if train else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PSPNetConfig(BackboneNetConfig):
    """PSPNet (Zhao et al., 2017): a dilated backbone with pyramid pooling and an auxiliary head.

    Attributes:
      backbone: the backbone, chosen by its kind; a ResNet of 101 layers in the paper.
      stride: stride of the last features of a ResNet or a VGG. 8 in the paper.
      dropout: probability, below 1, with which each channel is dropped before the classifiers. 0.1 in the paper.
    """

    module = PSPNet

    kind: Annotated[Literal["pspnet"], KIND] = "pspnet"
    backbone: Backbone = ResNetConfig(depth=101)
    stride: Literal[8, 16, 32] = 8
    dropout: BelowOne = 0.1
