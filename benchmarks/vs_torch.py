"""Compares dilated convolutions, pooling with switches and the PSPNet train step with PyTorch on the same device.

    python benchmarks/vs_torch.py [--torch-python PYTHON] [--full] [--compile] [--out FILE]

Each framework has a process of its own, one after the other, so that they do not share memory or threads;
--torch-python is an interpreter with PyTorch. Both use NHWC (channels_last) and float32 parameters. With --full, they
compute in bfloat16 (autocast) at sizes for a GPU; otherwise in float32 at sizes for a CPU.

The convolutions are the 3x3 ones of a dilated encoder with rates 2, 4 and 12: forward, input gradient and kernel
gradient. Pooling is 2x2 with switches, as after VGG's first layers, and unpooling by the switches, forward and
gradient; in PyTorch `max_pool2d` with indices and `max_unpool2d`. The train step is that of a PSPNet with auxiliary
head: forward, cross-entropy that ignores 255, backward, SGD with momentum and weight decay, on random images that are
on the device. The script stops if the two nets differ in their number of parameters.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
from typing import Any

from common import ROOT, append, arguments, dispatches, seconds_each

RATES = (2, 4, 12)
CLASSES = 19
SMALL = {
    "dtype": "float32", "conv": {"batch": 2, "size": 33, "channels": 64},
    "pool": {"batch": 2, "size": 160, "channels": 64}, "step": {"batch": 2, "crop": 97, "depth": 18, "width": 32},
}  # fmt: skip
FULL = {
    "dtype": "bfloat16", "conv": {"batch": 16, "size": 43, "channels": 512},
    "pool": {"batch": 16, "size": 320, "channels": 64}, "step": {"batch": 16, "crop": 340, "depth": 101, "width": 64},
}  # fmt: skip
OPTIMIZER = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}
AUX_WEIGHT, DROPOUT = 0.4, 0.1


def jax_side(sizes: dict[str, Any]) -> dict[str, Any]:
    """Seconds of every operator and of the train step in JAX, and the number of parameters."""
    import jax
    import jax.numpy as jnp
    import optax

    from scarce_jax.losses import cross_entropy
    from scarce_jax.models.pspnet import PSPNet
    from scarce_jax.models.resnet import ResNet
    from scarce_jax.ops.pool import max_pool_with_switches, unpool
    from scarce_jax.provenance import environment

    dtype, conv = jnp.dtype(sizes["dtype"]), sizes["conv"]

    def timed(program: Any, *values: Any) -> float:
        return seconds_each(dispatches(program, *values))

    def convolve(x: jax.Array, w: jax.Array, rate: int) -> jax.Array:
        rates, names = (rate, rate), ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, w, (1, 1), (rates, rates), rhs_dilation=rates, dimension_numbers=names)

    shape = (conv["batch"], conv["size"], conv["size"], conv["channels"])
    x, g = (jax.random.normal(jax.random.key(k), shape, dtype) for k in range(2))
    w = jax.random.normal(jax.random.key(2), (3, 3, conv["channels"], conv["channels"]), dtype)
    seconds: dict[str, Any] = {}
    for rate in RATES:
        forward = functools.partial(convolve, rate=rate)
        seconds[f"forward_{rate}"] = timed(jax.jit(forward), x, w)
        # XLA removes the gradient that is not returned.
        for k, name in enumerate(("input", "kernel")):
            pull = jax.jit(lambda x, w, g, f=forward, k=k: jax.vjp(f, x, w)[1](g)[k])
            seconds[f"{name}_gradient_{rate}"] = timed(pull, x, w, g)

    pool = sizes["pool"]
    shape = (pool["batch"], pool["size"], pool["size"], pool["channels"])
    x = jax.random.normal(jax.random.key(7), shape, dtype)
    pooled, pull_pool, switches = jax.vjp(max_pool_with_switches, x, has_aux=True)
    spread, pull_unpool = jax.vjp(lambda pooled: unpool(pooled, switches), pooled)
    pulled = jax.jit(lambda pull, g: pull(g)[0])
    seconds["pool"] = timed(jax.jit(max_pool_with_switches), x)
    seconds["pool_gradient"] = timed(pulled, pull_pool, pooled)
    seconds["unpool"] = timed(jax.jit(unpool), pooled, switches)
    seconds["unpool_gradient"] = timed(pulled, pull_unpool, spread)

    step = sizes["step"]
    backbone = ResNet(step["depth"], step["width"], dtype=dtype)
    module = PSPNet(CLASSES, backbone, step["width"], dropout=DROPOUT, dtype=dtype)
    images = jax.random.normal(jax.random.key(3), (step["batch"], step["crop"], step["crop"], 3))
    labels = jax.random.randint(jax.random.key(4), images.shape[:3], 0, CLASSES).astype(jnp.uint8)
    tx = optax.chain(
        optax.add_decayed_weights(OPTIMIZER["weight_decay"]), optax.sgd(OPTIMIZER["lr"], OPTIMIZER["momentum"])
    )

    @jax.jit
    def start(key: jax.Array) -> tuple:
        variables = module.init(key, images[:1], train=False)
        return variables["params"], variables["batch_stats"], tx.init(variables["params"])

    def loss(params: Any, stats: Any, key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple:
        variables = {"params": params, "batch_stats": stats}
        rngs = {"dropout": key}
        (logits, aux), updated = module.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)
        total = cross_entropy(logits, labels) + AUX_WEIGHT * cross_entropy(aux, labels)
        return total, updated["batch_stats"]

    def train(params: Any, stats: Any, opt: Any, key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple:
        key, own = jax.random.split(key)
        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params, stats, own, images, labels)
        updates, opt = tx.update(grads, opt, params)
        return optax.apply_updates(params, updates), stats, opt, key, value

    program = jax.jit(train, donate_argnums=(0, 1, 2, 3))
    state = (*start(jax.random.key(5)), jax.random.key(6))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state[0]))

    def work(calls: int) -> None:
        nonlocal state
        value = None
        for _ in range(calls):
            *state, value = program(*state, images, labels)
        jax.block_until_ready(value)

    seconds["step"] = seconds_each(work, repeats=3)
    return {"seconds": seconds, "parameters": parameters, **environment()}


def torch_side(sizes: dict[str, Any], compiled: bool) -> dict[str, Any]:
    """The same in PyTorch."""
    import torch

    sys.path.insert(0, str(ROOT / "benchmarks" / "gpu"))
    from torch_nets import PSPNet

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    # XLA too computes float32 convolutions in TF32 on GPUs that have it.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    dtype, conv = getattr(torch, sizes["dtype"]), sizes["conv"]

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def timed(call: Any) -> float:
        return seconds_each(functools.partial(repeated, call))

    def repeated(call: Any, calls: int) -> None:
        for _ in range(calls):
            call()
        wait()

    def gradient(y: Any, x: Any) -> Any:
        return torch.autograd.grad(y, x, y.detach(), retain_graph=True)

    def random(*shape: int) -> Any:
        return torch.randn(shape, device=device, dtype=dtype).to(memory_format=torch.channels_last)

    shape = (conv["batch"], conv["channels"], conv["size"], conv["size"])
    x, w = (random(*size).requires_grad_() for size in (shape, (conv["channels"], conv["channels"], 3, 3)))
    seconds: dict[str, Any] = {}
    for rate in RATES:
        forward = functools.partial(torch.nn.functional.conv2d, padding=rate, dilation=rate)
        y = forward(x, w)
        seconds[f"input_gradient_{rate}"] = timed(functools.partial(gradient, y, x))
        seconds[f"kernel_gradient_{rate}"] = timed(functools.partial(gradient, y, w))
        with torch.no_grad():
            seconds[f"forward_{rate}"] = timed(functools.partial(forward, x, w))

    pool = sizes["pool"]
    x = random(pool["batch"], pool["channels"], pool["size"], pool["size"]).requires_grad_()
    pooled, indices = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
    values = pooled.detach().requires_grad_()
    spread = torch.nn.functional.max_unpool2d(values, indices, 2)
    seconds["pool_gradient"] = timed(lambda: gradient(pooled, x))
    seconds["unpool_gradient"] = timed(lambda: gradient(spread, values))
    with torch.no_grad():
        seconds["pool"] = timed(lambda: torch.nn.functional.max_pool2d(x, 2, return_indices=True))
        seconds["unpool"] = timed(lambda: torch.nn.functional.max_unpool2d(values, indices, 2))

    step = sizes["step"]
    net = (
        PSPNet(CLASSES, step["depth"], step["width"], dropout=DROPOUT)
        .to(device)
        .to(memory_format=torch.channels_last)
        .train()
    )
    parameters = sum(p.numel() for p in net.parameters())
    images = torch.randn(step["batch"], 3, step["crop"], step["crop"], device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (step["batch"], step["crop"], step["crop"]), device=device)
    optimizer = torch.optim.SGD(net.parameters(), **OPTIMIZER)
    run = torch.compile(net) if compiled else net

    def call() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            logits, aux = run(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels, ignore_index=255)
        loss = loss + AUX_WEIGHT * torch.nn.functional.cross_entropy(aux.float(), labels, ignore_index=255)
        loss.backward()
        optimizer.step()

    seconds["step"] = seconds_each(functools.partial(repeated, call), repeats=3)
    kind = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return {"seconds": seconds, "parameters": parameters, "torch": torch.__version__, "torch_device": kind}


def main() -> None:
    parser = arguments(__doc__, "vs_torch.jsonl")
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter with PyTorch")
    parser.add_argument("--full", action="store_true", help="the papers' sizes in bfloat16, for a GPU")
    parser.add_argument("--compile", action="store_true", help="torch.compile for PyTorch's train step")
    parser.add_argument("--side", choices=("jax", "torch"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = FULL if options.full else SMALL
    if options.side is not None:
        print(json.dumps(jax_side(sizes) if options.side == "jax" else torch_side(sizes, options.compile)))
        return
    flags = [*(["--full"] if options.full else []), *(["--compile"] if options.compile else [])]
    subprocess.run([options.torch_python, "-c", "import torch"], check=True)
    sides = {}
    for side, python in (("jax", sys.executable), ("torch", options.torch_python)):
        done = subprocess.run([python, __file__, "--side", side, *flags], stdout=subprocess.PIPE, text=True, check=True)
        sides[side] = json.loads(done.stdout.splitlines()[-1])
    ours, theirs = (sides[side].pop("seconds") for side in ("jax", "torch"))
    counts = [sides[side].pop("parameters") for side in ("jax", "torch")]
    if counts[0] != counts[1]:
        sys.exit(f"the nets differ: {counts[0]} parameters in JAX, {counts[1]} in PyTorch; correct torch_nets.PSPNet")
    line = {
        "benchmark": "vs_torch",
        **sides["jax"],
        **sides["torch"],
        "torch_compile": options.compile,
        **sizes,
        "parameters": counts[0],
        "jax_ms": {name: round(1e3 * value, 4) for name, value in ours.items()},
        "torch_ms": {name: round(1e3 * value, 4) for name, value in theirs.items()},
        "torch_over_jax": {name: round(theirs[name] / value, 3) for name, value in ours.items()},
    }
    append(options.out, line)


if __name__ == "__main__":
    main()
