"""Import of trained weights from PyTorch's files.

ResNets and VGG-16 are read in torchvision's layout, PSPNets in that of hszhao/semseg. Each key of a file is translated
to a parameter path: `layer3.0.conv2.weight` is `layer3_block0/conv2/kernel`, semseg's `layer0.3.weight` is the deep
stem's `conv2/kernel`, and `features.5.weight` is VGG-16's `conv2_1/kernel` (see `vgg_weights`). A file whose trunk
differs from that of the net is an error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file

from scarce_jax.errors import InputError
from scarce_jax.models import dinov2_weights, vgg_weights
from scarce_jax.models.resnet import BLOCKS

TRUNK = "backbone"
"""Name of the pretrained part of a net."""

HUB = "hf:"
"""Prefix of the names of files to download from the Hugging Face Hub."""

SUFFIXES = (".safetensors", ".pth", ".pt")
"""Endings of files of weights."""

SAFE_TORCH = (2, 6)
"""The first version of PyTorch whose `weights_only` runs no code of the file (CVE-2025-32434)."""

_LEAVES = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
_BINS = (1, 2, 3, 6)
_Shapes = Mapping[str, tuple[int, ...]]
_HEADS = {"cls": ("final_block", "classifier"), "aux": ("aux_block", "aux_classifier")}


def locate(source: str) -> pathlib.Path:
    """Path of a file of weights.

    Args:
      source: a path, or "hf:OWNER/NAME" for the file model.safetensors of that model, which is downloaded once.

    Raises:
      InputError: the file does not exist or cannot be downloaded.
    """
    if not source.startswith(HUB):
        path = pathlib.Path(source)
        if not path.is_file():
            raise InputError(f"weights {source}: no such file; give its path, or hf:OWNER/NAME to download one")
        return path
    name = source.removeprefix(HUB)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise InputError(
            f"weights {source}: downloading needs the package huggingface_hub (`pip install 'scarce-jax[hub]'`); or "
            f"fetch model.safetensors of {name} yourself and give its path"
        ) from error
    try:
        return pathlib.Path(hf_hub_download(name, "model.safetensors"))
    except Exception as error:  # The exceptions differ between versions, and all of them have the same remedy.
        reason = str(error).strip().splitlines()
        raise InputError(
            f"weights {source}: cannot be downloaded ({type(error).__name__}: {reason[0] if reason else ''}); check "
            f"name and network, or fetch model.safetensors of {name} elsewhere and give its path"
        ) from error


def file_hash(path: pathlib.Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of a .safetensors or .pth file, by key, in PyTorch's layout.

    Raises:
      InputError: the file is damaged or of another kind, or it is .pth and PyTorch is not installed.
    """
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    # `DataParallel` adds this prefix.
    return {key.removeprefix("module."): value for key, value in tensors.items()}


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    # The library checks sizes and offsets; NumPy has not all of its types.
    except (SafetensorError, OSError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged, or not a .safetensors file ({error}); fetch it again") from error


def _read_pickle(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path}: reading {path.suffix} files needs PyTorch; install torch, or convert the file where torch is "
            f"installed: safetensors.torch.save_file(torch.load(PATH, weights_only=True), 'weights.safetensors')"
        ) from error
    if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < SAFE_TORCH:
        raise InputError(
            f"{path}: PyTorch {torch.__version__} may run code that is hidden in such a file, even with "
            f"weights_only=True (CVE-2025-32434); update torch to 2.6 or later, or use a .safetensors file"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        return {key: np.asarray(value.float()) for key, value in state.items()}
    except Exception as error:  # Unpickling damaged bytes may raise anything.
        raise InputError(
            f"{path}: PyTorch reads no state dict from it ({type(error).__name__}); use a file that "
            f"torch.save(net.state_dict(), path) wrote"
        ) from error


def translate(key: str) -> tuple[str, str] | None:
    """PyTorch's key -> (collection, parameter path in a PSPNet); None if the key has neither layout."""
    owner, _, leaf = key.rpartition(".")
    if leaf not in _LEAVES:
        return None
    target = None
    if match := re.fullmatch(r"(?:layer([1-4])\.(\d+)\.)?((?:conv|bn)\d|downsample\.[01])", owner):
        layer, block, name = match.groups()
        name = {"downsample.0": "downsample_conv", "downsample.1": "downsample_bn"}.get(name, name)
        target = f"{TRUNK}/{name}" if layer is None else f"{TRUNK}/layer{layer}_block{block}/{name}"
    elif match := re.fullmatch(r"layer0\.([013467])", owner):
        index, kind = divmod(int(match[1]), 3)
        target = f"{TRUNK}/{('conv', 'bn')[kind]}{index + 1}"
    elif match := re.fullmatch(r"ppm\.features\.([0-3])\.([12])", owner):
        target = f"ppm/bin{_BINS[int(match[1])]}/{'conv' if match[2] == '1' else 'bn'}"
    elif match := re.fullmatch(r"(cls|aux)\.([014])", owner):
        block, classifier = _HEADS[match[1]]
        target = {"0": f"{block}/conv", "1": f"{block}/bn", "4": classifier}[match[2]]
    if target is None:
        return None
    collection, name = _LEAVES[leaf]
    if name == "scale" and not target.rpartition("/")[2].startswith(("bn", "downsample_bn")):
        name = "kernel"
    return collection, f"{target}/{name}"


@dataclasses.dataclass(frozen=True)
class Imported:
    """Arrays of a file that a net takes over.

    Attributes:
      values: "params/backbone/conv1/kernel" -> float32 array in Flax's layout.
      unused: keys of the file that have no place in the net.
    """

    values: dict[str, np.ndarray]
    unused: tuple[str, ...]


def import_weights(path: pathlib.Path, net: Mapping[str, tuple[int, ...]]) -> Imported:
    """Reads weights and batch statistics for a net from a file.

    The file must hold the whole trunk. Other arrays of a PSPNet, and fc6 and fc7 of a VGG-16, are taken where their
    shapes fit the net.

    Args:
      net: "params/backbone/conv1/kernel" -> shape, of all arrays of the net.

    Raises:
      InputError: the file is damaged, or its trunk differs from that of the net in depth, stem, batch normalisation,
        width, keys or shapes.
    """
    tensors = read_tensors(path)
    tensors = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    if f"params/{TRUNK}/conv1_1/kernel" in net:
        arrays, unused = vgg_weights.arrange(path, tensors, TRUNK, net)
        check = _check_vgg
    elif f"params/{TRUNK}/class_token" in net:
        arrays, unused = dinov2_weights.arrange(path, tensors, TRUNK, net)
        check = None
    else:
        arrays, unused = _arrange_resnet(path, tensors)
        check = _check_resnet
    shapes = {name: value.shape for name, (_, value) in arrays.items()}
    theirs, ours = (
        {name: shape for name, shape in table.items() if name.split("/")[1] == TRUNK} for table in (shapes, net)
    )
    if check is not None:
        check(path, theirs, ours)
    _check_arrays(path, theirs, ours)
    values = {}
    for name, (key, value) in arrays.items():
        if net.get(name) != value.shape:
            unused.append(key)
            continue
        values[name] = np.asarray(value, np.float32)
        if not np.isfinite(values[name]).all():
            raise InputError(f"{path}: {key} holds values that are not finite; fetch the file again")
    return Imported(values, tuple(unused))


def _arrange_resnet(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, tuple[str, np.ndarray]], list[str]]:
    """As `vgg_weights.arrange`, for a ResNet or PSPNet."""
    arrays, unused = {}, []
    for key, value in tensors.items():
        target = translate(key)
        if target is None:
            if re.match(r"(conv|bn|layer)\d", key):
                raise InputError(f"{path}: {key} is not part of a ResNet in torchvision's layout; use such a file")
            unused.append(key)
            continue
        collection, name = target
        # PyTorch's convolutions are [out, in, height, width].
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        arrays[f"{collection}/{name}"] = (key, value)
    return arrays, unused


def _check_resnet(path: pathlib.Path, theirs: _Shapes, ours: _Shapes) -> None:
    if _blocks(ours) == (0, 0, 0, 0):
        raise InputError(
            f"{path}: found weights of a ResNet, but the net has no ResNet; use weights of the net's trunk"
        )
    if _blocks(theirs) == (0, 0, 0, 0):
        raise InputError(f"{path}: found no ResNet in torchvision's layout; expected keys such as layer1.0.conv1")
    stem = f"params/{TRUNK}/conv1/kernel"
    facts = (
        (_depth, "set the stage's depth to the file's, or use another file"),
        (_stem, "use a file with the net's stem"),
        (lambda shapes: f"a ResNet of width {shapes[stem][-1]}", "set the stage's width to the file's"),
    )
    if stem in theirs:
        _check_facts(path, facts, theirs, ours)


def _check_vgg(path: pathlib.Path, theirs: _Shapes, ours: _Shapes) -> None:
    first = f"params/{TRUNK}/conv1_1/kernel"
    if first not in theirs:
        raise InputError(f"{path}: found no VGG-16 in torchvision's layout; expected keys such as features.0.weight")
    facts = (
        (vgg_weights.describe, "set batch_norm to the file's, or use another file"),
        (lambda shapes: f"a VGG-16 of width {shapes[first][-1]}", "set the stage's width to the file's"),
    )
    _check_facts(path, facts, theirs, ours)


def _check_facts(
    path: pathlib.Path, facts: Iterable[tuple[Callable[[_Shapes], str], str]], theirs: _Shapes, ours: _Shapes
) -> None:
    for fact, advice in facts:
        if fact(theirs) != fact(ours):
            raise InputError(f"{path}: the file looks like {fact(theirs)}, and the net is {fact(ours)}; {advice}")


def _check_arrays(path: pathlib.Path, theirs: _Shapes, ours: _Shapes) -> None:
    missing, unknown = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    if missing or unknown:
        raise InputError(
            f"{path}: its arrays differ from those of the net: {len(missing)} are missing {missing[:3]}, "
            f"{len(unknown)} have no place in the net {unknown[:3]}; use a file of the same architecture"
        )
    wrong = [f"{n} has shape {list(theirs[n])}, expected {list(ours[n])}" for n in ours if theirs[n] != ours[n]]
    if wrong:
        raise InputError(f"{path}: {len(wrong)} arrays do not fit the net: {'; '.join(wrong[:3])}")


def _blocks(shapes: Iterable[str]) -> tuple[int, ...]:
    blocks = {match[0] for name in shapes if (match := re.search(r"layer\d_block\d+", name))}
    return tuple(sum(block.startswith(f"layer{layer}_") for block in blocks) for layer in (1, 2, 3, 4))


def _depth(shapes: Iterable[str]) -> str:
    blocks = _blocks(shapes)
    bottleneck = any(name.endswith("layer1_block0/conv3/kernel") for name in shapes)
    for depth, usual in BLOCKS.items():
        if usual == blocks and (depth >= 50) == bottleneck:
            return f"ResNet-{depth}"
    return f"a ResNet with {', '.join(map(str, blocks))} {'bottlenecks' if bottleneck else 'basic blocks'}"


def _stem(shapes: Iterable[str]) -> str:
    deep = any(re.fullmatch(r"params/\w+/conv2/kernel", name) for name in shapes)
    return f"a ResNet with {'the deep stem of three 3x3 convolutions' if deep else 'the 7x7 stem'}"


def flat_shapes(variables: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of all arrays of {"params", "batch_stats"}, by path ("params/backbone/conv1/kernel")."""
    return {path: tuple(x.shape) for path, x in traverse_util.flatten_dict(variables, sep="/").items()}


def overlay(variables: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The variables {"params", "batch_stats"} with those at the paths of `values` replaced."""
    flat = traverse_util.flatten_dict(variables, sep="/", keep_empty_nodes=True)
    return traverse_util.unflatten_dict({**flat, **values}, sep="/")
