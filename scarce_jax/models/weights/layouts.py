"""The layouts that are known, and which of them a file has."""

from __future__ import annotations

import pathlib
from collections.abc import Collection

from scarce_jax.errors import InputError, some
from scarce_jax.models.weights import deeplab, dinov2, keras, torch_resnet, torch_vgg
from scarce_jax.models.weights.layout import Layout

LAYOUTS = (
    deeplab.DEEPLAB,
    torch_resnet.SEMSEG,
    torch_resnet.TORCHVISION,
    torch_vgg.TORCHVISION,
    keras.RESNET,
    keras.VGG,
    dinov2.LAYOUT,
)
"""The first one that recognises a file counts."""


def recognise(path: pathlib.Path, keys: Collection[str]) -> Layout:
    """The layout of a file.

    Raises:
      InputError: it has none that is known.
    """
    for layout in LAYOUTS:
        if layout.recognises(keys):
            return layout
    names = ", ".join(layout.name for layout in LAYOUTS)
    raise InputError(
        f"{path}: found arrays called {some(sorted(keys), 3) or 'nothing'}, expected those of {names}; use such a file "
        f"(`scarce-jax weights` lists some)"
    )
