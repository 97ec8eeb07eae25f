"""Auxiliary confidence: a second net judges each pixel of a segmentation net, and trusted pixels become labels.

"Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review). Stages (* with `compare`):
`frequencies` and `segmenter` on the labelled images; `statistics`: which classes it has right there; `auxiliary`,
trained on the frozen segmenter's probability maps; `selection`: how good the kept pixels of the evaluation split are
(tables 3 and 4); `pseudo_labels` of every unlabelled image, class and confidence; `semi`, trained on both (section 3.1,
third stage).

`labelled_long`* trains on the labelled images for as many steps as `semi` takes, `all_labels`* on the true masks of all
images, and `adversarial`* is the method of Hung et al. on the same budget. They start where `semi` does, and draw order
as it does.
"""

from scarce_jax.methods.auxiliary.recipe import Config, SemiStage, recipe

__all__ = ["Config", "SemiStage", "recipe"]
