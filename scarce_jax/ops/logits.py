"""Class logits that stay small until all of their pixels are needed.

A net whose logits are computed at a fraction of the image's size returns `Resized` or `Phases` in place of an array of
K values for each pixel. `losses.cross_entropy` takes them as they are. All else calls `full_size`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import struct

from scarce_jax.ops.resize import resize_bilinear


@struct.dataclass
class Resized:
    """Logits that are resized bilinearly, and the classes of a mask, which are one larger.

    Attributes:
      coarse: floating [B, h, w, K].
      size: (H, W) of the full logits.
      align_corners: as in `resize_bilinear`.
      mask: integer [B, H, W]; 1 is added to the logit of each pixel's class. Other values than 0..K-1 add nothing. None
        adds nothing anywhere.
    """

    coarse: jax.Array
    size: tuple[int, int] = struct.field(pytree_node=False)
    align_corners: bool = struct.field(pytree_node=False)
    mask: jax.Array | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, W, K), the shape of the full logits."""
        return (self.coarse.shape[0], *self.size, self.coarse.shape[-1])

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of the full logits."""
        return jnp.dtype(jnp.float32)

    def full(self) -> jax.Array:
        """The logits of all pixels, float32 [B, H, W, K]."""
        logits = resize_bilinear(self.coarse.astype(jnp.float32), self.size, align_corners=self.align_corners)
        return logits if self.mask is None else logits + one_hot(self.mask, self.coarse.shape[-1])


@struct.dataclass
class Phases:
    """Logits as the phases of a transposed convolution, before depth to space.

    Pixel (stride * i + p - offset, stride * j + q - offset) of the full logits has the channels from
    (stride * p + q) * K of place (i, j). Places outside the full logits belong to no pixel.

    Attributes:
      phases: floating [B, h, w, stride**2 * K].
      size: (H, W) of the full logits.
      stride: number of phases along an axis.
      offset: rows and columns that are cut off at the start.
    """

    phases: jax.Array
    size: tuple[int, int] = struct.field(pytree_node=False)
    stride: int = struct.field(pytree_node=False)
    offset: int = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, W, K), the shape of the full logits."""
        return (self.phases.shape[0], *self.size, self.phases.shape[-1] // self.stride**2)

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of the full logits."""
        return jnp.dtype(jnp.float32)

    def full(self) -> jax.Array:
        """The logits of all pixels, float32 [B, H, W, K]."""
        return self.image().astype(jnp.float32)

    def image(self) -> jax.Array:
        """The values of all pixels, [B, H, W, K] in the dtype of `phases`."""
        image = rearrange(self.phases, "b h w (p q k) -> b (h p) (w q) k", p=self.stride, q=self.stride)
        rows, columns = (slice(self.offset, self.offset + length) for length in self.size)
        return image[:, rows, columns]

    def split(self) -> jax.Array:
        """The logits by place and phase, [B, h, w, stride**2, K] in the dtype of `phases`."""
        return rearrange(self.phases, "b h w (p k) -> b h w p k", p=self.stride**2)

    def arrange(self, labels: jax.Array, fill: int) -> jax.Array:
        """Values of pixels [B, H, W] in the order of `split`, [B, h, w, stride**2], `fill` outside the full logits."""
        ends = (
            (self.offset, places * self.stride - self.offset - length)
            for places, length in zip(self.phases.shape[1:3], self.size, strict=True)
        )
        labels = jnp.pad(labels, ((0, 0), *ends), constant_values=fill)
        return rearrange(labels, "b (h p) (w q) -> b h w (p q)", p=self.stride, q=self.stride)


Logits = jax.Array | Resized | Phases
"""What a segmentation net returns: logits [B, H, W, K], or what they are computed from."""


def from_patches(
    coarse: jax.Array,
    size: tuple[int, int],
    patch: int,
    mask: jax.Array | None = None,
    *,
    align_corners: bool = True,
) -> Resized | jax.Array:
    """Logits of features that may belong to square patches of the image.

    Patches have their outer edges on those of the image. Where the last patches reach beyond it, their logits are
    resized at once, and cut.

    Args:
      coarse: floating [B, h, w, K].
      size: (H, W) of the full logits.
      patch: side of the patches, with h = H / patch rounded up; 1 for features that belong to no patches.
      mask: as in `Resized`.
      align_corners: whether features that belong to no patches are resized with their corners on the image's.
    """
    covered = tuple(patch * count for count in coarse.shape[1:3]) if patch > 1 else size
    logits = Resized(coarse, size=covered, align_corners=align_corners and patch == 1)
    if covered == size:
        return logits.replace(mask=mask)
    full = logits.full()[:, : size[0], : size[1]]
    return full if mask is None else full + one_hot(mask, coarse.shape[-1])


def full_size(logits: Logits) -> jax.Array:
    """Logits of all pixels, float32 [B, H, W, K]."""
    return logits.full() if isinstance(logits, Resized | Phases) else logits.astype(jnp.float32)


def one_hot(mask: jax.Array, classes: int) -> jax.Array:
    """bool [..., K], true at the class of integers [...], nowhere if it is not in 0..K-1."""
    return mask[..., None] == jnp.arange(classes, dtype=mask.dtype)
