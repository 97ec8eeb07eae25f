"""The segmentation nets that a stage of any method can train, by the names that configs have for them."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from scarce_jax.models.deeplab import DeepLabV2
from scarce_jax.models.dsnet import DSNet, DSNetEncoder
from scarce_jax.models.pspnet import PSPNet
from scarce_jax.models.resnet import ResNet


def network(config: Any, stage: Any, classes: int) -> nn.Module:
    """The net of a `SegmenterStage`: `module(image, train=...) -> (logits, auxiliary logits or None)`."""
    dtype = compute_dtype(config)
    if stage.net == "dsnet":
        return DSNet(classes=classes, width=stage.width, dtype=dtype)
    if stage.net == "deeplabv2":
        return DeepLabV2(classes=classes, depth=stage.depth, width=stage.width, dtype=dtype)
    return PSPNet(classes=classes, depth=stage.depth, width=stage.width, dropout=stage.dropout, dtype=dtype)


def backbone(config: Any, stage: Any) -> nn.Module:
    """The trunk of that net by itself; its parameters are the net's under "backbone"."""
    dtype = compute_dtype(config)
    if stage.net == "dsnet":
        return DSNetEncoder(stage.width, dtype=dtype)
    return ResNet(stage.depth, width=stage.width, caffe=stage.net == "deeplabv2", dtype=dtype)


def compute_dtype(config: Any) -> jnp.dtype:
    """The modules' compute dtype; an unresolved "auto" counts as float32."""
    return jnp.bfloat16 if config.dtype == "bfloat16" else jnp.float32
