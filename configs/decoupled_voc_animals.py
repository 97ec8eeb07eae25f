"""The decoupled method on VOC's animals: six classes, ten masks of each.

Paper: Hong, Noh and Han, "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation". All settings are
those of decoupled_voc.py, with half the steps for fewer images and classes. No figure of the paper is comparable. This
config was not run.

Command: scarce-jax prepare voc/animals --source VOC; scarce-jax train decoupled_voc_animals --compare
"""

import dataclasses

from scarce_jax.shipped import variables

_voc = variables("decoupled_voc")
_config = _voc["config"]

config = dataclasses.replace(
    _config,
    dataset="voc/animals",
    classifier=dataclasses.replace(_config.classifier, steps=2_750, eval_every=550, optim=_voc["of_tags"](6)),
    decoupled=dataclasses.replace(_config.decoupled, steps=3_750),
    paper={},
)
