"""DINOv2 (Oquab et al., 2023) as a backbone: a vision transformer on patches of 14 x 14 pixels.

Without the mask token, which only pretraining reads, it has 22,056,192 parameters (small), 86,579,712 (base) or
304,367,616 (large), and four tokens more with registers (Darcet et al., 2023, "Vision Transformers Need Registers").
There is neither dropout nor stochastic depth, and the giant size with its SwiGLU is left out.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from annotated_types import Interval

from scarce_jax.models.fields import KIND, BackboneConfig
from scarce_jax.models.normalisation import Normalisation, renormalise
from scarce_jax.models.tracing import block
from scarce_jax.ops.bicubic import resize_bicubic
from scarce_jax.optim import Group

PATCH = 14
"""Side of a patch in pixels."""

REGISTERS = 4
"""Number of registers of the published models that have them."""

LEVELS = 4


class Size(NamedTuple):
    """Numbers of a published size."""

    width: int
    blocks: int
    heads: int


SIZES = {"small": Size(384, 12, 6), "base": Size(768, 12, 12), "large": Size(1024, 24, 16)}

_EMBEDDINGS = "patch|class_token|registers|positions"

_initial = nn.initializers.truncated_normal(0.02)


class Block(nn.Module):
    """Transformer block with normalisation before each of its halves and LayerScale after it: [B, T, C] -> [B, T, C].

    Attributes:
      heads: number of attention heads, a divisor of C.
      dtype: dtype of the computation and the tokens; the softmax and the statistics of the normalisations are float32.
    """

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        width = tokens.shape[-1]
        dense = functools.partial(nn.Dense, kernel_init=_initial, dtype=self.dtype)
        x = layer_norm(self.dtype, "norm1")(tokens)
        x = dense(3 * width, name="qkv")(x).reshape(*x.shape[:2], 3, self.heads, width // self.heads)
        query, key, value = (x[:, :, index] for index in range(3))  # [B, T, heads, C / heads]
        x = jax.nn.dot_product_attention(query, key, value).reshape(tokens.shape)
        tokens = tokens + dense(width, name="projection")(x) * self._scale("scale1", width)
        x = layer_norm(self.dtype, "norm2")(tokens)
        x = nn.gelu(dense(4 * width, name="mlp1")(x), approximate=False)
        return tokens + dense(width, name="mlp2")(x) * self._scale("scale2", width)

    def _scale(self, name: str, width: int) -> jax.Array:
        """Factors of LayerScale (Touvron et al., 2021). The authors of DINOv2 start from 1e-5."""
        return self.param(name, nn.initializers.constant(1e-5), (width,), jnp.float32).astype(self.dtype)


def layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    """Layer normalisation as in DINOv2."""
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, name=name)


class DINOv2(nn.Module):
    """Image -> features of its patches at four levels.

    Attributes:
      width: channels C.
      blocks: number of blocks, a multiple of 4.
      heads: attention heads of a block.
      registers: number of registers: tokens that belong to no patch. With registers the positions are resized with
        antialiasing, without them not, both as in `transformers`.
      grid: rows and columns of the learned positions; the published ones are of images of 518 x 518.
      normalisation: see BackboneConfig.
      frozen: number of parts without gradient, 0 to 5: the embeddings (with the positions), and each quarter of the
        blocks. The final normalisation belongs to the last one.
      dtype: dtype of the computation and the features; parameters are float32.
    """

    width: int
    blocks: int
    heads: int
    registers: int = 0
    grid: int = 37
    normalisation: Normalisation = "imagenet"
    frozen: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Encodes images.

        Args:
          image: float [B, H, W, 3], normalised RGB, of any size. Where a side is no multiple of 14, zeros at the bottom
            and at the right, which are ImageNet's mean colour, make it one.
          train: has no effect: there is neither dropout nor a batch normalisation.

        Returns:
          [B, h, w, C] in `dtype`, h = H / 14 rounded up, for layer1 to layer4, the outputs of each quarter of the
          blocks. The last one is normalised.

        Raises:
          ValueError: the number of blocks is no multiple of 4, or there are not 0 to 5 frozen parts.
        """
        if self.blocks % LEVELS or not 0 <= self.frozen <= LEVELS + 1:
            raise ValueError(
                f"blocks are {self.blocks} and frozen is {self.frozen}; expected a multiple of {LEVELS}, and 0 to "
                f"{LEVELS + 1}"
            )
        rows, columns = (-(-side // PATCH) for side in image.shape[1:3])
        tokens = self._fixed(self._embed(image, rows, columns), 1)
        special, levels = 1 + self.registers, {}
        for level in range(1, LEVELS + 1):
            for index in range(self.blocks * (level - 1) // LEVELS, self.blocks * level // LEVELS):
                tokens = block(Block(self.heads, self.dtype, name=f"block{index}"), Block.__call__, tokens)
            patches = layer_norm(self.dtype, "norm")(tokens[:, special:]) if level == LEVELS else tokens[:, special:]
            tokens, patches = (self._fixed(x, level + 1) for x in (tokens, patches))
            levels[f"layer{level}"] = patches.reshape(-1, rows, columns, self.width)
        return levels

    def _fixed(self, x: jax.Array, parts: int) -> jax.Array:
        """What so many parts have computed, without its gradient if all of them are frozen."""
        return jax.lax.stop_gradient(x) if parts <= self.frozen else x

    def _embed(self, image: jax.Array, rows: int, columns: int) -> jax.Array:
        """Tokens [B, T, C]: the class token, the registers, and the patches in the order of rows."""
        image = renormalise(image, self.normalisation)
        ends = (side * PATCH - length for side, length in zip((rows, columns), image.shape[1:3], strict=True))
        image = jnp.pad(image, ((0, 0), *((0, end) for end in ends), (0, 0)))
        patch = nn.Conv(
            self.width, (PATCH,) * 2, PATCH, padding="VALID", kernel_init=_initial, dtype=self.dtype, name="patch"
        )
        patches = patch(image).reshape(len(image), rows * columns, self.width)

        learned = functools.partial(self.param, init_fn=_initial)
        class_token = learned("class_token", shape=(1, self.width))
        positions = learned("positions", shape=(1 + self.grid**2, self.width))
        grid = positions[1:].reshape(self.grid, self.grid, self.width)
        grid = resize_bicubic(grid, (rows, columns), antialias=self.registers > 0).reshape(-1, self.width)
        special = class_token + positions[:1]
        if self.registers:
            special = jnp.concatenate([special, learned("registers", shape=(self.registers, self.width))])
        special = jnp.broadcast_to(special, (len(image), *special.shape)).astype(self.dtype)
        return jnp.concatenate([special, patches + grid.astype(self.dtype)], 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DINOv2Config(BackboneConfig):
    """DINOv2 (Oquab et al., 2023): a vision transformer, pretrained without labels.

    Attributes:
      size: small (22 million parameters), base (87) or large (304).
      registers: whether it is a model with registers (Darcet et al., 2023).
      normalisation: input normalisation; the published weights need imagenet.
      frozen: number of parts that are not trained: 0 none, 1 the embeddings, and one more for each quarter of the
        blocks; 5 all.
    """

    patch = PATCH

    kind: Annotated[Literal["dinov2"], KIND] = "dinov2"
    size: Literal["small", "base", "large"] = "small"
    registers: bool = False
    frozen: Annotated[int, Interval(ge=0, le=5)] = 0

    @property
    def head_width(self) -> int:
        """64, as in the papers, whatever the size."""
        return 64

    @property
    def frozen_pattern(self) -> str | None:
        """Regular expression that finds the paths of the parameters of frozen parts; None for none."""
        if not self.frozen or self.frozen > LEVELS:
            return "^backbone/" if self.frozen else None
        blocks = range(SIZES[self.size].blocks * (self.frozen - 1) // LEVELS)
        return rf"^backbone/(?:{'|'.join((_EMBEDDINGS, *(f'block{index}' for index in blocks)))})(?:/|$)"

    def build(self, stride: int, dtype: Any = jnp.float32) -> DINOv2:
        """The module; its stride is 14, whatever `stride`."""
        return DINOv2(
            **SIZES[self.size]._asdict(),
            registers=REGISTERS if self.registers else 0,
            normalisation=self.normalisation,
            frozen=self.frozen,
            dtype=dtype,
        )

    def layer_groups(self, decay: float) -> tuple[Group, ...]:
        """Groups of an optimizer whose learning rates decay from layer to layer towards the image.

        The last block has the learning rate of the optimizer times `decay`, each block before it another factor, and
        the embeddings one more (Clark et al., ELECTRA, 2020; Bao et al., BEiT, 2021). No group has the final
        normalisation, whose rate is that of the head.
        """
        count = SIZES[self.size].blocks
        blocks = (Group(pattern=f"^backbone/block{i}/", lr=decay ** (count - i)) for i in range(count))
        return Group(pattern=rf"^backbone/(?:{_EMBEDDINGS})(?:/|$)", lr=decay ** (count + 1)), *blocks
