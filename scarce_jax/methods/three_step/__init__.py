"""Three steps from image tags to masks: class activation maps, IRNet, DeepLabv3+.

Dobko, Viniavskiy, Dobosevych: "NoPeopleAllowed: The Three-Step Approach to Weakly Supervised Semantic Segmentation".
No stage reads a mask. Stages:

- `classifier` trains a tag classifier on all images that have tags.
- `cams` infers its class activation maps at several scales, and keeps those of each image's classes.
- `affinity_labels` refines the maps with a CRF and keeps sure objects and sure background, for the images whose tags
  the classifier is sure of.
- `irnet` trains boundaries and displacements on a frozen ResNet.
- `displacement_mean` measures the mean displacement.
- `pseudo_labels` spreads the maps by a random walk that stops at boundaries.
- `segmenter` trains on the pseudo labels.
- `eval_cams`, `cam_labels` and `irnet_labels` are steps 1 and 2 on the evaluation split, with predicted classes.

With `left_out` no step learns one class (the paper's "person"), and further stages may add it back:

- `binary` trains a classifier of that class alone, whose maps the result `segment_tta_added` adds to the final masks.
- `binary_cams` and `added_labels` add its maps to the pseudo labels, from which the segmenter then learns it.
"""

from scarce_jax.data.sampling import ClassBalance
from scarce_jax.methods.three_step.cams import Cams
from scarce_jax.methods.three_step.classifier import ClassifierStage, strong
from scarce_jax.methods.three_step.config import Config
from scarce_jax.methods.three_step.irnet import IRNetStage, Walk
from scarce_jax.methods.three_step.recipe import recipe

__all__ = ["Cams", "ClassBalance", "ClassifierStage", "Config", "IRNetStage", "Walk", "recipe", "strong"]
