"""Mean field of the dense CRF by its definition: every pair of pixels, float64."""

import numpy as np


def pairs(features, other=None):
    """exp(-|f_i - f_j|^2 / 2), [N, M]."""
    other = features if other is None else other
    squared = (features**2).sum(1)[:, None] + (other**2).sum(1) - 2 * features @ other.T
    return np.exp(-0.5 * np.maximum(squared, 0))


def kernels(image, crf):
    """The normalised position and bilateral kernels of an image [H, W, 3], float64 [N, N] each."""
    height, width = image.shape[:2]
    place = np.mgrid[:height, :width].reshape(2, -1).T.astype(np.float64)
    colour = image.reshape(-1, 3).astype(np.float64)
    normalised = []
    for features in (place / crf.position_sigma, np.hstack([place / crf.bilateral_sigma, colour / crf.colour_sigma])):
        kernel = pairs(features)
        norm = 1 / np.sqrt(kernel.sum(1))
        normalised.append(norm[:, None] * kernel * norm)
    return normalised


def softmax(scores):
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def mean_field(energies, image, crf):
    """Marginals [H, W, K] of energies [H, W, K]."""
    position, bilateral = kernels(image, crf)
    flat = energies.reshape(-1, energies.shape[-1]).astype(np.float64)
    marginals = softmax(-flat)
    for _ in range(crf.iterations):
        messages = crf.position_weight * (position @ marginals) + crf.bilateral_weight * (bilateral @ marginals)
        marginals = softmax(messages - flat)
    return marginals.reshape(energies.shape)
