"""Layouts of DINOv2 in PyTorch's files: Hugging Face's, the authors' own, and timm's.

Hugging Face's has `encoder.layer.N.attention.attention.query.weight`, and apart from it key and value; the others have
all three in `blocks.N.attn.qkv.weight`. timm's models with registers have no position of the class token: it is part of
the token itself.
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Mapping

import numpy as np

from scarce_jax.errors import InputError
from scarce_jax.models.dinov2 import SIZES

_RENAMED = (
    (r"^(?:dinov2|dinov2_with_registers|backbone)\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^reg_token$", "register_tokens"),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
)
"""What makes the authors' keys of Hugging Face's and timm's, one after the other."""

_LAYERS = {
    "norm1": "norm1",
    "attn.qkv": "qkv",
    "attn.proj": "projection",
    "norm2": "norm2",
    "mlp.fc1": "mlp1",
    "mlp.fc2": "mlp2",
}
"""Layer of a block in the authors' keys -> here."""

_TOKENS = {"cls_token": "class_token", "register_tokens": "registers", "pos_embed": "positions"}

_Shapes = Mapping[str, tuple[int, ...]]


def arrange(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray], trunk: str, net: _Shapes
) -> tuple[dict[str, tuple[str, np.ndarray]], list[str]]:
    """Maps the arrays of a file to parameter paths of a net.

    Args:
      path: path of the file, for messages.
      tensors: PyTorch's key -> array.
      trunk: name of the net's DINOv2.
      net: "params/backbone/class_token" -> shape, of all arrays of the net.

    Returns:
      "params/backbone/block0/qkv/kernel" -> (key, array in Flax's layout), and the keys that the net does not use: the
      mask token and heads. The key of what a file has in three arrays is that of the first one.

    Raises:
      InputError: the file holds no DINOv2, or one of another size, or it has registers and the net has not, or the
        reverse; or a key of a block is not part of a DINOv2.
    """
    named = {_authors_key(key): (key, value) for key, value in tensors.items()}
    _join_attention(path, named)
    arrays = {}
    for name, (key, value) in named.items():
        if (target := _target(name)) is not None:
            arrays[f"params/{trunk}/{target}"] = key, _in_flax_layout(name, value)
        elif name.startswith("blocks."):
            raise InputError(
                f"{path}: {key} is not part of a DINOv2 of size {', '.join(SIZES)}; use a file of one of these"
            )
    _check(path, {name: value.shape for name, (_, value) in arrays.items()}, trunk, net)
    used = {_authors_key(key) for key, _ in arrays.values()}
    used |= {_part(name, part) for name in used for part in ("key", "value") if ".attn.query." in name}
    return arrays, [key for key in tensors if _authors_key(key) not in used]


def _authors_key(key: str) -> str:
    for pattern, replacement in _RENAMED:
        key = re.sub(pattern, replacement, key)
    return key


def _part(name: str, part: str) -> str:
    return name.replace(".query.", f".{part}.")


def _join_attention(path: pathlib.Path, named: dict[str, tuple[str, np.ndarray]]) -> None:
    """Replaces query, key and value of each block by one array in that order."""
    for name in [name for name in named if re.fullmatch(r"blocks\.\d+\.attn\.query\.(?:weight|bias)", name)]:
        parts = [_part(name, part) for part in ("query", "key", "value")]
        if missing := [part for part in parts if part not in named]:
            raise InputError(
                f"{path}: {named[name][0]} is there, but {' and '.join(missing)} of the same block is missing; fetch "
                f"the file again"
            )
        (key, _), *_ = pieces = [named.pop(part) for part in parts]
        named[_part(name, "qkv")] = key, np.concatenate([value for _, value in pieces])


def _target(name: str) -> str | None:
    """The parameter path below the trunk of one of the authors' keys; None if it has no place there."""
    if name in _TOKENS:
        return _TOKENS[name]
    if scale := re.fullmatch(r"blocks\.(\d+)\.ls([12])\.gamma", name):
        return f"block{scale[1]}/scale{scale[2]}"
    owner, _, leaf = name.rpartition(".")
    if leaf not in ("weight", "bias"):
        return None
    layer = re.fullmatch(r"blocks\.(\d+)\.(.+)", owner)
    if layer is not None and layer[2] in _LAYERS:
        target = f"block{layer[1]}/{_LAYERS[layer[2]]}"
    elif owner in ("norm", "patch_embed.proj"):
        target = "norm" if owner == "norm" else "patch"
    else:
        return None
    return f"{target}/{leaf if leaf == 'bias' else 'scale' if 'norm' in target else 'kernel'}"


def _in_flax_layout(name: str, value: np.ndarray) -> np.ndarray:
    if name in _TOKENS:
        tokens = value.reshape(-1, value.shape[-1])
        if name == "pos_embed" and math.isqrt(len(tokens)) ** 2 == len(tokens):
            return np.pad(tokens, ((1, 0), (0, 0)))
        return tokens
    # PyTorch's convolutions are [out, in, height, width], its linear layers [out, in].
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def _check(path: pathlib.Path, theirs: _Shapes, trunk: str, net: _Shapes) -> None:
    """Raises InputError where size or registers of the file and the net differ."""
    token, registers = (f"params/{trunk}/{name}" for name in ("class_token", "registers"))
    if token not in theirs:
        raise InputError(
            f"{path}: found no DINOv2; expected keys such as embeddings.cls_token or cls_token; use a file of the "
            f"net's backbone, such as hf:facebook/dinov2-small"
        )
    found, expected = (_describe(shapes, trunk) for shapes in (theirs, net))
    if found != expected:
        size = next((name for name in SIZES if found == _in_words(name)), None)
        fix = "use another file" if size is None else f"set --STAGE.net.backbone.size {size}, or use another file"
        raise InputError(f"{path}: the file looks like {found}, and the net is {expected}; {fix}")
    if (registers in theirs) != (registers in net):
        has = registers in theirs
        raise InputError(
            f"{path}: the file is a DINOv2 {'with' if has else 'without'} registers, and the net "
            f"{'has none' if has else 'has registers'}; set --STAGE.net.backbone.registers {has}, or use another file"
        )


def _describe(shapes: _Shapes, trunk: str) -> str:
    """The size of a DINOv2 with arrays of these shapes, in words."""
    width = shapes[f"params/{trunk}/class_token"][-1]
    count = len({match[1] for name in shapes if (match := re.match(rf"params/{trunk}/block(\d+)/", name))})
    sizes = (name for name, size in SIZES.items() if (size.width, size.blocks) == (width, count))
    name = next(sizes, None)
    return f"a vision transformer of {count} blocks and {width} channels" if name is None else _in_words(name)


def _in_words(size: str) -> str:
    return f"a DINOv2 of size {size}"
