"""Auxiliary confidence: a second net judges each pixel of the segmenter, and the trusted pixels become labels.

"Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review).

Stages (* with `compare`):

- `frequencies` measures how often each class occurs in the labelled images.
- `segmenter` trains on the labelled images.
- `statistics` measures how many pixels of each class the segmenter predicts correctly there.
- `auxiliary` trains the auxiliary net on the probability maps of the frozen segmenter.
- `selection` measures the quality of the kept pixels on the evaluation split (tables 3 and 4).
- `pseudo_labels` infers a class and a confidence for each pixel of the unlabelled images.
- `semi` trains on labels and pseudo labels (section 3.1, third stage).
- `labelled_long`* trains on the labelled images for as many steps as `semi`.
- `all_labels`* trains on the true masks of all images.
- `adversarial`* is the method of Hung et al. with the same budget.
- `discriminator_selection`* measures the pixels that its discriminator trusts, beside those of `selection`.
- `consistency`* is the method of UniMatch (Yang et al.) with the same budget.

The starred stages that train start from the same values as `semi` and use the same random keys.

The result `trusted` annotates any image (the paper's figure 1): the class of each pixel whose confidence reaches
`semi.threshold`, and void elsewhere. The result `pseudo_labels` is that of the unlabelled images, by which `semi`
learns, measured against their true masks if the dataset has them.
"""

from scarce_jax.methods.auxiliary.recipe import Config, SemiStage, recipe

__all__ = ["Config", "SemiStage", "recipe"]
