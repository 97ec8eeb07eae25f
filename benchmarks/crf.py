"""Times the dense CRF on an image of 500 x 375 with 21 labels, and measures its error; one JSON line per parameter set.

    python benchmarks/crf.py [NAME ...] [--image FILE] [--batch N] [--out FILE]

The time depends on the number of colours in the image. --image FILE is resized; without it, the image is smooth noise
of several scales, with a standard deviation of 1 at each pixel. The probabilities are a softmax of random logits with a
coarse scale of 40 pixels and a fine one of 8 pixels.

The reference for the error takes every pair of pixels in float64 (tests/ops/crf_reference.py), on the middle 96 x 72
pixels. The error is the mean total variation between the marginals, and the share of pixels with another likeliest
label.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import time

import numpy as np
from common import append, arguments

SIZE, CROP, CLASSES = (375, 500), (72, 96), 21


def drawn(random: np.random.Generator) -> np.ndarray:
    """uint8 [375, 500, 3]."""
    import cv2

    smooth = np.zeros((*SIZE, 3))
    for cells in (4, 8, 16, 32, 64, 128):
        smooth += cv2.resize(random.normal(size=(cells, cells, 3)), SIZE[::-1]) / cells
    smooth = 128 + 40 * (smooth - smooth.mean()) / smooth.std() + random.normal(0, 1, (*SIZE, 3))
    return np.clip(np.round(smooth), 0, 255).astype(np.uint8)


def probabilities(random: np.random.Generator) -> np.ndarray:
    """float32 [375, 500, 21]."""
    import cv2

    logits = np.zeros((*SIZE, CLASSES), np.float32)
    for pixels, deviation in ((40, 4), (8, 1)):
        coarse = random.normal(0, deviation, (CLASSES, -(-SIZE[0] // pixels), -(-SIZE[1] // pixels)))
        logits += np.stack([cv2.resize(channel, SIZE[::-1]) for channel in coarse], -1)
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def main() -> None:
    parser = arguments(__doc__, "crf.jsonl")
    parser.add_argument("names", nargs="*", help="parameter sets; default all")
    parser.add_argument("--image", type=pathlib.Path)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    import cv2
    import jax
    import jax.numpy as jnp

    from scarce_jax.data.images import read_image
    from scarce_jax.ops.crf import PARAMETERS, dense_crf, lattice_vertices, probability_energies
    from scarce_jax.provenance import environment
    from tests.ops import crf_reference

    random = np.random.default_rng(0)
    image = cv2.resize(read_image(options.image), SIZE[::-1]) if options.image else drawn(random)
    shares = probabilities(random)
    top, left = ((whole - part) // 2 for whole, part in zip(SIZE, CROP, strict=True))
    crop = (slice(top, top + CROP[0]), slice(left, left + CROP[1]))
    batch = jax.device_put((np.stack([shares] * options.batch), np.stack([image] * options.batch)))
    for name in options.names or PARAMETERS:
        crf = PARAMETERS[name]
        seconds = []
        for _ in range(options.repeats + 1):
            began = time.perf_counter()
            jax.block_until_ready(dense_crf(*batch, crf))
            seconds.append(time.perf_counter() - began)
        exact = crf_reference.mean_field(
            np.asarray(probability_energies(jnp.asarray(shares[crop]), crf.clip)), image[crop], crf
        )
        marginals = np.asarray(dense_crf(shares[crop][None], image[crop][None], crf))[0]
        line = {
            "benchmark": "crf",
            **environment(),
            "parameters": {"name": name, **dataclasses.asdict(crf)},
            "image": options.image.name if options.image else "drawn",
            "size": SIZE,
            "classes": CLASSES,
            "batch": options.batch,
            "vertices_per_pixel": round(int(lattice_vertices(image[None], crf)[0]) / (SIZE[0] * SIZE[1]), 3),
            "first_call_seconds": round(seconds[0], 2),
            "seconds_per_image": round(statistics.median(seconds[1:]) / options.batch, 3),
            "error": {
                "size": CROP,
                "total_variation": round(float(np.abs(marginals - exact).sum(-1).mean() / 2), 5),
                "other_label": round(float(np.mean(marginals.argmax(-1) != exact.argmax(-1))), 5),
                "relabelled_by_exact": round(float(np.mean(shares[crop].argmax(-1) != exact.argmax(-1))), 5),
            },
        }
        append(options.out, line)


if __name__ == "__main__":
    main()
