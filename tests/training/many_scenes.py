"""More `scenes` than one part of records holds."""

from scarce_jax.data.builders.scenes import Scenes


class ManyScenes(Scenes):
    SIZES = {"train": 70, "val": 3}
