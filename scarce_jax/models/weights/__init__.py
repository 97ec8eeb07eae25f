"""Import of trained weights from published files.

`files` locates and reads a file of any kind, `layouts` recognises whose names its arrays have, one module a layout
(`torch_resnet`, `torch_vgg`, `keras`, `deeplab`, `dinov2`) translates these names to parameter paths, `checks` compares
what comes of it with the net, and `importing` does all of it. `published` lists files that can be named.

A layout implies the geometry of the net and the normalisation of its images. A .safetensors file may state others in
its metadata, under the keys of `files.STATED`.
"""

from scarce_jax.models.weights.checks import SETTINGS, TRUNK, Backbone, check_backbone, flat_shapes, settings
from scarce_jax.models.weights.files import HUB, SUFFIXES, file_hash, locate, read_file
from scarce_jax.models.weights.importing import Imported, describe, import_weights, overlay

__all__ = [
    "HUB",
    "SETTINGS",
    "SUFFIXES",
    "TRUNK",
    "Backbone",
    "Imported",
    "check_backbone",
    "describe",
    "file_hash",
    "flat_shapes",
    "import_weights",
    "locate",
    "overlay",
    "read_file",
    "settings",
]
