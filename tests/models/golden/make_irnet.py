"""Writes irnet.npz: what PyTorch computes with the layers of IRNet (jiwoon-ahn/irn) and DeepLabv3+.

The random walk is IRNet's too.

Needs torch (made with 2.14.1, CPU), which the tests do not: `python -m tests.models.golden.make_irnet`.
"""

import pathlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tests.models.golden import recipe
from tests.models.golden.make_resnet import ResNet


def enlarge(scale):
    return nn.Upsample(scale_factor=scale, mode="bilinear", align_corners=False) if scale > 1 else nn.Identity()


def tap(inputs, features, groups, scale=1):
    layers = nn.Sequential(nn.Conv2d(inputs, features, 1, bias=False), nn.GroupNorm(groups, features))
    return nn.ModuleDict({"conv": layers[0], "norm": layers[1], "up": enlarge(scale)})


def run(layers, x):
    return F.relu(layers["up"](layers["norm"](layers["conv"](x))))


class IRNet(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.backbone = ResNet(50, width, (1, 2, 2, 1), (1, 1, 1, 1))
        channels = (width, *(4 * width * 2**k for k in range(4)))
        f = [n * width // 64 for n in (32, 64, 128, 256)]
        for k, (c, scale) in enumerate(zip(channels, (1, 1, 2, 4, 4), strict=True), start=1):
            setattr(self, f"edge{k}", tap(c, f[0], 4, scale))
        self.edge_head = nn.Conv2d(5 * f[0], 1, 1)
        settings = ((f[1], 8, 1), (f[2], 16, 1), (f[3], 16, 1), (f[3], 16, 2), (f[3], 16, 2))
        for k, (c, (features, groups, scale)) in enumerate(zip(channels, settings, strict=True), start=1):
            setattr(self, f"displacement{k}", tap(c, features, groups, scale))
        self.displacement6 = tap(3 * f[3], f[3], 16, 2)
        self.displacement7 = tap(f[1] + f[2] + f[3], f[3], 16)
        self.displacement_head = nn.Conv2d(f[3], 2, 1, bias=False)

    def forward(self, image):
        layers = self.backbone(image)
        x = [self.backbone.pooled, *layers]
        h, w = x[1].shape[2:]
        edges = [run(getattr(self, f"edge{k}"), y)[..., :h, :w] for k, y in enumerate(x, start=1)]
        edge = self.edge_head(torch.cat(edges, 1))
        d1, d2, d3, d4, d5 = (run(getattr(self, f"displacement{k}"), y) for k, y in enumerate(x, start=1))
        d4, d5 = (y[..., : d3.shape[2], : d3.shape[3]] for y in (d4, d5))
        d6 = run(self.displacement6, torch.cat((d3, d4, d5), 1))[..., :h, :w]
        d7 = run(self.displacement7, torch.cat((d1, d2, d6), 1))
        return edge, self.displacement_head(d7)


def unit(inputs, features, kernel, dilation=1):
    conv = nn.Conv2d(inputs, features, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False)
    return nn.ModuleDict({"conv": conv, "bn": nn.BatchNorm2d(features)})


def apply(layers, x):
    return F.relu(layers["bn"](layers["conv"](x)))


class DeepLabV3Plus(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.backbone = ResNet(50, width, (1, 2, 1, 1), (1, 1, 2, 4), dilate_first=False)
        c, f = 32 * width, 4 * width
        self.aspp = nn.ModuleDict({"point": unit(c, f, 1), "pool": unit(c, f, 1), "project": unit(5 * f, f, 1)})
        self.aspp.update({f"rate{rate}": unit(c, f, 3, rate) for rate in (12, 24, 36)})
        self.decoder_low, self.decoder = unit(4 * width, 3 * width // 4, 1), unit(f + 3 * width // 4, f, 3)
        self.classifier = nn.Conv2d(f, classes, 1)

    def forward(self, image):
        layers = self.backbone(image)
        x, up = layers[3], lambda x, like: F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)
        pool = apply(self.aspp["pool"], x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        x = torch.cat([*(apply(self.aspp[name], x) for name in ("point", "rate12", "rate24", "rate36")), pool], 1)
        x, low = apply(self.aspp["project"], x), apply(self.decoder_low, layers[0])
        return up(self.classifier(apply(self.decoder, torch.cat((low, up(x, low)), 1))), image)


def random_walk(x, edge, radius=5, beta=10, times=8):
    """x [K, H, W] and edge [H, W] -> [K, H, W], by the dense transition matrix, squared `times` times."""
    h, w = edge.shape
    affinity = torch.eye(h * w, dtype=torch.float64)
    for y in range(h):
        for c in range(w):
            for dy in range(radius):
                for dx in range(1 - radius, radius):
                    inside = 0 <= y + dy < h and 0 <= c + dx < w
                    if not inside or (dy == 0 and dx <= 0) or dy * dy + dx * dx >= radius * radius:
                        continue
                    # Points of the bounding box whose distance to the line is less than 1.
                    line = [
                        edge[y + i, c + j]
                        for i in range(dy + 1)
                        for j in range(min(dx, 0), max(dx, 0) + 1)
                        if (dy * j - dx * i) ** 2 / (dy * dy + dx * dx) < 1
                    ]
                    a, b = y * w + c, (y + dy) * w + c + dx
                    affinity[a, b] = affinity[b, a] = 1 - max(line)
    transition = affinity**beta
    transition = transition / transition.sum(0, keepdim=True)
    for _ in range(times):
        transition = transition @ transition
    return ((x * (1 - edge)).reshape(-1, h * w) @ transition).reshape(x.shape)


def main():
    image = torch.from_numpy(recipe.image(recipe.EIGHTHS)).permute(0, 3, 1, 2)
    stored = {}
    nets = {"irnet": IRNet(recipe.WIDTH["irnet"]), "deeplabv3plus": DeepLabV3Plus(recipe.WIDTH["deeplabv3plus"], 5)}
    for name, net in nets.items():
        shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
        values = {key: torch.from_numpy(recipe.weight(key, shape, 2)) for key, shape in shapes.items()}
        net.load_state_dict(values)
        with torch.no_grad():
            results = net.eval()(image)
        results = results if isinstance(results, tuple) else (results,)
        for index, result in enumerate(results):
            result = result.permute(0, 2, 3, 1).numpy()
            print(name, result.shape, np.abs(result).max(), result.std())
            stored[f"{name}/{index}"] = recipe.sample(result)
    edge = torch.from_numpy(recipe.edge().astype(np.float64))
    scores = torch.from_numpy(recipe.uniform("scores", (3, *edge.shape), 0, 1).astype(np.float64))
    stored["random_walk"] = random_walk(scores, edge).permute(1, 2, 0).numpy().astype(np.float32)
    np.savez_compressed(pathlib.Path(__file__).with_name("irnet.npz"), **stored)


if __name__ == "__main__":
    main()
