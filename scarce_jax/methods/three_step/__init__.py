"""Three steps from image tags to masks: class activation maps, IRNet, DeepLabv3+.

Dobko, Viniavskiy, Dobosevych: "NoPeopleAllowed: The Three-Step Approach to Weakly Supervised Semantic Segmentation".
No mask is read in training. Stages:

`classifier`, of the tags of all images; `cams`, its class activation maps at several scales, kept for the classes of
each image; `affinity_labels`, what the maps say for sure after a CRF, of the images that the classifier is sure of;
`irnet`, boundaries and displacements on a frozen ResNet; `displacement_mean`; `pseudo_labels`, the maps after a random
walk that stops at boundaries; `segmenter` on them. `eval_cams`, `cam_labels` and `irnet_labels` are steps 1 and 2 on
the evaluation split, with the classes that the classifier finds there.
"""

from scarce_jax.data.sampling import ClassBalance
from scarce_jax.methods.three_step.cams import Cams
from scarce_jax.methods.three_step.irnet import IRNetStage, Walk
from scarce_jax.methods.three_step.recipe import ClassifierStage, Config, recipe

__all__ = ["Cams", "ClassBalance", "ClassifierStage", "Config", "IRNetStage", "Walk", "recipe"]
