"""The decoupled method: tags of all images teach which classes an image shows, a few masks teach their outlines.

Hong, Noh and Han, "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation". The budget should be a
per-class budget (`budget.per_class`).

Stages (* with `compare`):

- `classifier` trains on the tags of all images.
- `pointing` measures whether the classifier's saliency lies on the classes.
- `decoupled` trains bridging layers and deconvolution net on the few masks, with the classifier frozen.
- `strong_classifier`* and `strong_only`* repeat both trainings on only the images with masks.
- `deconvnet`* trains one net for all classes on the same images, for as many steps as `decoupled`.
- `decoupled_statistics` and `strong_only_statistics`* average the batch statistics after the training, if
  `decoupled.reestimate` is set.
"""

from scarce_jax.methods.decoupled.recipe import ClassifierStage, Config, DeconvNetStage, recipe

__all__ = ["ClassifierStage", "Config", "DeconvNetStage", "recipe"]
