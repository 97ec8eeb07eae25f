"""Files of weights as PyTorch's users have them, written without PyTorch."""

import numpy as np
from safetensors.numpy import save_file


def save(path, tensors, **metadata):
    """A .safetensors file of {key: array}; returns the path."""
    arrays = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    save_file(arrays, path, metadata={"format": "pt", **metadata})
    return path
