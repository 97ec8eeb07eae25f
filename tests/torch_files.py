"""Files of weights as PyTorch's users have them, written without PyTorch."""

import json

import ml_dtypes
import numpy as np

NAMES = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.int64): "I64"}
NAMES[np.dtype(ml_dtypes.bfloat16)] = "BF16"


def save(path, tensors):
    """A .safetensors file of {key: array}; returns the path."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for key, value in tensors.items():
        header[key] = {"dtype": NAMES[value.dtype], "shape": list(value.shape)}
        header[key]["data_offsets"] = [offset, offset := offset + value.nbytes]
    text = json.dumps(header).encode()
    data = b"".join(np.ascontiguousarray(value).tobytes() for value in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path
