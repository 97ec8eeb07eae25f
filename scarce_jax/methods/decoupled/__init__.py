"""The decoupled method: tags of all images teach which classes there are, a few masks where any class is.

Hong, Noh, Han: "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation". Stages (* with `compare`):
`classifier`, trained on the tags of all images; `pointing`, whether its saliency lies on the classes; `decoupled`,
bridging layers and deconvolution net, trained on the few masks with the classifier frozen. The budget is meant to be
`per_class`.

`strong_classifier`* and `strong_only`* are both trained on the images with masks alone, and `deconvnet`* is one net for
all classes, trained on them for as many steps. With `decoupled.reestimate` stages `decoupled_statistics` and
`strong_only_statistics`* average batch statistics after training.
"""

from scarce_jax.methods.decoupled.recipe import ClassifierStage, Config, DeconvNetStage, recipe

__all__ = ["ClassifierStage", "Config", "DeconvNetStage", "recipe"]
