"""Writes dinov2.npz: what `transformers` computes with DINOv2, without and with registers.

Needs torch and transformers (made with 2.14.1 on a CPU, and 5.24.0), which the tests do not:
`python -m tests.models.golden.make_dinov2`.
"""

import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.models.golden import recipe

MODELS = {
    "dinov2": (transformers.Dinov2Config, transformers.Dinov2Model),
    "dinov2_registers": (transformers.Dinov2WithRegistersConfig, transformers.Dinov2WithRegistersModel),
}


def golden(name):
    """What is stored of one model: the shapes of its file, and the features of its levels at each size."""
    config, model = MODELS[name]
    numbers = recipe.DINOV2
    config = config(
        hidden_size=numbers["width"],
        num_hidden_layers=numbers["blocks"],
        num_attention_heads=numbers["heads"],
        image_size=numbers["grid"] * 14,
        patch_size=14,
    )
    with tempfile.TemporaryDirectory() as folder:
        # Its keys are those of the published files, which differ from those of the model in memory.
        model(config).save_pretrained(folder)
        path = pathlib.Path(folder) / "model.safetensors"
        shapes = {key: list(value.shape) for key, value in load_file(path).items()}
        values = {key: torch.from_numpy(recipe.dinov2_weight(key, shape)) for key, shape in shapes.items()}
        save_file(values, path, metadata={"format": "pt"})
        net = model.from_pretrained(folder, attn_implementation="eager").eval()
    stored = {f"{name}/shapes": np.frombuffer(json.dumps(shapes).encode(), np.uint8)}
    special = 1 + (config.num_register_tokens if name == "dinov2_registers" else 0)
    for size in recipe.DINOV2_SIZES:
        image = torch.from_numpy(recipe.image((1, *size, 3))).permute(0, 3, 1, 2)
        with torch.no_grad():
            results = net(image, output_hidden_states=True)
        *_, first, second, third, _ = results.hidden_states
        for level, tokens in enumerate((first, second, third, results.last_hidden_state), start=1):
            features = tokens[:, special:].reshape(1, size[0] // 14, size[1] // 14, -1).numpy()
            print(name, size, level, features.shape, float(np.abs(features).max()), float(features.std()))
            stored[f"{name}/{size[0]}x{size[1]}/layer{level}"] = recipe.sample(features)
    return stored


def main():
    path = pathlib.Path(__file__).with_name("dinov2.npz")
    np.savez_compressed(path, **{key: value for name in MODELS for key, value in golden(name).items()})
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
