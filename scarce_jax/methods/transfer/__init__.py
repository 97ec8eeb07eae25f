"""Label and prediction transfer: masks of some categories teach to segment others, of which only tags are known.

Xiao, Wei, Liu, Zhang, Feng: "Transferable Semi-supervised Semantic Segmentation". The budget's strong categories have
masks; every image that shows another one has tags alone. Stages (* with `compare`):

`cam`, a classifier of tags on all images; `lnet`, the L-Net, on the strong images; `label_maps` of all others, by
self-diffusion; `segmenter` on masks and label maps; `pnet`, the P-Net, on true masks and the segmenter's of the strong
images; `judgement`, how well it tells them apart on held-out ones; and `adversarial`, segmenter and P-Net against each
other on all images.

`strong_only`* is the segmenter on the strong images alone; `cam_maps`* and `cam_only`* the diffusion without the L-Net
and the segmenter on that; `all_labels`* the segmenter on the masks of all images; `lambda_zero`* and `pnet_scratch`*
are `adversarial` without P-Net's share in the loss, and without its pre-training. They draw as the stages that they
are compared with.
"""

from scarce_jax.methods.transfer.recipe import Config, recipe

__all__ = ["Config", "recipe"]
