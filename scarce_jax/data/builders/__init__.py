"""Builders of all datasets, and functions that prepare and find datasets."""

from scarce_jax.data.builders.base import SegmentationBuilder
from scarce_jax.data.builders.build import prepare
from scarce_jax.data.builders.camvid import Camvid
from scarce_jax.data.builders.cityscapes import Cityscapes
from scarce_jax.data.builders.coco import Coco, CocoWithVoc
from scarce_jax.data.builders.folder import Folder
from scarce_jax.data.builders.imagenet import ImageNet
from scarce_jax.data.builders.lid import Lid
from scarce_jax.data.builders.prepared import (
    Prepared,
    dataset_dir,
    default_data_dir,
    import_builder,
    is_generated,
    is_prepared,
    load_info,
    load_prepared,
    prepare_command,
)
from scarce_jax.data.builders.scenes import ColouredScenes, Scenes
from scarce_jax.data.builders.voc import Voc, VocAnimals

BUILDERS: dict[str, type[SegmentationBuilder]] = {
    "camvid": Camvid,
    "cityscapes": Cityscapes,
    "coco": Coco,
    "coco/with_voc": CocoWithVoc,
    "folder": Folder,
    "imagenet": ImageNet,
    "lid": Lid,
    "scenes": Scenes,
    "scenes/coloured": ColouredScenes,
    "voc": Voc,
    "voc/animals": VocAnimals,
}
"""Dataset name -> builder. The part after a slash is the builder's config, or a name that the user chooses."""

__all__ = [
    "BUILDERS",
    "Prepared",
    "SegmentationBuilder",
    "dataset_dir",
    "default_data_dir",
    "import_builder",
    "is_generated",
    "is_prepared",
    "load_info",
    "load_prepared",
    "prepare",
    "prepare_command",
]
