"""Fully connected conditional random field (CRF) with Gaussian edge potentials, by mean field inference.

Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials". There are two
kernels exp(-|f_i - f_j|^2 / 2), one of position and one of position and colour. Each is normalised symmetrically, and
the compatibility is that of Potts:

    Q <- softmax(-U + w_position N_p K_p N_p Q + w_bilateral N_b K_b N_b Q),   N = diag(K 1)^(-1/2)

The message of a pixel includes its own Q, as in the authors' program (not in the paper).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange

from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError
from scarce_jax.ops.permutohedral import Corners, corners, lattice_filter, neighbours
from scarce_jax.ranges import CountOrZero, InsideOne, NonNegative, Positive

EPSILON = 1e-20

# Divisors of the largest possible number of vertices. `mean_field` compiles one program per quotient and runs the
# smallest one that the batch fits into. Photographs of 480 x 360 need 1/100 to 1/4 of the largest number.
_ROOM_DIVISORS = (8, 3, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CRF:
    """Parameters of the CRF.

    Attributes:
      position_sigma: standard deviation of the position kernel, in pixels.
      position_weight: weight of the position kernel, w_position.
      bilateral_sigma: standard deviation of the bilateral kernel in space, in pixels.
      colour_sigma: standard deviation of the bilateral kernel in each of R, G and B, which are 0..255.
      bilateral_weight: weight of the bilateral kernel, w_bilateral.
      iterations: number of mean field updates.
      clip: smallest probability, between 0 and 1; smaller ones are raised to it before the logarithm.
    """

    position_sigma: Positive = 3.0
    position_weight: NonNegative = 3.0
    bilateral_sigma: Positive
    colour_sigma: Positive
    bilateral_weight: NonNegative
    iterations: CountOrZero = 10
    clip: InsideOne = 1e-5

    def scaled(self, factor: float) -> CRF:
        """The parameters for images resized by this factor, such as 1 / 12 for SEC's 41 x 41 maps."""
        return dataclasses.replace(
            self, position_sigma=self.position_sigma * factor, bilateral_sigma=self.bilateral_sigma * factor
        )


PARAMETERS = {
    "irn": CRF(bilateral_sigma=50, colour_sigma=5, bilateral_weight=10),
    "oaa": CRF(position_weight=1, bilateral_sigma=67, colour_sigma=4, bilateral_weight=3, iterations=1, clip=1e-4),
    "deeplab_v2": CRF(position_sigma=1, bilateral_sigma=67, colour_sigma=3, bilateral_weight=4),
    "largefov": CRF(bilateral_sigma=140, colour_sigma=5, bilateral_weight=5),
    "deeplab": CRF(bilateral_sigma=50, colour_sigma=10, bilateral_weight=5),
    "sec": CRF(bilateral_sigma=80, colour_sigma=13, bilateral_weight=10),
    "deconvnet": CRF(bilateral_sigma=20, colour_sigma=3, bilateral_weight=5),
}
"""Parameters of public programs: irn (its `crf_inference_label`), OAA, a PyTorch DeepLabv2 (voc12.yaml), a PyTorch
DeepLab-v1 LargeFOV, the CRF layer of DeepLab-Context, SEC, and EDeconvNet+CRF of DeconvNet."""


def probability_energies(probabilities: jax.Array, clip: float = 1e-5) -> jax.Array:
    """Unary energies -ln p of probabilities p in 0..1, which are clipped from below: float32, of any shape."""
    return -jnp.log(jnp.clip(probabilities.astype(jnp.float32), clip, 1.0))


def label_energies(
    labels: jax.Array, classes: int, certainty: float = 0.7, present: jax.Array | None = None
) -> jax.Array:
    """Unary energies of a hard label map: -ln c for the class of a pixel, -ln((1 - c) / (n - 1)) for the others.

    Args:
      labels: integer [..., H, W], 0..K-1 or 255. At 255 all classes have the energy ln n.
      classes: K.
      certainty: c, the probability that a label is true, above 0 and below 1; 0.7 in irn.
      present: bool [..., K], the n classes that an image can have, at least one. Other classes have infinite energy.
        None is all K.

    Returns:
      float32 [..., H, W, K].

    Raises:
      InputError: `certainty` is out of its range.
    """
    if not 0 < certainty < 1:
        raise InputError(f"certainty is {certainty}; expected above 0 and below 1")
    present = jnp.ones(classes, bool) if present is None else jnp.asarray(present, bool)
    present = present[..., None, None, :]
    number = present.sum(-1, keepdims=True).astype(jnp.float32)
    labels = labels[..., None]
    other = -jnp.log((1 - certainty) / jnp.maximum(number - 1, 1))
    energies = jnp.where(labels == jnp.arange(classes), -jnp.log(certainty), other)
    energies = jnp.where(labels == IGNORE, jnp.log(number), energies)
    return jnp.where(present, energies, jnp.inf).astype(jnp.float32)


def dense_crf(probabilities: jax.Array, images: jax.Array, crf: CRF, valid: jax.Array | None = None) -> jax.Array:
    """Refines class probabilities by the colours of the image: `mean_field` of `probability_energies`.

    Args:
      probabilities: floating [B, H, W, K] in 0..1.
      images, valid: as in `mean_field`.

    Returns:
      Marginals float32 [B, H, W, K], which sum to 1 over the classes.
    """
    return mean_field(probability_energies(probabilities, crf.clip), images, crf, valid)


def refine_labels(
    labels: jax.Array,
    images: jax.Array,
    crf: CRF,
    classes: int,
    certainty: float = 0.7,
    present: jax.Array | None = None,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Refines a hard label map [B, H, W] by the colours of the image, as irn's `crf_inference_label`.

    Args:
      present: bool [B, K], in irn the background and the tags of an image.
      labels, classes, certainty: as in `label_energies`.
      images, valid: as in `mean_field`.

    Returns:
      The most probable labels, int32 [B, H, W].
    """
    energies = label_energies(labels, classes, certainty, present)
    return jnp.argmax(mean_field(energies, images, crf, valid), -1).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames="crf")
def lattice_vertices(images: jax.Array, crf: CRF, valid: jax.Array | None = None) -> jax.Array:
    """Number of vertices of the bilateral kernel's lattice, int32 [B]. Memory and time depend on it."""
    valid = jnp.ones(images.shape[:3], bool) if valid is None else valid
    return _corners(images, crf, valid)[0].count


@functools.partial(jax.jit, static_argnames=("crf", "least_room"))
def mean_field(
    energies: jax.Array, images: jax.Array, crf: CRF, valid: jax.Array | None = None, *, least_room: int = 4096
) -> jax.Array:
    """Marginals after `crf.iterations` parallel updates that start from softmax(-U).

    The position kernel is exact. The bilateral kernel is approximated on the permutohedral lattice, as in the authors'
    program. Where only this kernel counts, the marginals equal the program's to float32 rounding. The approximation was
    compared with sums over all pairs of pixels in float64, on 96 x 72 pixels of a photograph and of a drawn image, with
    21 classes (`benchmarks/crf.py`, all sets of `PARAMETERS`). The marginals differ by a mean total variation of 0.004
    to 0.022, and 0.4% to 2.3% of the pixels get another label; the exact field relabels 8% to 59%. Ten iterations on an
    image of 500 x 375 take 3 to 7 seconds on two busy CPU cores.

    An image with many colours takes memory for about 6 H W (K + 30) floats. The images of a batch share the room for
    lattice vertices that the image with most of them needs. Do not `vmap` this function, because `vmap` would compute
    all sizes of that room. On a GPU the order of the sums is not fixed unless XLA is set to be deterministic.

    Args:
      energies: floating [B, H, W, K], the unary energies U; infinite for excluded classes.
      images: RGB in 0..255, uint8 or floating, [B, H, W, 3].
      crf: static.
      valid: bool [B, H, W], True for pixels of the image; the others neither send nor receive. None is all True.
      least_room: static, smallest number of lattice vertices for which a program is compiled. Smaller ones save no
        time.

    Returns:
      float32 [B, H, W, K], which is softmax(-U) where `valid` is False.

    Raises:
      InputError: the image is too large for such small standard deviations: the lattice has 2**32 points or more.
      ValueError: the shapes do not fit.
    """
    if energies.ndim != 4 or images.shape != (*energies.shape[:3], 3):
        raise ValueError(
            f"images have shape {images.shape}, energies {energies.shape}; expected [B, H, W, 3] and [B, H, W, K]"
        )
    if valid is not None and valid.shape != energies.shape[:3]:
        raise ValueError(f"valid has shape {valid.shape}; expected {energies.shape[:3]}")
    negative = -energies.astype(jnp.float32)
    valid = jnp.ones(energies.shape[:3], bool) if valid is None else valid.astype(bool)
    position = _symmetric(functools.partial(_position_filter, sigma=crf.position_sigma), valid)
    places, extents = _corners(images, crf, valid)
    entries = places.key.shape[1]

    def infer(size: int) -> jax.Array:
        near = jax.vmap(lambda at: neighbours(at, extents, size))(places)

        def lattice(values: jax.Array) -> jax.Array:
            flat = rearrange(values, "b h w k -> b (h w) k")
            return jax.vmap(lattice_filter)(flat, places, near).reshape(values.shape)

        bilateral = _symmetric(lattice, valid)

        def update(_: int, marginals: jax.Array) -> jax.Array:
            messages = crf.position_weight * position(marginals) + crf.bilateral_weight * bilateral(marginals)
            return jax.nn.softmax(negative + messages, -1)

        return jax.lax.fori_loop(0, crf.iterations, update, jax.nn.softmax(negative, -1))

    sizes = sorted({max(-(-entries // room), min(entries, least_room)) for room in _ROOM_DIVISORS})
    fitting = jnp.searchsorted(jnp.asarray(sizes), places.count.max())
    return jax.lax.switch(fitting, [functools.partial(infer, size) for size in sizes])


def _symmetric(apply: Callable[[jax.Array], jax.Array], valid: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The filter N K N of a filter K, with N = diag(K valid)^(-1/2), and 0 for pixels that are not valid."""
    valid = valid[..., None].astype(jnp.float32)
    norm = valid * jax.lax.rsqrt(apply(valid) + EPSILON)
    return lambda values: norm * apply(norm * values)


def _position_filter(values: jax.Array, sigma: float) -> jax.Array:
    """Sums of values [B, H, W, K] over all pixels, weighted by exp(-distance^2 / (2 sigma^2)): two matrix products."""

    def along(values: jax.Array, length: int) -> jax.Array:  # [B, length, W, K] -> [B, W, length, K]
        apart = jnp.arange(length)[:, None] - jnp.arange(length)
        kernel = jnp.exp(-0.5 * (apart / sigma) ** 2)
        flat = rearrange(values, "b h w k -> b h (w k)")
        filtered = jnp.einsum("ij,bjn->bin", kernel, flat, precision=jax.lax.Precision.HIGHEST)
        return filtered.reshape(values.shape).swapaxes(1, 2)

    return along(along(values, values.shape[1]), values.shape[2])


def _corners(images: jax.Array, crf: CRF, valid: jax.Array) -> tuple[Corners, tuple[float, ...]]:
    """Places of all pixels in the lattice of the bilateral kernel, and the extents of its five features."""
    height, width = images.shape[1:3]
    y, x = jnp.mgrid[:height, :width].astype(jnp.float32) / crf.bilateral_sigma
    space = jnp.broadcast_to(jnp.stack([x, y], -1), (len(images), height, width, 2))
    colour = jnp.clip(images.astype(jnp.float32), 0, 255) / crf.colour_sigma
    features = rearrange(jnp.concatenate([space, colour], -1), "b h w f -> b (h w) f")
    extents = (width / crf.bilateral_sigma, height / crf.bilateral_sigma, *[255 / crf.colour_sigma] * 3)
    find = functools.partial(corners, extents=extents)
    return jax.vmap(find)(features, rearrange(valid, "b h w -> b (h w)")), extents
