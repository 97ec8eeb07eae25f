"""Published weights that a net can name in `init_from`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from scarce_jax.models.weights.files import HUB, url


@dataclasses.dataclass(frozen=True)
class Published:
    """A file of weights on the Hugging Face Hub.

    Attributes:
      name: "OWNER/NAME" on the Hub.
      what: the net and its training data, in words.
      parameters: their number, in millions.
      licence: as the publisher's page names it; None where that could not be seen.
      kind: of the backbone that takes it.
      settings: fields of the backbone's config that differ from its defaults, or may.
    """

    name: str
    what: str
    parameters: float
    licence: str | None
    kind: str
    settings: Mapping[str, Any]

    @property
    def origin(self) -> str:
        """The text for `init_from`."""
        return f"{HUB}{self.name}"

    @property
    def megabytes(self) -> float:
        """Size of its arrays in float32."""
        return 4 * self.parameters

    @property
    def url(self) -> str:
        """Address of the file."""
        return url(self.name)


def _resnet(depth: int, parameters: float) -> Published:
    name, what = f"timm/resnet{depth}.tv_in1k", f"torchvision's ResNet-{depth}, ImageNet"
    return Published(name, what, parameters, "bsd-3-clause", "resnet", {"depth": depth})


def _dinov2(size: str, letter: str, parameters: float, registers: bool) -> Published:
    name = f"facebook/dinov2-{'with-registers-' if registers else ''}{size}"
    what = f"DINOv2 ViT-{letter}/14{' with registers' if registers else ''}, LVD-142M"
    licence = None if registers and size != "base" else "apache-2.0"
    return Published(name, what, parameters, licence, "dinov2", {"size": size, "registers": registers})


_SIZES = (("small", "S", 22.06), ("base", "B", 86.58), ("large", "L", 304.37))

PUBLISHED = (
    *(_resnet(depth, parameters) for depth, parameters in ((18, 11.69), (34, 21.80), (50, 25.56), (101, 44.55))),
    Published("timm/vgg16.tv_in1k", "torchvision's VGG-16, ImageNet", 138.36, "bsd-3-clause", "vgg16", {}),
    Published(
        "timm/vgg16_bn.tv_in1k",
        "torchvision's VGG-16 with batch normalisation, ImageNet",
        138.37,
        "bsd-3-clause",
        "vgg16",
        {"batch_norm": True},
    ),
    *(_dinov2(*size, registers) for registers in (False, True) for size in _SIZES),
)
"""Files with the layouts that are known, of nets that are known."""
