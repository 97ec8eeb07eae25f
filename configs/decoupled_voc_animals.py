"""The decoupled method on VOC's animals: six classes, ten masks of each.

Paper: Hong, Noh and Han, "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation"; all as in
decoupled_voc.py with half the steps, since there are fewer images and classes. No figure of it is comparable. Nothing
of it was run here.
Command: scarce-jax prepare voc/animals --source VOC; scarce-jax train configs/decoupled_voc_animals.py --compare
"""

import dataclasses
import pathlib
import runpy

_config = runpy.run_path(str(pathlib.Path(__file__).with_name("decoupled_voc.py")))["config"]

config = dataclasses.replace(
    _config,
    dataset="voc/animals",
    classifier=dataclasses.replace(_config.classifier, steps=2_750, eval_every=550),
    decoupled=dataclasses.replace(_config.decoupled, steps=3_750),
    paper={},
)
