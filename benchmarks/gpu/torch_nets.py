"""The nets of `nets.NETS` in PyTorch, with the same layers and the same number of parameters, for timing.

All take float images [B, 3, H, W] and return a tuple of logits, the last of which is that of the auxiliary head where
there is one. Initial values are PyTorch's.
"""

from __future__ import annotations

import torch
from nets import TINY_HIDDEN
from torch import nn
from torch.nn import functional as F

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
VGG16 = (2, 2, 3, 3, 3)


def unit(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution without bias, batch normalisation, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def normalised(layer: nn.Module, features: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(features), nn.ReLU(inplace=True))


def enlarged(x: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


class Block(nn.Module):
    """Residual block, a bottleneck from depth 50 on; `first` puts the stride into its first convolution."""

    def __init__(self, depth: int, inputs: int, features: int, stride: int, dilation: int, first: bool):
        super().__init__()
        outputs = features * (4 if depth >= 50 else 1)
        if depth >= 50:
            one, two = (stride, 1) if first else (1, stride)
            self.units = nn.Sequential(unit(inputs, features, 1, one), unit(features, features, 3, two, dilation))
            last = nn.Conv2d(features, outputs, 1, bias=False)
        else:
            self.units = unit(inputs, features, 3, stride, dilation)
            last = nn.Conv2d(features, features, 3, 1, dilation, dilation, bias=False)
        self.last = nn.Sequential(last, nn.BatchNorm2d(outputs))
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.last(self.units(x)) + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """Dilated encoder of output stride 8: the outputs of its four layers."""

    def __init__(self, depth: int = 101, width: int = 64, caffe: bool = False):
        super().__init__()
        self.caffe, self.stem = caffe, unit(3, width, 7, 2)
        layers, inputs = [], width
        for k, (count, stride, dilation) in enumerate(zip(BLOCKS[depth], (1, 2, 1, 1), (1, 1, 2, 4), strict=True)):
            features, blocks = width * 2**k, []
            for index in range(count):
                blocks.append(Block(depth, inputs, features, stride if index == 0 else 1, dilation, caffe))
                inputs = features * (4 if depth >= 50 else 1)
            layers.append(nn.Sequential(*blocks))
        self.layers, self.features = nn.ModuleList(layers), inputs

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        x, outputs = F.max_pool2d(self.stem(image), 3, 2, 1, ceil_mode=self.caffe), []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        return outputs


class PSPNet(nn.Module):
    """PSPNet with its auxiliary head; with `embedding`, the detailer that reads a coarse mask after the pyramid."""

    def __init__(self, classes: int, depth: int = 101, width: int = 64, embedding: int = 0, dropout: float = 0.1):
        super().__init__()
        self.classes, self.dropout, self.net = classes, dropout, ResNet(depth, width)
        features = self.net.features
        self.pyramid = nn.ModuleList(unit(features, features // 4, 1) for _ in range(4))
        self.embedding = nn.Conv2d(classes, embedding, 1) if embedding else None
        self.final, self.classifier = unit(2 * features + embedding, 8 * width, 3), nn.Conv2d(8 * width, classes, 1)
        self.aux, self.aux_classifier = unit(features // 2, 4 * width, 3), nn.Conv2d(4 * width, classes, 1)

    def forward(self, image: torch.Tensor, coarse: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        outputs, size = self.net(image), image.shape[2:]
        x = outputs[3]
        levels = [
            enlarged(level(F.adaptive_avg_pool2d(x, bins)), x.shape[2:])
            for level, bins in zip(self.pyramid, (1, 2, 3, 6), strict=True)
        ]
        parts = [x, *levels]
        if self.embedding is not None:
            one_hot = F.one_hot(coarse, self.classes).movedim(3, 1).to(x.dtype)
            parts.append(self.embedding(F.adaptive_avg_pool2d(one_hot, x.shape[2:])))
        x = F.dropout2d(self.final(torch.cat(parts, 1)), self.dropout, self.training)
        y = F.dropout2d(self.aux(outputs[2]), self.dropout, self.training)
        logits = enlarged(self.classifier(x).float(), size)
        if self.embedding is not None:
            logits = logits + one_hot
        return logits, enlarged(self.aux_classifier(y).float(), size)


class DeepLabV2(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        self.net = ResNet(caffe=True)
        self.heads = nn.ModuleList(nn.Conv2d(2048, classes, 3, 1, rate, rate) for rate in (6, 12, 18, 24))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.net(image)[3]
        return (enlarged(sum(head(x) for head in self.heads).float(), image.shape[2:]),)


class TwoBranch(nn.Module):
    def __init__(self, inputs: int, left: int, right: int):
        super().__init__()
        self.left, self.right = unit(inputs, left, 1), nn.Sequential(unit(inputs, right, 3), unit(right, right, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.left(x), self.right(x)], 1)


class Dense(nn.Module):
    def __init__(self, inputs: int, growth: int):
        super().__init__()
        self.units = nn.Sequential(unit(inputs, 4 * growth, 1), unit(4 * growth, growth, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.units(x)], 1)


class DSNet(nn.Module):
    def __init__(self, classes: int, width: int = 32):
        super().__init__()
        self.stem, self.initial = unit(3, width, 3, 2), TwoBranch(width, width // 2, 3 * width // 2)
        features, outputs = 2 * width, []
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList([nn.Identity()])
        for block, count in enumerate((3, 3, 6, 3)):
            if block:
                self.transitions.append(unit(features, features, 1))
            units = []
            for _ in range(count):
                units.append(TwoBranch(features, width, 3 * width) if block == 0 else Dense(features, width))
                features = 4 * width if block == 0 else features + width
            self.blocks.append(nn.Sequential(*units))
            outputs.append(features)
        decoded = (3 * width // 4, width, width // 2, 3 * width // 4)
        self.decoders = nn.ModuleList(unit(i, o, 3) for i, o in zip(outputs, decoded, strict=True))
        self.upsampler = nn.ConvTranspose2d(sum(decoded), classes, 8, 4, 2)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        size, x, merged = image.shape[2:], self.initial(self.stem(image)), []
        for index, (block, transition, decoder) in enumerate(
            zip(self.blocks, self.transitions, self.decoders, strict=True)
        ):
            x = block(F.avg_pool2d(transition(x), 2, ceil_mode=True))
            y = decoder(x)
            y = F.interpolate(y, scale_factor=2**index, mode="bilinear") if index else y
            quarter = merged[0].shape[2:] if merged else y.shape[2:]
            merged.append(y[:, :, : quarter[0], : quarter[1]])
        return (self.upsampler(torch.cat(merged, 1))[:, :, : size[0], : size[1]],)


def vgg(pools: list[nn.Module], norm: bool, dilation: int = 1) -> list[nn.Module]:
    """VGG-16's convolutions and the pools after each group; `dilation` is that of the last group."""
    layers, inputs = [], 3
    for group, (count, pool) in enumerate(zip(VGG16, pools, strict=True)):
        outputs, rate = 64 * min(2**group, 8), dilation if group == 4 else 1
        for _ in range(count):
            layers.append(nn.Conv2d(inputs, outputs, 3, 1, rate, rate))
            layers += [nn.BatchNorm2d(outputs)] if norm else []
            layers.append(nn.ReLU(inplace=True))
            inputs = outputs
        layers.append(pool)
    return layers


def switching() -> list[nn.Module]:
    return [nn.MaxPool2d(2, 2, return_indices=True) for _ in VGG16]


def pooled(layers: nn.ModuleList, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The output of layers some of which are pools, and the places of these pools' maxima."""
    places = []
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            x, place = layer(x)
            places.append(place)
        else:
            x = layer(x)
    return x, places


class LargeFOV(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        pools = [nn.MaxPool2d(3, stride, 1) for stride in (2, 2, 2, 1, 1)]
        head = [nn.Conv2d(512, 1024, 3, 1, 12, 12), nn.ReLU(True), nn.Dropout(0.5)]
        head += [nn.Conv2d(1024, 1024, 1), nn.ReLU(True), nn.Dropout(0.5), nn.Conv2d(1024, classes, 1)]
        self.net = nn.Sequential(*vgg(pools, False, 2), nn.AvgPool2d(3, 1, 1), *head)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.net(image),)


class Deconvolution(nn.Module):
    """fc6, fc7, fc6-deconv, the deconvolutions with unpooling, and the scores."""

    def __init__(self, inputs: int, hidden: int, classes: int, width: int = 64):
        super().__init__()
        self.bridge = nn.Sequential(
            normalised(nn.Conv2d(inputs, hidden, 7), hidden),
            normalised(nn.Conv2d(hidden, hidden, 1), hidden),
            normalised(nn.ConvTranspose2d(hidden, 8 * width, 7), 8 * width),
        )
        groups, features = [], 8 * width
        for count, (first, last) in zip(VGG16[::-1], ((8, 8), (8, 4), (4, 2), (2, 1), (1, 1)), strict=True):
            layers = []
            for index in range(count):
                outputs = width * (last if index == count - 1 else first)
                layers.append(normalised(nn.Conv2d(features, outputs, 3, 1, 1), outputs))
                features = outputs
            groups.append(nn.Sequential(*layers))
        self.groups, self.score = nn.ModuleList(groups), nn.Conv2d(features, classes, 1)

    def forward(self, x: torch.Tensor, places: list[torch.Tensor]) -> torch.Tensor:
        x = self.bridge(x)
        for group, place in zip(self.groups, places[::-1], strict=True):
            x = group(F.max_unpool2d(x, place, 2))
        return self.score(x)


class DeconvNet(nn.Module):
    def __init__(self, classes: int, hidden: int):
        super().__init__()
        self.trunk, self.deconvolution = nn.ModuleList(vgg(switching(), True)), Deconvolution(512, hidden, classes)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.deconvolution(*pooled(self.trunk, image)),)


class Decoupled(nn.Module):
    """The segmentation net of the decoupled method on its frozen classifier, for one class of each image."""

    def __init__(self, classes: int, hidden: int):
        super().__init__()
        self.trunk = nn.ModuleList(vgg(switching(), False))
        head = nn.Conv2d(512, hidden, 7), nn.Conv2d(hidden, hidden, 1), nn.Conv2d(hidden, classes - 1, 1)
        self.head = nn.ModuleList(head)
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        # The second has the library's epsilon for gradients, which are small.
        self.norms = nn.ModuleList((nn.BatchNorm2d(512), nn.BatchNorm2d(512, eps=1e-9)))
        self.deconvolution = Deconvolution(1024, hidden // 2, 2)

    def saliency(self, pool5: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Gradient of the chosen class's largest score times its probability, by pool5.

        It is written out, since torch.compile does not trace a gradient inside a compiled function.
        """
        fc6, fc7, score = self.head
        one = F.relu(fc6(pool5))
        two = F.relu(fc7(one))
        scores = score(two).flatten(2)
        largest = scores == scores.amax(2, keepdim=True)
        seeds = largest * (torch.sigmoid(scores.amax(2)) * F.one_hot(chosen, scores.shape[1]))[:, :, None]
        seeds = seeds.to(two.dtype).unflatten(2, two.shape[2:])
        gradient = F.conv_transpose2d(seeds, score.weight) * (two > 0)
        gradient = F.conv_transpose2d(gradient, fc7.weight) * (one > 0)
        return F.conv_transpose2d(gradient, fc6.weight)

    def forward(self, image: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            pool5, places = pooled(self.trunk, image)
            saliency = self.saliency(pool5, chosen)
        x = torch.cat([norm(part) for norm, part in zip(self.norms, (pool5, saliency), strict=True)], 1)
        return (self.deconvolution(x, places),)


NETS = {
    "pspnet340": lambda tiny: PSPNet(19),
    "pspnet713": lambda tiny: PSPNet(19),
    "detailer340": lambda tiny: PSPNet(19, embedding=800),
    "dsnet": lambda tiny: DSNet(19),
    "largefov": lambda tiny: LargeFOV(21),
    "decoupled": lambda tiny: Decoupled(21, TINY_HIDDEN if tiny else 4096),
    "deconvnet": lambda tiny: DeconvNet(21, TINY_HIDDEN if tiny else 4096),
    "deeplabv2": lambda tiny: DeepLabV2(19),
}
"""Name -> function that makes the net, at the widths of `nets.config_of`."""
