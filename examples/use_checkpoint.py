"""A trained net in JAX code of one's own: probabilities of a batch under jit, a gradient, and an exported program.

RUN is a run of the method `supervised`, such as examples/own_folder.py makes.

Command: python examples/use_checkpoint.py own/run own/more/*.png --out net.mlir
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import scarce_jax
from scarce_jax.data.images import read_image, resize_image
from scarce_jax.methods.segmentation import network
from scarce_jax.ops.augment import normalise
from scarce_jax.ops.logits import full_size

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("run", type=pathlib.Path)
parser.add_argument("photos", type=pathlib.Path, nargs="+")
parser.add_argument("--out", type=pathlib.Path, help="file for the exported program, StableHLO")
args = parser.parse_args()

# The predictor reads and resizes as the run did, and gives masks and probabilities at an image's own size.
predictor = scarce_jax.load(args.run)
first = read_image(args.photos[0])
mask, shares = predictor.predict(first), predictor.probabilities(first)
print(f"{args.photos[0]}: mask {mask.dtype} {mask.shape}, probabilities {shares.dtype} {shares.shape}")

# The net itself is a Flax module with its variables.
net = network(predictor.config, predictor.config.segmenter, len(predictor.classes))
variables = predictor.variables["segmenter"]


@jax.jit
def probabilities(images):
    """uint8 or float [B, H, W, 3] in 0..255 -> float32 [B, H, W, K]."""
    logits, _ = net.apply(variables, normalise(images), train=False)
    return jax.nn.softmax(full_size(logits))


images = jnp.asarray(np.stack([resize_image(read_image(path), predictor.size) for path in args.photos]))
area = probabilities(images).mean((1, 2))
for path, row in zip(args.photos, area, strict=True):
    print(path, ", ".join(f"{predictor.classes[k]} {row[k]:.0%}" for k in np.argsort(-np.asarray(row))[:3]))

# Which pixels speak for the largest class of an image: the gradient of its area.
gradient = jax.grad(lambda x: probabilities(x).mean((1, 2)).max(-1).sum())(images.astype(jnp.float32))
print(f"gradient {gradient.dtype} {gradient.shape}, largest {jnp.abs(gradient).max():.2e}")

if args.out:
    exported = jax.export.export(probabilities)(jax.ShapeDtypeStruct(images.shape, images.dtype))
    args.out.write_bytes(exported.mlir_module_serialized)
    print(f"{args.out}: StableHLO for batches of {len(images)}, with the weights, which needs no Python")
