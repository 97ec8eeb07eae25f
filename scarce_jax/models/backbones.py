"""The backbones that nets can stand on, selected by the kind of their config.

To add a backbone, write a file with its module and its config (see `resnet.py`), and add the config to `Backbone`.
"""

from __future__ import annotations

from typing import Annotated

import pydantic

from scarce_jax.models.dinov2 import DINOv2Config
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.vgg import VGGConfig

Backbone = Annotated[ResNetConfig | VGGConfig | DINOv2Config, pydantic.Field(discriminator="kind")]
"""Annotation of the field `backbone` of a net. In JSON the entry "kind" selects the config."""
