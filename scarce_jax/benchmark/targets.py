"""The GPUs that a program can be compiled for without one, and their limits."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
import re
from collections.abc import Mapping, Sequence

import jax

from scarce_jax.errors import InputError, nearest

log = logging.getLogger("scarce_jax")

MOST_GPUS = 4096
"""The most GPUs that are compiled for; each becomes a device of this process."""

GPUS_PER_HOST = 8
"""GPUs of one host that share a link; more GPUs than that stand in several hosts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU: its limits by the data sheet, and what XLA compiles for.

    Attributes:
      name: what `--target` calls it; None if nothing is known that XLA would compile for.
      kind: `device_kind` in JAX. A part of a GPU (MIG) has a kind of its own, which is not listed.
      bfloat16, tf32, float32: dense TFLOP/s of matrix products by input type, with sums in float32; "float32" is that
        of products without TF32.
      bandwidth: GB/s of its memory.
      link: "NVLink" or "PCIe", what joins the GPUs of a host.
      link_bandwidth: GB/s that a GPU sends over it, while it receives as much.
      network: GB/s that a GPU sends to other hosts, with `GPUS_PER_HOST` GPUs in each.
      memory: bytes of memory, as CUDA reports them.
      cores: number of multiprocessors.
      clock: GHz, boost.
      capability: compute capability.
      l2, shared, block_shared: bytes of L2 cache, and of shared memory per multiprocessor and at most per block.
      threads: threads per multiprocessor.
      lanes: float32 lanes per multiprocessor.
    """

    name: str | None = None
    kind: str
    bfloat16: float
    tf32: float
    float32: float
    bandwidth: float
    link: str = "PCIe"
    link_bandwidth: float = 32
    network: float = 1.5
    memory: int = 0
    cores: int = 0
    clock: float = 0
    capability: tuple[int, int] = (0, 0)
    l2: int = 0
    shared: int = 0
    block_shared: int = 0
    threads: int = 2048
    lanes: int = 128

    @property
    def description(self) -> str:
        """XLA's `GpuTargetConfigProto` in text form."""
        return TARGET_CONFIG.format(**dataclasses.asdict(self), bytes_per_second=round(1e9 * self.bandwidth))

    def flops(self, unit: str) -> float:
        """FLOP/s that products on a unit ("bfloat16", "tf32" or "float32") are taken to reach; see `REACHED_FLOPS`."""
        return 1e12 * getattr(self, unit) * REACHED_FLOPS

    @property
    def usable(self) -> int:
        """Bytes of its memory that JAX takes: 75%, or what XLA_PYTHON_CLIENT_MEM_FRACTION says.

        Raises:
          InputError: that variable is not a share.
        """
        text = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75")
        try:
            share = float(text)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise InputError(
                f"XLA_PYTHON_CLIENT_MEM_FRACTION is {text!r} in the environment; expected a number above 0 and at most "
                "1, or unset it"
            )
        return int(share * self.memory)

    @property
    def bytes_per_second(self) -> float:
        """Bytes per second that kernels are taken to move; see `REACHED_BANDWIDTH`."""
        return 1e9 * self.bandwidth * REACHED_BANDWIDTH


REACHED_BANDWIDTH = 3.0 / 3.35
REACHED_FLOPS = 790 / 989.4
"""Shares of the data sheet's limits that the best kernels are taken to reach: 3.0 TB/s and 790 TFLOP/s on an H100.

On the one card that has been measured, an H200 (benchmarks/results/gpu), the best kernels reached 91% of its bandwidth
(pooling; a plain copy 70%) and 75% of its bfloat16 FLOP/s (a convolution; a matrix product 70%). So bounds by these
shares are close to what memory allows, and optimistic for products.
"""

TARGET_CONFIG = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared}
  threads_per_core_limit: {threads}
  core_count: {cores}
  fpus_per_core: {lanes}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bytes_per_second}
  l2_cache_size: {l2}
  clock_rate_ghz: {clock}
  device_memory_size: {memory}
  shared_memory_per_block_optin: {block_shared}
  cuda_compute_capability {{ major: {capability[0]} minor: {capability[1]} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 20 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{kind}"
"""

# TFLOP/s and GB/s from pages that quote NVIDIA's data sheets "A100 Tensor Core GPU", "H100 Tensor Core GPU", "H200
# Tensor Core GPU", "L4 Tensor Core GPU", "L40S GPU" and, for the RTX 4090, "Ada GPU Architecture" (bfloat16 and TF32
# with float32 accumulation); not checked against the sheets themselves. Figures that are stated with sparsity are
# halved. NVLink and PCIe: half of the sheets' GB/s, which add both directions.
#
# Memory, cores, clock, L2 and shared memory of A100, H100 and H200 from XLA's own descriptions
# (xla/backends/gpu/target_config/specs: a100_sxm_80, h100_sxm, h200). Of L4 and RTX 4090 from "Ada GPU Architecture",
# appendix A, and the CUDA programming guide's table of compute capability 8.9; their memory is the nominal one.
#
# Network: one 400 Gb/s adapter for each GPU in a DGX H100 or H200, one of 200 Gb/s in a DGX A100 ("User Guide"s of
# these). There is no such standard for L4 and RTX 4090: one 100 Gb/s adapter for a host of 8 is assumed, as AWS
# states for g6.48xlarge.
HOPPER = {
    "bfloat16": 989.4, "tf32": 494.7, "float32": 66.9, "link": "NVLink", "link_bandwidth": 450, "network": 50,
    "cores": 132, "clock": 1.98, "capability": (9, 0), "l2": 52428800, "shared": 233472, "block_shared": 232448,
}  # fmt: skip
AMPERE = {
    "bfloat16": 312, "tf32": 156, "float32": 19.5, "link": "NVLink", "link_bandwidth": 300, "network": 25,
    "cores": 108, "clock": 1.41, "capability": (8, 0), "l2": 41943040, "shared": 167936, "block_shared": 166912,
    "lanes": 64,
}  # fmt: skip
ADA = {"capability": (8, 9), "shared": 102400, "block_shared": 101376, "threads": 1536, "network": 12.5 / GPUS_PER_HOST}

GPUS = (
    Gpu(name="h100", kind="NVIDIA H100 80GB HBM3", bandwidth=3350, memory=84942979072, **HOPPER),
    Gpu(name="h200", kind="NVIDIA H200", bandwidth=4800, memory=151397597184, **HOPPER),
    Gpu(name="a100", kind="NVIDIA A100-SXM4-80GB", bandwidth=2039, memory=85100068864, **AMPERE),
    Gpu(
        name="l4", kind="NVIDIA L4", bfloat16=121, tf32=60, float32=30.3, bandwidth=300, memory=24 * 2**30, cores=58,
        clock=2.04, l2=48 * 2**20, **ADA,
    ),
    Gpu(
        name="4090", kind="NVIDIA GeForce RTX 4090", bfloat16=165.2, tf32=82.6, float32=82.6, bandwidth=1008,
        memory=24 * 2**30, cores=128, clock=2.52, l2=72 * 2**20, **ADA,
    ),
    Gpu(kind="NVIDIA A100-SXM4-40GB", bfloat16=312, tf32=156, float32=19.5, bandwidth=1555),
    Gpu(kind="NVIDIA A100 80GB PCIe", bfloat16=312, tf32=156, float32=19.5, bandwidth=1935),
    Gpu(kind="NVIDIA H100 PCIe", bfloat16=756, tf32=378, float32=51, bandwidth=2000),
    Gpu(kind="NVIDIA L40S", bfloat16=362, tf32=183, float32=91.6, bandwidth=864),
)  # fmt: skip

BY_KIND = {gpu.kind: gpu for gpu in GPUS}
BY_NAME = {gpu.name: gpu for gpu in GPUS if gpu.name}

COMPILER_OPTIONS = {"xla_gpu_autotune_level": 0}
"""Without the GPU, XLA cannot time its alternatives."""


def parse_target(text: str) -> tuple[Gpu, int]:
    """The GPU and the number of GPUs of a target such as "h100" or "h100x8".

    Raises:
      InputError: the target is not known, or the GPUs do not fill their hosts.
    """
    match = re.fullmatch(r"(.+?)(?:x(\d+))?", text.lower())
    if match is None or match[1] not in BY_NAME:
        name = text if match is None else match[1]
        raise InputError(
            f"--target {text}: not known{nearest(name, BY_NAME)}; expected one of {', '.join(BY_NAME)}, or TARGETxN "
            f"for N GPUs, such as h100x8"
        )
    count = int(match[2] or 1)
    if not 1 <= count <= MOST_GPUS:
        raise InputError(f"--target {text}: {count:,} GPUs; expected 1 to {MOST_GPUS:,}")
    if count > GPUS_PER_HOST and count % GPUS_PER_HOST:
        raise InputError(f"--target {text}: {count} GPUs do not fill hosts of {GPUS_PER_HOST}; choose a multiple of it")
    return BY_NAME[match[1]], count


def without_devices() -> None:
    """Makes this process compute on the CPU, so that compiling for a GPU neither needs nor occupies one.

    Call it before the first use of a device.
    """
    jax.config.update("jax_platforms", "cpu")


def devices(gpu: Gpu, count: int) -> list[jax.Device]:
    """GPUs to compile for; they need not exist.

    Raises:
      InputError: JAX's CUDA plugin is not installed.
    """
    plugins = ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
    # Of a missing package, `find_spec` does not look for modules.
    if not importlib.util.find_spec("jax_plugins") or not any(map(importlib.util.find_spec, plugins)):
        raise InputError(
            "--target: compiling for a GPU needs JAX's CUDA plugin, which is not installed (a GPU is not needed); "
            'install it with: pip install "scarce-jax[plan]"'
        )
    from jax.experimental import topologies

    hosts = max(1, count // GPUS_PER_HOST)
    topology = f"1x{hosts}x{count // hosts}"
    description = topologies.get_topology_desc(platform="cuda", topology=topology, target_config=gpu.description)
    return list(description.devices)


def compile_for(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, bool]:
    """Compiles a program that was lowered for `devices`.

    Without the GPU, XLA does not find settings of its own kernels (Triton) for every matrix product. Where it does not,
    the libraries compute all of them.

    Returns:
      The program, and whether XLA's own kernels were allowed.
    """
    try:
        return lowered.compile(COMPILER_OPTIONS), True
    except jax.errors.JaxRuntimeError as error:
        if "No supported config found" not in str(error):
            raise
    log.info(
        "XLA has no settings for one of its matrix products without the GPU; compiling with the libraries' instead"
    )
    return lowered.compile({**COMPILER_OPTIONS, "xla_gpu_enable_triton_gemm": False}), False


def fits(peak: int) -> dict[str, bool]:
    """Target -> whether a program that needs `peak` bytes fits into the memory that JAX takes of it."""
    return {name: peak <= gpu.usable for name, gpu in BY_NAME.items()}


def gigabytes(count: int) -> str:
    """Such as "34.0 GB" or "0.083 GB"."""
    return f"{count / 1e9:.{1 if count >= 1e9 else 3}f} GB"


def memory_sentence(
    batch: int, size: Sequence[int] | None, peak: int, fits: Mapping[str, bool], devices: int = 1
) -> str:
    """Such as "batch 16 at 713 x 713 takes 34.0 GB: fits h100, a100, h200; not l4, 4090".

    Args:
      batch: examples on all devices.
      size: (height, width) of them; None for their native size.
      peak: bytes of one device.
      fits: what `fits` returns.
    """
    at = "native size" if size is None else f"{size[0]} x {size[1]}"
    shared, each = (f" on {devices} GPUs", " of each") if devices > 1 else ("", "")
    needed = gigabytes(peak)
    inside, outside = ([name for name, fit in fits.items() if fit == wanted] for wanted in (True, False))
    words = [f"fits {', '.join(inside)}"] if inside else []
    words += [f"{'not' if inside else 'fits none of'} {', '.join(outside)}"] if outside else []
    return f"batch {batch} at {at}{shared} takes {needed}{each}: {'; '.join(words)}"
