"""The segmentation nets that a stage of any method can train, chosen by the type of their config.

A new net is a file with its module and its config (fields, `kind`, `full_size`, `build`, `classifier`; see `tiny.py`),
and its name in `Segmenter`.
"""

from __future__ import annotations

from typing import Annotated

import pydantic

from scarce_jax.models.deconvolution import DeconvNetConfig
from scarce_jax.models.deeplab import DeepLabV2Config
from scarce_jax.models.detailer import DetailerConfig
from scarce_jax.models.dsnet import DSNetConfig
from scarce_jax.models.largefov import LargeFOVConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.tiny import TinyConfig

Net = PSPNetConfig | DSNetConfig | DeepLabV2Config | LargeFOVConfig | DeconvNetConfig | TinyConfig

Segmenter = Annotated[Net, pydantic.Field(discriminator="kind")]
"""Annotation of a stage's field `net: Segmenter = PSPNetConfig()`. JSON names the type by its entry "kind"."""

DetailerNet = Annotated[DetailerConfig | TinyConfig, pydantic.Field(discriminator="kind")]
"""The same for nets that also read a coarse mask: `net: DetailerNet = DetailerConfig()`."""
