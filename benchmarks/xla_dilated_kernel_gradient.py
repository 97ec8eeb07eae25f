"""XLA:GPU compiles the kernel gradient of a dilated convolution into a convolution with an image-sized window.

JAX derives it as a convolution whose stride is the dilation. XLA's `MatchBackwardFilter` (conv_rewriter.cc) skips a
window with a stride, so that cuDNN gets a forward convolution with a window of the image's size, which may take minutes
to autotune. Without dilation it is cuDNN's backward-filter convolution. No GPU is needed to see it:

    pip install "jax[cuda13]"
    JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1 JAX_PLATFORMS=cuda XLA_FLAGS=--xla_gpu_autotune_level=0 \\
        python benchmarks/xla_dilated_kernel_gradient.py
"""

import re

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84929347584 shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 20 } runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def kernel_gradient(x: jax.Array, kernel: jax.Array, cotangent: jax.Array, dilation: int) -> jax.Array:
    """Gradient of a 3x3 convolution of stride 1 that keeps the size of the image."""

    def convolve(kernel: jax.Array) -> jax.Array:
        options = {"rhs_dilation": (dilation, dilation), "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(dilation, dilation)] * 2, **options)

    return jax.vjp(convolve, kernel)[1](cotangent)[0]


def main() -> None:
    topology = topologies.get_topology_desc(platform="cuda", target_config=H100, topology="1x1x1")
    sharding = NamedSharding(topologies.make_mesh(topology, (1,), ("data",)), PartitionSpec())
    shapes = (16, 43, 43, 256), (3, 3, 256, 256), (16, 43, 43, 256)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding) for shape in shapes]
    print("jax", jax.__version__)
    for dilation in (1, 2):
        step = jax.jit(kernel_gradient, static_argnums=3).trace(*arguments, dilation)
        program = step.lower(lowering_platforms=("cuda",)).compile().as_text()
        for line in program.splitlines():
            if found := re.search(r'window=\{([^}]*)\}.*custom_call_target="(__cudnn\$conv\w+)"', line):
                print(f"dilation {dilation}: {found[2]} window {found[1]}")


if __name__ == "__main__":
    main()
