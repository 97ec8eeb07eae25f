"""Times the train step of a net of `torch_nets` in PyTorch, and prints one line.

    python benchmarks/gpu/torch_step.py NET {eager,compile,cudagraphs} [--steps N] [--tiny]

Forward, cross-entropy that ignores 255, backward and SGD with momentum and weight decay, on random images that are on
the device; channels_last, autocast to bfloat16, fused SGD. Inductor compiles forward and backward on the CPU before the
GPU is taken. What it times on the GPU, and all graphs after a break, it compiles with the GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from device import Gpu, emit
from nets import NETS
from torch.nn import functional as F
from torch_nets import NETS as TORCH_NETS

AUX_WEIGHT = 0.4
LABEL_STRIDE = {"largefov": 8}
"""Nets whose loss is on a coarser grid than the image."""


def compiled(loss: Callable, gpu: Gpu, graphs: bool, tiny: bool) -> Callable:
    """torch.compile, which takes the GPU when the first graph is compiled; with `tiny`, traced but not compiled."""
    from torch._dynamo.backends.debugging import aot_eager
    from torch._inductor.compile_fx import compile_fx

    # The backward graph is compiled with the forward one, and not in the first backward pass, which has the GPU.
    torch._functorch.config.force_non_lazy_backward_lowering = True

    def backend(graph: Any, inputs: Any) -> Callable:
        patches = {"triton.cudagraphs": True} if graphs else None
        program = aot_eager(graph, inputs) if tiny else compile_fx(graph, inputs, config_patches=patches)
        gpu.take()
        return program

    return torch.compile(loss, backend=backend)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", choices=TORCH_NETS)
    parser.add_argument("mode", choices=("eager", "compile", "cudagraphs"))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU")
    options = parser.parse_args()
    size, batch = (NETS[options.net].tiny, 2) if options.tiny else (NETS[options.net].size, NETS[options.net].batch)
    if options.tiny:
        torch.set_num_threads(1)
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    torch.backends.cudnn.benchmark = True
    # XLA too computes float32 convolutions in TF32 on GPUs that have it.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    gpu = Gpu()
    net = TORCH_NETS[options.net](options.tiny).to(device).to(memory_format=torch.channels_last).train()
    classes = {"decoupled": 2, "largefov": 21, "deconvnet": 21}.get(options.net, 19)
    images = torch.randn(batch, 3, *size, device=device).to(memory_format=torch.channels_last)
    grid = [-(-side // LABEL_STRIDE.get(options.net, 1)) for side in size]
    labels = torch.randint(0, classes, (batch, *grid), device=device)
    further = {
        "detailer340": (torch.randint(0, 19, (batch, *size), device=device),),
        "decoupled": (torch.randint(0, 20, (batch,), device=device),),
    }.get(options.net, ())
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=cuda)

    def loss(images: torch.Tensor, labels: torch.Tensor, *further: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=not options.tiny):
            outputs = net(images, *further)
        weights = (1.0, AUX_WEIGHT)[: len(outputs)]
        losses = (F.cross_entropy(output.float(), labels, ignore_index=255) for output in outputs)
        return sum(weight * value for weight, value in zip(weights, losses, strict=True))

    call = loss if options.mode == "eager" else compiled(loss, gpu, options.mode == "cudagraphs", options.tiny)

    def wait() -> None:
        if cuda:
            torch.cuda.synchronize()

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = call(images, labels, *further)
        value.backward()
        optimizer.step()
        return value

    if options.mode == "eager":
        gpu.take()
    began = time.perf_counter()
    step()
    wait()
    first = time.perf_counter() - began - gpu.waited
    for _ in range(3):
        step()
    wait()
    # As the library's step: the time between the ends of steps, the next of which is dispatched before.
    ends = []
    pending = None
    for _ in range(options.steps + 1):
        value = step()
        mark = torch.cuda.Event() if cuda else None
        if mark is not None:
            mark.record()
        if pending is not None:
            pending.synchronize()
        ends.append(time.perf_counter())
        pending = mark
    wait()
    peak = torch.cuda.max_memory_allocated() if cuda else None
    gpu.leave()
    emit(
        torch=torch.__version__,
        device=torch.cuda.get_device_name() if cuda else "cpu",
        net=options.net,
        mode=options.mode,
        dtype="float32" if options.tiny else "bfloat16",
        batch=batch,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        first_call_s=round(first, 2),
        steps=options.steps,
        median_step_ms=round(1e3 * float(np.median(np.diff(ends))), 3),
        images_per_second=round(batch * options.steps / (ends[-1] - ends[0]), 3),
        loss=float(value.detach()),
        measured_peak_bytes=peak,
    )


if __name__ == "__main__":
    main()
