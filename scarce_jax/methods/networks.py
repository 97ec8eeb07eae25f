"""The segmentation nets that a stage of any method can train, by the names that configs have for them."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from scarce_jax.errors import InputError
from scarce_jax.models.cam import CamClassifier
from scarce_jax.models.deeplab import DeepLabV2
from scarce_jax.models.dsnet import DSNet, DSNetEncoder
from scarce_jax.models.largefov import LargeFOV
from scarce_jax.models.pspnet import PSPNet
from scarce_jax.models.resnet import ResNet
from scarce_jax.models.tags import TagClassifier


def network(config: Any, stage: Any, classes: int) -> nn.Module:
    """The net of a `SegmenterStage`: `module(image, train=...) -> (logits, auxiliary logits or None)`.

    Logits are of the image's size, but LargeFOV's of an eighth of it.
    """
    dtype = compute_dtype(config)
    if stage.net == "dsnet":
        return DSNet(classes=classes, width=stage.width, dtype=dtype)
    if stage.net == "largefov":
        return LargeFOV(
            classes=classes, width=stage.width, batch_norm=stage.batch_norm, dropout=stage.dropout, dtype=dtype
        )
    if stage.net == "deeplabv2":
        return DeepLabV2(classes=classes, depth=stage.depth, width=stage.width, dtype=dtype)
    return PSPNet(classes=classes, depth=stage.depth, width=stage.width, dropout=stage.dropout, dtype=dtype)


def full_size_network(config: Any, stage: Any, classes: int, name: str) -> nn.Module:
    """`network`, for what needs logits of the image's size; `name` is the stage's in the config.

    Raises:
      InputError: the net's are smaller.
    """
    if stage.net == "largefov":
        raise InputError(
            f"{name}.net is largefov, whose logits are an eighth of the image; expected pspnet, dsnet or deeplabv2 here"
        )
    return network(config, stage, classes)


def backbone(config: Any, stage: Any) -> nn.Module:
    """The trunk of that net by itself, other than LargeFOV's; its parameters are the net's under "backbone"."""
    dtype = compute_dtype(config)
    if stage.net == "dsnet":
        return DSNetEncoder(stage.width, dtype=dtype)
    return ResNet(stage.depth, width=stage.width, caffe=stage.net == "deeplabv2", dtype=dtype)


def classifier(config: Any, stage: Any, tags: int) -> nn.Module:
    """A classifier of image tags on that trunk: `module(image, train=...) -> logits [B, tags]`.

    Its method `maps(image)` gives class activation maps [B, h, w, tags].
    """
    if stage.net == "largefov":
        return CamClassifier(
            classes=tags,
            width=stage.width,
            batch_norm=stage.batch_norm,
            dropout=stage.dropout,
            dtype=compute_dtype(config),
        )
    return TagClassifier(backbone=backbone(config, stage), classes=tags, dropout=stage.dropout)


def compute_dtype(config: Any) -> jnp.dtype:
    """The modules' compute dtype; an unresolved "auto" counts as float32."""
    return jnp.bfloat16 if config.dtype == "bfloat16" else jnp.float32
