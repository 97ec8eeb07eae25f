"""The segmentation nets that every method can train, selected by the kind of their config.

To add a net, write a file with its module and its config (see `tiny.py`), and add the config to `SegmenterConfig`.
"""

from __future__ import annotations

from typing import Annotated

import pydantic

from scarce_jax.models.cam_vgg import CamVGGConfig
from scarce_jax.models.deconvolution import DeconvNetConfig
from scarce_jax.models.deeplab import DeepLabV2Config
from scarce_jax.models.deeplabv3plus import DeepLabV3PlusConfig, DeepLabV3PlusDetailerConfig
from scarce_jax.models.detailer import DetailerConfig
from scarce_jax.models.dsnet import DSNetConfig
from scarce_jax.models.fcn import FCNConfig, FCNDetailerConfig
from scarce_jax.models.largefov import LargeFOVConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.tiny import TinyConfig

SegmenterConfig = (
    PSPNetConfig
    | FCNConfig
    | DSNetConfig
    | DeepLabV2Config
    | DeepLabV3PlusConfig
    | LargeFOVConfig
    | DeconvNetConfig
    | TinyConfig
)

Segmenter = Annotated[SegmenterConfig, pydantic.Field(discriminator="kind")]
"""Annotation of the field `net` of a stage. In JSON the entry "kind" selects the config."""

DetailerNet = Annotated[
    DetailerConfig | FCNDetailerConfig | DeepLabV3PlusDetailerConfig | TinyConfig, pydantic.Field(discriminator="kind")
]
"""The same for nets that also read a coarse mask."""

TagNet = Annotated[SegmenterConfig | CamVGGConfig, pydantic.Field(discriminator="kind")]
"""The same for classifiers of image tags, on the trunks of these nets."""
