"""Files as publishers have them, of tiny nets with random weights, and what these nets compute: NumPy alone."""

import json

import numpy as np

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
DILATIONS, STRIDES = (1, 1, 2, 4), (1, 2, 1, 1)
"""Of a ResNet of stride 8."""


def draw(rng, *shape):
    """A kernel [..., in, out] that keeps activations near 1."""
    return (rng.normal(size=shape) * np.prod(shape[:-1]) ** -0.5).astype(np.float32)


def resnet(depth, width, biases=False):
    """Place (layer, block, number) -> arrays of a convolution and its normalisation; (0, 0, 1) is the stem.

    Number 0 is the shortcut's. Without `biases` the convolutions have none.
    """
    rng, deep = np.random.default_rng(depth), depth >= 50
    shapes, channels = {(0, 0, 1): (7, 7, 3, width)}, width
    for layer, blocks in enumerate(BLOCKS[depth], start=1):
        inner = width * 2 ** (layer - 1)
        outer = inner * (4 if deep else 1)
        for block in range(blocks):
            sizes = [(1, inner), (3, inner), (1, outer)] if deep else [(3, inner), (3, inner)]
            if block == 0 and (deep or layer > 1):
                shapes[layer, block, 0] = (1, 1, channels, outer)
            for number, (side, features) in enumerate(sizes, start=1):
                shapes[layer, block, number] = (side, side, channels, features)
                channels = features
    return {
        place: {
            "kernel": draw(rng, *shape),
            "bias": rng.uniform(-0.3, 0.3, shape[-1]).astype(np.float32) * biases,
            "gamma": rng.uniform(0.2, 0.8, shape[-1]).astype(np.float32),
            "beta": rng.uniform(-0.3, 0.3, shape[-1]).astype(np.float32),
            "mean": rng.uniform(-0.3, 0.3, shape[-1]).astype(np.float32),
            "var": rng.uniform(0.01, 0.5, shape[-1]).astype(np.float32),
        }
        for place, shape in shapes.items()
    }


def in_torch(units, prefix=""):
    """Arrays of a ResNet with torchvision's names."""
    tensors = {}
    for (layer, block, number), unit in units.items():
        owner = f"{prefix}layer{layer}.{block}." if layer else prefix
        conv, bn = (
            (f"{owner}conv{number}", f"{owner}bn{number}") if number else (f"{owner}downsample.{i}" for i in "01")
        )
        tensors[f"{conv}.weight"] = unit["kernel"].transpose(3, 2, 0, 1)
        names = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}
        tensors |= {f"{bn}.{leaf}": unit[name] for leaf, name in names.items()}
        tensors[f"{bn}.num_batches_tracked"] = np.zeros((), np.int64)
    return tensors


def in_keras(units, new=False):
    """Arrays of a ResNet-50 with Keras' older or newer names."""
    tensors = {}
    for (layer, block, number), unit in units.items():
        branch = f"{layer + 1}{'abcdef'[block]}_branch{' abc'[number].join(('2', '')) if number else 1}"
        conv, bn = (f"res{branch}", f"bn{branch}") if layer else ("conv1", "bn_conv1")
        if new:
            start = f"conv{layer + 1}_block{block + 1}_{number}_" if layer else "conv1_"
            conv, bn = f"{start}conv", f"{start}bn"
        tensors |= {f"{conv}/kernel": unit["kernel"], f"{conv}/bias": unit["bias"]}
        names = {"gamma": "gamma", "beta": "beta", "moving_mean": "mean", "moving_variance": "var"}
        tensors |= {f"{bn}/{leaf}": unit[name] for leaf, name in names.items()}
    return tensors


def save_tfjs(folder, tensors, epsilons=None):
    """A model.json of TensorFlow.js with two shards; returns its path."""
    folder.mkdir(exist_ok=True)
    data = b"".join(np.ascontiguousarray(x, "<f4").tobytes() for x in tensors.values())
    shards = {"group1-shard1of2.bin": data[:1001], "group1-shard2of2.bin": data[1001:]}
    for name, part in shards.items():
        (folder / name).write_bytes(part)
    weights = [{"name": name, "shape": list(x.shape), "dtype": "float32"} for name, x in tensors.items()]
    layers = [{"config": {"name": name, "epsilon": value}} for name, value in (epsilons or {}).items()]
    content = {
        "modelTopology": {"model_config": {"config": {"layers": layers}}},
        "weightsManifest": [{"paths": list(shards), "weights": weights}],
    }
    (folder / "model.json").write_text(json.dumps(content))
    return folder / "model.json"


def convolve(x, kernel, stride=1, dilation=1):
    """[H, W, C], padded to keep its size at stride 1 -> [h, w, F]."""
    side, pad = len(kernel), dilation * (len(kernel) // 2)
    rows, columns = (-(-length // stride) for length in x.shape[:2])
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    total = np.zeros((rows, columns, kernel.shape[-1]))
    for i in range(side):
        for j in range(side):
            top, left = i * dilation, j * dilation
            part = x[top : top + stride * (rows - 1) + 1 : stride, left : left + stride * (columns - 1) + 1 : stride]
            total += part @ kernel[i, j].astype(np.float64)
    return total


def _unit(x, unit, epsilon, stride=1, dilation=1):
    y = convolve(x, unit["kernel"], stride, dilation) + unit["bias"]
    return (y - unit["mean"]) / np.sqrt(unit["var"] + epsilon) * unit["gamma"] + unit["beta"]


def _pool(x, ceil):
    """Maxima of 3x3 windows at stride 2, padded by one; Caffe's has one window more at the end of an even side."""
    ends = [1 + int(ceil and side % 2 == 0) for side in x.shape[:2]]
    x = np.pad(x, ((1, ends[0]), (1, ends[1]), (0, 0)), constant_values=-np.inf)
    rows, columns = ((side - 3) // 2 + 1 for side in x.shape[:2])
    windows = [x[i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2] for i in range(3) for j in range(3)]
    return np.max(windows, 0)


def layer4(image, units, *, caffe, epsilon=1e-5):
    """Features of a dilated ResNet of stride 8: [H, W, 3] in the normalisation of its weights -> [h, w, C]."""
    x = _pool(np.maximum(_unit(image, units[0, 0, 1], epsilon, 2), 0), caffe)
    for layer, block in sorted({place[:2] for place in units if place[0]}):
        numbers = [n for at, b, n in units if (at, b) == (layer, block) and n]
        stride, dilation = STRIDES[layer - 1] if block == 0 else 1, DILATIONS[layer - 1]
        shortcut = units.get((layer, block, 0))
        kept = x if shortcut is None else _unit(x, shortcut, epsilon, stride)
        strided = 1 if caffe or len(numbers) == 2 else 2
        for number in sorted(numbers):
            x = _unit(x, units[layer, block, number], epsilon, stride if number == strided else 1, dilation)
            x = np.maximum(x + kept if number == max(numbers) else x, 0)
    return x
