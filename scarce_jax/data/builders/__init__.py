"""Datasets: one tfds builder each, and the functions that prepare and find them."""

from scarce_jax.data.builders.base import (
    Prepared,
    SegmentationBuilder,
    dataset_dir,
    default_data_dir,
    is_prepared,
    load_info,
    load_prepared,
    prepare,
    prepare_command,
)
from scarce_jax.data.builders.camvid import Camvid
from scarce_jax.data.builders.scenes import Scenes

BUILDERS: dict[str, type[SegmentationBuilder]] = {
    "camvid": Camvid,
    "scenes": Scenes,
}
"""Dataset name -> its builder; what follows a slash in the name is the builder's config."""

__all__ = [
    "BUILDERS",
    "Prepared",
    "SegmentationBuilder",
    "dataset_dir",
    "default_data_dir",
    "is_prepared",
    "load_info",
    "load_prepared",
    "prepare",
    "prepare_command",
]
