"""Files of weights as PyTorch's users have them, written without PyTorch."""

import numpy as np
from safetensors.numpy import save_file


def save(path, tensors):
    """A .safetensors file of {key: array}; returns the path."""
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path, metadata={"format": "pt"})
    return path
