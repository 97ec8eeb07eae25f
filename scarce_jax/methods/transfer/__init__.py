"""Label and prediction transfer: masks of some categories help to segment others that have only image tags.

Xiao, Wei, Liu, Zhang and Feng, "Transferable Semi-supervised Semantic Segmentation". Images of the budget's strong
categories have masks. Each image with another (weak) category has only tags.

Stages (* with `compare`):

- `cam` trains a tag classifier on all images.
- `lnet` trains the L-Net on the strong images.
- `label_maps` infers masks for all other images by self-diffusion.
- `segmenter` trains on masks and label maps.
- `pnet` trains the P-Net on true masks and on the segmenter's masks of the strong images.
- `judgement` measures which masks of held-out images it takes for true (table `pnet`).
- `adversarial` trains segmenter and P-Net against each other on all images.
- `strong_only`* trains the segmenter only on the strong images.
- `cam_maps`* and `cam_only`* repeat `label_maps` and `segmenter` without the L-Net.
- `all_labels`* trains the segmenter on the true masks of all images.
- `lambda_zero`* is `adversarial` without the adversarial loss.
- `pnet_scratch`* is `adversarial` without the pre-training of the P-Net.

A starred stage uses the same random keys as the stage that it is compared with.
"""

from scarce_jax.methods.transfer.recipe import Config, recipe

__all__ = ["Config", "recipe"]
