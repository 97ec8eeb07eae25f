"""Train steps at the papers' sizes: config, sizes and stage of each."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import device

from scarce_jax.cli.common import load_config

replace = dataclasses.replace

TINY_HIDDEN = 64
"""Channels of fc6 and fc7 of the nets that have 4096, at sizes for a CPU."""


class Net(NamedTuple):
    """A training stage of a config at the sizes of its paper."""

    config: str
    stage: str
    size: tuple[int, int]
    batch: int
    tiny: tuple[int, int]


NETS = {
    "pspnet340": Net("detailer_cityscapes.py", "classifier", (340, 340), 16, (64, 64)),
    "pspnet713": Net("detailer_cityscapes.py", "classifier", (713, 713), 16, (64, 64)),
    "detailer340": Net("detailer_cityscapes.py", "detailer", (340, 340), 16, (64, 64)),
    "dsnet": Net("auxiliary_cityscapes.py", "segmenter", (512, 1024), 8, (64, 64)),
    "largefov": Net("transfer_voc_split1.py", "segmenter", (321, 321), 30, (65, 65)),
    "decoupled": Net("decoupled_voc.py", "decoupled", (320, 320), 64, (224, 224)),
    "deconvnet": Net("decoupled_voc.py", "deconvnet", (320, 320), 64, (224, 224)),
    "deeplabv2": Net("auxiliary_cityscapes_deeplabv2.py", "segmenter", (512, 1024), 2, (64, 64)),
    "deeplabv3plus": Net("three_step_voc.py", "segmenter", (352, 352), 12, (96, 96)),
}
"""Name -> stage. The batches of PSPNet, detailer and DSNet are those of a GPU, larger than the papers'."""


def config_of(name: str, tiny: bool) -> tuple[Any, str]:
    """The config of a net, and the name of its stage.

    Args:
      tiny: 2 images of a size for a CPU, in float32, and fewer hidden channels; otherwise bfloat16.
    """
    net = NETS[name]
    config = load_config(device.ROOT / "configs" / net.config)
    crop, batch = (net.tiny, 2) if tiny else (net.size, net.batch)
    changes = {
        stage: _resized(value, crop, batch, tiny)
        for stage, value in vars(config).items()
        if hasattr(value, "batch") and (hasattr(value, "augment") or hasattr(value, "crops"))
    }
    config = replace(config, dtype="float32" if tiny else "bfloat16", **changes)
    # Some stages belong to a comparison.
    return (replace(config, compare=True) if hasattr(config, "compare") else config), net.stage


def _resized(stage: Any, crop: tuple[int, int], batch: int, tiny: bool) -> Any:
    """A stage with other crops. Its frames have the size of the crops where they are not larger in the config."""
    cut = "augment" if hasattr(stage, "augment") else "crops"
    larger = stage.size != getattr(stage, cut).crop
    size = stage.size if larger and not tiny else crop
    if tiny and hasattr(stage, "hidden"):
        stage = replace(stage, hidden=TINY_HIDDEN // 2)
    if tiny and hasattr(getattr(stage, "net", None), "hidden"):
        stage = replace(stage, net=replace(stage.net, hidden=TINY_HIDDEN))
    return replace(stage, batch=batch, size=size, **{cut: replace(getattr(stage, cut), crop=crop)})


def stage_of(name: str, tiny: bool) -> tuple[Any, ...]:
    """(config, dataset's facts, recipe, stage) of a net."""
    from scarce_jax.dry_run import known_recipe

    config, stage = config_of(name, tiny)
    info, recipe = known_recipe(config, None)
    return config, info, recipe, recipe.stage(stage)
