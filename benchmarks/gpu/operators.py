"""Times operators of the library, and other forms of them, at the papers' sizes; prints a line for each.

    python benchmarks/gpu/operators.py GROUP [--tiny]

A line names the operator, its form and its part ("forward", "input gradient", "kernel gradient", "both" for forward and
all gradients). The form "library" is what `scarce_jax` does; the others stand in this file or in `forms.py`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import forms
import jax
import jax.numpy as jnp
from device import emit, taken

from scarce_jax.evaluation.confusion import confusion
from scarce_jax.losses import cross_entropy
from scarce_jax.models import layers, pspnet
from scarce_jax.models.deconvolution import score_layer
from scarce_jax.ops.max_pool import max_pool
from scarce_jax.ops.pool import max_pool_with_switches, unpool
from scarce_jax.ops.random_walk import random_walk
from scarce_jax.ops.resize import resize_bilinear
from scarce_jax.provenance import environment

CONVOLUTIONS = {
    # name: images, side, input and output channels, kernel, dilation
    "3x3 256 at 43": (16, 43, 256, 256, 3, 1),
    "3x3 256 at 43, rate 2": (16, 43, 256, 256, 3, 2),
    "3x3 512 at 43, rate 4": (16, 43, 512, 512, 3, 4),
    "3x3 512 to 1024 at 41, rate 12": (30, 41, 512, 1024, 3, 12),
    "1x1 1024 to 256 at 43": (16, 43, 1024, 256, 1, 1),
    "1x1 256 to 1024 at 43": (16, 43, 256, 1024, 1, 1),
    "3x3 64 at 320": (64, 320, 64, 64, 3, 1),
    "3x3 3 to 64 at 321": (30, 321, 3, 64, 3, 1),
    "3x3 96 at 181": (8, 181, 96, 96, 3, 1),
}

SHORT, SETS = 300e-6, 8
"""An operator that takes less than the first is timed as one program of so many copies of it, on arrays of their own.
On an H200 the dispatch of a program from Python hid what short ones take: no program of one operator took less than
37 us there, and a 1x1 convolution three times what it took in PyTorch."""


class Bench:
    """Sizes, random arrays, and timing."""

    def __init__(self, tiny: bool):
        self.tiny, self.dtype, self._seeds = tiny, jnp.float32 if tiny else jnp.bfloat16, itertools.count()

    def channels(self, count: int) -> int:
        """Of channels or images."""
        return max(2, count // 16) if self.tiny else count

    def side(self, length: int) -> int:
        return max(12, length // 16) if self.tiny else length

    def random(self, *shape: int, dtype: Any = None) -> jax.Array:
        drawn = jax.random.normal(jax.random.key(next(self._seeds)), shape, jnp.float32)
        return drawn.astype(dtype or self.dtype)

    def labels(self, *shape: int, classes: int = 19) -> jax.Array:
        return jax.random.randint(jax.random.key(next(self._seeds)), shape, 0, classes).astype(jnp.uint8)

    def time(self, operator: str, form: str, part: str, function: Callable, *values: Any, flops: float = 0) -> None:
        """Compiles and times `function(*values)`, and prints its line; a failure is a line too."""
        row: dict[str, Any] = {"operator": operator, "form": form, "part": part}
        try:
            began = time.perf_counter()
            program = jax.jit(function).lower(*values).compile()
            row["compile_s"] = round(time.perf_counter() - began, 2)
            each = self._seconds(program, *values)
            if each < SHORT:
                sets = [jax.tree.map(jnp.copy, values) for _ in range(SETS)]
                program = jax.jit(lambda sets: [function(*values) for values in sets]).lower(sets).compile()
                each = self._seconds(program, sets) / SETS
            moved = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((values, jax.eval_shape(function, *values))))
            row |= {"us": round(1e6 * each, 1), "argument_gb_per_second": round(moved / each / 1e9)}
            row |= {"tflop_per_second": round(flops / each / 1e12, 1)} if flops else {}
        except Exception as error:  # noqa: BLE001  an operator that fails must not end the others
            row["error"] = f"{type(error).__name__}: {str(error)[:300]}"
        emit(**row)

    def _seconds(self, program: Callable, *values: Any) -> float:
        """Median seconds of a call over three groups of calls."""

        def timed(calls: int) -> float:
            began = time.perf_counter()
            for _ in range(calls):
                result = program(*values)
            jax.block_until_ready(result)
            return (time.perf_counter() - began) / calls

        timed(1)
        calls = 2 if self.tiny else max(3, min(200, round(0.1 / timed(3))))
        return statistics.median(timed(calls) for _ in range(3))

    def both(self, operator: str, form: str, function: Callable, *values: Any) -> None:
        """Times `function` and its gradients by all floating `values`, for a random cotangent."""
        shape = jax.eval_shape(function, *values)
        cotangent = jax.tree.map(lambda x: self.random(*x.shape, dtype=x.dtype), shape)

        def pulled(cotangent: Any, *values: Any) -> Any:
            result, pull = jax.vjp(function, *values)
            return result, pull(cotangent)

        self.time(operator, form, "both", pulled, cotangent, *values)


def ceilings(bench: Bench) -> None:
    side = 512 if bench.tiny else 8192
    x = bench.random(side, side)
    bench.time("matrix product of 8192", "plain", "forward", lambda x: x @ x, x, flops=2 * side**3)
    x = bench.random(bench.channels(256), 1 << (14 if bench.tiny else 22))
    bench.time("copy", "plain", "forward", lambda x: x + 1, x)


def module(layer: nn.Module, x: jax.Array, **flags: Any) -> tuple[Callable, Any]:
    """A module as `function(parameters, x)`, and its parameters, drawn without compiling their initialisation."""
    shapes = jax.eval_shape(functools.partial(layer.init, **flags), jax.random.key(0), x)
    values = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), shapes)
    statistics_, parameters = (values.get(name, {}) for name in ("batch_stats", "params"))

    def function(parameters: Any, x: jax.Array) -> Any:
        variables = {"params": parameters, "batch_stats": statistics_}
        return layer.apply(variables, x, **flags, mutable=["batch_stats"])[0]

    return function, parameters


def kernel_gradients(bench: Bench, only_direct: bool) -> None:
    """Forms of convolutions and their gradients.

    Args:
      only_direct: only the kernel gradients of dilated convolutions as XLA takes them by itself, with a window as large
        as the image, which may take minutes to compile; otherwise all but these.
    """
    for name, (images, side, inputs, outputs, kernel, rate) in CONVOLUTIONS.items():
        images, inputs, outputs = (bench.channels(count) for count in (images, inputs, outputs))
        side = bench.side(side)
        flops = 2 * images * side**2 * inputs * outputs * kernel**2
        x, cotangent = bench.random(images, side, side, inputs), bench.random(images, side, side, outputs)
        weights = bench.random(kernel, kernel, inputs, outputs, dtype=jnp.float32)
        options = {"dilation": rate, "dtype": bench.dtype}
        layer = layers.Convolution(outputs, kernel, **options)
        functions = {"library": lambda x, w, layer=layer: layer.apply({"params": {"kernel": w}}, x)}
        if rate > 1:
            functions["direct"] = functools.partial(forms.convolution, rate=rate)
            functions["phases"] = functools.partial(forms.convolution_in_phases, rate=rate)
        if kernel == 1:
            functions["matrix product"] = forms.pointwise
        for form, function in functions.items():
            if (form == "direct") != only_direct:
                continue
            if not only_direct:
                bench.time(name, form, "forward", function, x, weights, flops=flops)
                gradient = lambda x, w, g, f=function: jax.vjp(lambda x: f(x, w), x)[1](g)[0]
                bench.time(name, form, "input gradient", gradient, x, weights, cotangent, flops=flops)
            gradient = lambda x, w, g, f=function: jax.vjp(lambda w: f(x, w), w)[1](g)[0]
            bench.time(name, form, "kernel gradient", gradient, x, weights, cotangent, flops=flops)


def normalisation_and_pools(bench: Bench) -> None:
    for features, side, images in ((256, 43, 16), (1024, 43, 16), (64, 320, 64)):
        name = f"1x1 convolution, batch norm, ReLU: {features} at {side}"
        features, side, images = bench.channels(features), bench.side(side), bench.channels(images)
        x = bench.random(images, side, side, features)
        for form, layer in (
            ("library", layers.ConvUnit(features, 1, dtype=bench.dtype)),
            ("Linen", forms.LinenUnit(features, bench.dtype)),
        ):
            bench.both(name, form, *module(layer, x, train=True), x)
    side = bench.side(321)
    x = bench.random(bench.channels(30), side, side, 64)
    pad = ((1, 1), (1, 1))
    for form, pool in (
        ("library", lambda x: max_pool(x, 3, 2, pad)),
        ("slices", functools.partial(forms.max_pool_by_slices, pad=pad)),
        ("reduce_window", lambda x: nn.max_pool(x, (3, 3), (2, 2), pad)),
    ):
        bench.both("3x3 max pool of stride 2, 64 at 321", form, pool, x)
    side = bench.side(320) // 2 * 2
    x = bench.random(bench.channels(64), side, side, 64)
    pooled, switches = jax.jit(max_pool_with_switches)(x)
    bench.time("2x2 max pool with switches, 64 at 320", "library", "forward", max_pool_with_switches, x)
    bench.time("unpool", "library", "forward", unpool, pooled, switches)
    gradient = lambda g, switches: jax.vjp(lambda y: unpool(y, switches), jnp.zeros_like(pooled))[1](g)[0]
    bench.time("unpool", "library", "input gradient", gradient, x, switches)


def heads_and_losses(bench: Bench) -> None:
    height, width = bench.side(128), bench.side(256)
    x = bench.random(bench.channels(8), height, width, 96)
    labels = bench.labels(len(x), 4 * height, 4 * width)
    for form, layer in (("library", layers.Upsampler(19)), ("dilated input", forms.DilatedUpsampler(19))):
        function, parameters = module(layer, x, size=labels.shape[1:])
        loss = lambda p, x, f=function: cross_entropy(f(p, x), labels)
        bench.both("8x8 upsampler of stride 4 and loss, 96 at 128 x 256", form, loss, parameters, x)
    for low, high in ((43, 340), (90, 713)):
        name = f"bilinear upsampling and loss, {low} to {high}"
        low, high = bench.side(low), bench.side(high)
        logits = bench.random(bench.channels(16), low, low, 19, dtype=jnp.float32)
        labels = bench.labels(len(logits), high, high)
        loss = lambda x, y=labels: cross_entropy(resize_bilinear(x, y.shape[1:], align_corners=True), y)
        bench.both(name, "full-size logits", loss, logits)
    side = bench.side(320)
    x = bench.random(bench.channels(64), side, side, 64)
    function, parameters = module(score_layer(2, 64, "score"), x)
    bench.both("scores of 2 classes, 64 at 320", "library", function, parameters, x)
    kernel = bench.random(64, 2, dtype=jnp.float32)
    bench.both("scores of 2 classes, 64 at 320", "product with a float32 result", forms.scores, kernel, x)
    x = bench.random(bench.channels(16), bench.side(43), bench.side(43), bench.channels(2048))
    parts = module(pspnet.PyramidPooling(bench.channels(512), dtype=bench.dtype), (x,), train=True)
    bench.both("pyramid, 2048 at 43", "library", lambda p, x: parts[0](p, (x,)), parts[1], x)
    bench.both("averages of the pyramid, 2048 at 43", "one product", forms.pyramid, x)
    truth, predicted = (bench.labels(bench.channels(8), bench.side(1024), bench.side(2048)) for _ in range(2))
    for form, count in (("library", confusion), ("product of one-hot labels", forms.confusion)):
        count = functools.partial(count, classes=19)
        bench.time("confusion, 8 x 1024 x 2048", form, "forward", count, predicted, truth)


def walk(bench: Bench) -> None:
    # A quarter of three_step's 512 pixels, its radius and steps, and VOC's classes.
    side = bench.side(128)
    scores = jnp.abs(bench.random(bench.channels(16), side, side, 20, dtype=jnp.float32))
    edge = jax.nn.sigmoid(bench.random(*scores.shape[:3], dtype=jnp.float32))
    function = functools.partial(random_walk, steps=2 if bench.tiny else 256)
    bench.time("random walk, 16 x 128 x 128 x 20", "library", "forward", function, scores, edge)


GROUPS = {
    "ceilings": ceilings,
    "convolutions": functools.partial(kernel_gradients, only_direct=False),
    "layers": normalisation_and_pools,
    "heads": heads_and_losses,
    "walk": walk,
    "direct": functools.partial(kernel_gradients, only_direct=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU")
    options = parser.parse_args()
    jax.devices()
    with taken():
        GROUPS[options.group](Bench(options.tiny))
    emit(**environment())


if __name__ == "__main__":
    main()
