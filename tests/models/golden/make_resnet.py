"""Writes resnet.npz: what PyTorch computes with the layers of torchvision's ResNet and of hszhao/semseg's PSPNet.

Needs torch (made with 2.13.0, CPU), which the tests do not: `python -m tests.models.golden.make_resnet`.
"""

import json
import pathlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tests.models.golden import recipe

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


class Block(nn.Module):
    """One residual block under torchvision's names; the stride of a bottleneck is on its 3x3."""

    def __init__(self, inputs, planes, stride, dilation, bottleneck):
        super().__init__()
        around = {"stride": stride, "padding": dilation, "dilation": dilation}
        outputs = 4 * planes if bottleneck else planes
        if bottleneck:
            kernels = ((inputs, planes, 1, {}), (planes, planes, 3, around), (planes, outputs, 1, {}))
        else:
            kernels = ((inputs, planes, 3, around), (planes, outputs, 3, {"padding": dilation, "dilation": dilation}))
        self.count = len(kernels)
        for index, (c, f, kernel, more) in enumerate(kernels, start=1):
            setattr(self, f"conv{index}", nn.Conv2d(c, f, kernel, bias=False, **more))
            setattr(self, f"bn{index}", nn.BatchNorm2d(f))
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = x
        for index in range(1, self.count + 1):
            y = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(y))
            y = y if index == self.count else F.relu(y)
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """The encoder; `fc` is there for its keys alone."""

    def __init__(self, depth, width, strides, dilations, deep_stem=False, dilate_first=True):
        super().__init__()
        stem = ((width, 3, 2), (width, 3, 1), (2 * width, 3, 1)) if deep_stem else ((width, 7, 2),)
        channels, self.stem = 3, len(stem)
        for index, (features, kernel, stride) in enumerate(stem, start=1):
            conv = nn.Conv2d(channels, features, kernel, stride=stride, padding=kernel // 2, bias=False)
            setattr(self, f"conv{index}", conv)
            setattr(self, f"bn{index}", nn.BatchNorm2d(features))
            channels = features
        for layer, blocks in enumerate(BLOCKS[depth]):
            residual = []
            for index in range(blocks):
                planes, stride = width * 2**layer, strides[layer] if index == 0 else 1
                dilation = dilations[layer] if index or dilate_first else (1, *dilations)[layer]
                residual.append(Block(channels, planes, stride, dilation, depth >= 50))
                channels = planes * (4 if depth >= 50 else 1)
            setattr(self, f"layer{layer + 1}", nn.Sequential(*residual))
        self.fc = nn.Linear(channels, 10)

    def forward(self, x):
        for index in range(1, self.stem + 1):
            x = F.relu(getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(x)))
        x = F.max_pool2d(x, 3, 2, 1)
        self.pooled, layers = x, []
        for layer in (1, 2, 3, 4):
            x = getattr(self, f"layer{layer}")(x)
            layers.append(x)
        return layers


class PyramidPooling(nn.Module):
    def __init__(self, channels, reduced, bins):
        super().__init__()
        self.features = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(b), nn.Conv2d(channels, reduced, 1, bias=False), nn.BatchNorm2d(reduced))
            for b in bins
        )

    def forward(self, x):
        levels = [F.relu(level(x)) for level in self.features]
        size = x.shape[2:]
        return torch.cat([x, *(F.interpolate(y, size, mode="bilinear", align_corners=True) for y in levels)], 1)


def head(channels, features, classes):
    return nn.Sequential(
        nn.Conv2d(channels, features, 3, padding=1, bias=False),
        nn.BatchNorm2d(features),
        nn.ReLU(),
        nn.Dropout2d(0.1),
        nn.Conv2d(features, classes, 1),
    )


class PSPNet(nn.Module):
    """semseg's keys: `layer0` is the deep stem, every 3x3 of layer3 is dilated by 2 and of layer4 by 4."""

    def __init__(self, width, classes):
        super().__init__()
        encoder = ResNet(50, width, (1, 2, 1, 1), (1, 1, 2, 4), deep_stem=True)
        stem = [(getattr(encoder, f"conv{i}"), getattr(encoder, f"bn{i}"), nn.ReLU()) for i in (1, 2, 3)]
        self.layer0 = nn.Sequential(*(module for group in stem for module in group), nn.MaxPool2d(3, 2, 1))
        self.layer1, self.layer2, self.layer3, self.layer4 = (getattr(encoder, f"layer{i}") for i in (1, 2, 3, 4))
        channels = 32 * width
        self.ppm = PyramidPooling(channels, channels // 4, (1, 2, 3, 6))
        self.cls = head(2 * channels, 8 * width, classes)
        self.aux = head(channels // 2, 4 * width, classes)

    def forward(self, x):
        size = x.shape[2:]
        x = self.layer3(self.layer2(self.layer1(self.layer0(x))))
        logits = self.cls(self.ppm(self.layer4(x)))
        return F.interpolate(logits, size, mode="bilinear", align_corners=True), self.aux(x)


def main():
    plain = {"strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1)}
    nets = {
        "basic": ResNet(18, recipe.WIDTH["basic"], **plain),
        "bottleneck": ResNet(50, recipe.WIDTH["bottleneck"], **plain),
        "pspnet": PSPNet(recipe.WIDTH["pspnet"], recipe.CLASSES),
    }
    image = torch.from_numpy(recipe.image()).permute(0, 3, 1, 2)
    stored = {}
    for name, net in nets.items():
        state = net.state_dict()
        shapes = {key: list(value.shape) for key, value in state.items()}
        net.load_state_dict({key: torch.from_numpy(recipe.weight(key, shape)) for key, shape in shapes.items()})
        with torch.no_grad():
            results = [x.permute(0, 2, 3, 1).numpy() for x in net.eval()(image)]
        print(name, [(x.shape, float(np.abs(x).max().round(2)), float(x.std().round(3))) for x in results])
        stored[f"{name}/shapes"] = np.frombuffer(json.dumps(shapes).encode(), np.uint8)
        stored |= {f"{name}/{index}": recipe.sample(x) for index, x in enumerate(results)}
    path = pathlib.Path(__file__).with_name("resnet.npz")
    np.savez_compressed(path, **stored)
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
