"""Last layers: float32 logits of features in any dtype."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.ops.product import float32_product


class Head(nn.Module):
    """1x1 convolution: [B, H, W, C] -> float32 [B, H, W, features].

    Operands are in the dtype of the features, sums and the result in float32. The parameters are those of an `nn.Conv`.
    """

    features: int
    kernel_init: Any = nn.initializers.lecun_normal()
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (1, 1, x.shape[-1], self.features), jnp.float32)
        y = float32_product(x, kernel[0, 0])
        return y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32) if self.use_bias else y
