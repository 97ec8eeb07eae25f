"""Writes vgg.npz: what PyTorch computes with torchvision's VGG-16, Caffe's LargeFOV, the CAM classifier and the P-Net.

Needs torch (made with 2.13.0, CPU), which the tests do not: `python -m tests.models.golden.make_vgg`.
"""

import json
import pathlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tests.models.golden import recipe


def features(width, pools, batch_norm=False, dilation=1):
    """Layers under torchvision's keys `features.N`, with other pools."""
    layers, channels = [], 3
    for group, (count, pool) in enumerate(zip((2, 2, 3, 3, 3), pools, strict=True)):
        for _ in range(count):
            rate = dilation if group == 4 else 1
            planes = width * (1, 2, 4, 8, 8)[group]
            layers.append(nn.Conv2d(channels, planes, 3, padding=rate, dilation=rate))
            layers += [nn.BatchNorm2d(planes)] if batch_norm else []
            layers.append(nn.ReLU())
            channels = planes
        layers.append(pool)
    return nn.Sequential(*layers)


class VGG(nn.Module):
    """torchvision's `vgg16`; the classifier is there for its keys alone."""

    def __init__(self, width, batch_norm):
        super().__init__()
        self.features = features(width, [nn.MaxPool2d(2, 2)] * 5, batch_norm)
        hidden = 16 * width
        inner = (nn.Linear(49 * 8 * width, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU())
        self.classifier = nn.Sequential(*inner, nn.Dropout(), nn.Linear(hidden, 10))

    def forward(self, x):
        return [self.features(x)]


class LargeFOV(nn.Module):
    """As the authors' published Caffe definition: pools round up, the average counts its padding."""

    def __init__(self, width, classes):
        super().__init__()
        pools = [nn.MaxPool2d(3, stride, 1, ceil_mode=True) for stride in (2, 2, 2, 1, 1)]
        self.features = features(width, pools, dilation=2)
        self.fc6 = nn.Conv2d(8 * width, 16 * width, 3, padding=12, dilation=12)
        self.fc7 = nn.Conv2d(16 * width, 16 * width, 1)
        self.fc8 = nn.Conv2d(16 * width, classes, 1)

    def forward(self, x):
        x = F.avg_pool2d(self.features(x), 3, 1, 1, ceil_mode=True, count_include_pad=True)
        return [self.fc8(F.relu(self.fc7(F.relu(self.fc6(x)))))]


class Cam(nn.Module):
    """Logits, and the maps as the last layer's weights times the features."""

    def __init__(self, width, classes, stride):
        super().__init__()
        fourth = nn.MaxPool2d(2, 2) if stride == 16 else nn.MaxPool2d(3, 1, 1)
        pools = [nn.MaxPool2d(2, 2)] * 3 + [fourth, nn.Identity()]
        self.features = features(width, pools, dilation=16 // stride)
        self.conv6 = nn.Conv2d(8 * width, 16 * width, 3, padding=1)
        self.classifier = nn.Linear(16 * width, classes)

    def forward(self, x):
        x = F.relu(self.conv6(self.features(x)))
        maps = F.conv2d(x, self.classifier.weight[:, :, None, None])
        return [self.classifier(x.mean((2, 3)))[:, :, None, None], maps]


class PNet(nn.Module):
    """Table 1 of the paper."""

    def __init__(self, width, size):
        super().__init__()
        channels = 3
        for group, factors in enumerate(((1, 2), (4, 4), (8, 8)), start=1):
            for index, factor in enumerate(factors, start=1):
                setattr(self, f"conv{group}_{index}", nn.Conv2d(channels, factor * width, 3, padding=1))
                channels = factor * width
        self.fc4 = nn.Linear(channels * (size[0] // 8) * (size[1] // 8), 16 * width)
        self.fc5 = nn.Linear(16 * width, 32 * width)
        self.fc6 = nn.Linear(32 * width, 1)

    def forward(self, x):
        for group in (1, 2, 3):
            for index in (1, 2):
                x = F.relu(getattr(self, f"conv{group}_{index}")(x))
            x = F.max_pool2d(x, 2, 2)
        x = torch.tanh(self.fc5(torch.tanh(self.fc4(x.flatten(1)))))
        return [self.fc6(x)[:, :, None, None]]


def main():
    width = recipe.WIDTH
    nets = {
        "vgg16": VGG(width["vgg16"], False),
        "vgg16_bn": VGG(width["vgg16_bn"], True),
        "largefov": LargeFOV(width["largefov"], recipe.CLASSES),
        "cam": Cam(width["cam"], recipe.CLASSES, 16),
        "cam8": Cam(width["cam"], recipe.CLASSES, 8),
        "pnet": PNet(width["pnet"], recipe.SIZE[1:3]),
    }
    stored = {}
    for name, net in nets.items():
        size = recipe.EIGHTHS if name == "largefov" else recipe.SIZE
        image = torch.from_numpy(recipe.image(size)).permute(0, 3, 1, 2)
        shapes = {key: list(value.shape) for key, value in net.state_dict().items()}
        values = {key: recipe.weight(key, shape, recipe.gain_of(name)) for key, shape in shapes.items()}
        net.load_state_dict({key: torch.from_numpy(value) for key, value in values.items()})
        with torch.no_grad():
            results = [x.permute(0, 2, 3, 1).numpy() for x in net.eval()(image)]
        print(name, [(x.shape, float(np.abs(x).max().round(2)), float(x.std().round(3))) for x in results])
        stored[f"{name}/shapes"] = np.frombuffer(json.dumps(shapes).encode(), np.uint8)
        stored |= {f"{name}/{index}": recipe.sample(x) for index, x in enumerate(results)}
    path = pathlib.Path(__file__).with_name("vgg.npz")
    np.savez_compressed(path, **stored)
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
