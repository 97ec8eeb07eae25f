"""Compiles the small programs of `programs/` for an H100 that is not at hand; needs the extra `plan`.

    PYTHONPATH=. python tests/benchmark/make_programs.py

Written with jax 0.11.2. What the tests do not read is left out: header, sources, and settings of the code generator.
"""

import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from scarce_jax import mesh as mesh_lib
from scarce_jax.benchmark import targets

FOLDER = pathlib.Path(__file__).with_name("programs")
LEFT_OUT = (
    r' (stack_frame_id=\d+|scheduling_name="[^"]*"|deduplicated_name="[^"]*")',
    r', backend_config=\{(?!.*(known_trip_count|contracting_dimensions)).*\}$',
    r", (sharding|frontend_attributes)=\{[^=]*\}",
)  # fmt: skip


def convolve(x: jax.Array, kernel: jax.Array, rate: int = 1) -> jax.Array:
    """A 3x3 convolution of x [B, H, W, C] that keeps its size."""
    dims = ("NHWC", "HWIO", "NHWC")
    padding = ((rate, rate), (rate, rate))
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, rhs_dilation=(rate, rate), dimension_numbers=dims)


def net(kernels: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Two convolutions, the second of rate 4, and a loss."""
    with jax.named_scope("Net"):
        with jax.named_scope("first"):
            y = jax.nn.relu(convolve(x, kernels["first"]))
        with jax.named_scope("second"):
            y = convolve(y, kernels["second"], 4)
        with jax.named_scope("loss"):
            return (y.astype(jnp.float32) ** 2).mean()


def slices(x: jax.Array, table: jax.Array, row: jax.Array) -> jax.Array:
    """Reads two slices of x and a row of a table."""
    return jnp.maximum(x[:, :32], x[:, 32:64]) * lax.dynamic_slice(table, (row, 0), (1, 32))


def converted_slices(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Reads two slices of x, converted as a whole."""
    x = x.astype(jnp.bfloat16)
    return x[:1024].reshape(32, 32).T, x[1024:3072]


def loop(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Five products, each of which is kept."""

    def body(x, _):
        x = jnp.tanh(x @ kernel)
        return x, x

    return lax.scan(body, x, None, length=5)


def branches(flag: jax.Array, x: jax.Array) -> jax.Array:
    """Multiplies, or leaves as it is."""
    return lax.cond(flag, lambda x: x @ x, lambda x: x, x)


def products(a: jax.Array, b: jax.Array, c: jax.Array) -> tuple[jax.Array, ...]:
    """A product in bfloat16, one in TF32, and one in float32."""
    return a @ b, c @ c.T, jnp.dot(c, c, precision="highest")


def main() -> None:
    targets.without_devices()
    gpu = targets.BY_NAME["h100"]
    one, two = (mesh_lib.make_mesh(targets.devices(gpu, count)) for count in (1, 2))

    def array(*shape: int, dtype: Any = jnp.bfloat16, sharding: Any = None) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding or mesh_lib.replicated(one))

    def save(name: str, function: Callable, *arguments: Any, **options: Any) -> None:
        compiled = jax.jit(function).lower(*arguments).compile({**targets.COMPILER_OPTIONS, **options})
        text = re.search(r"^(%|ENTRY).*", compiled.as_text(), re.MULTILINE | re.DOTALL)[0]
        for pattern in LEFT_OUT:
            text = re.sub(pattern, "", text, flags=re.MULTILINE)
        (FOLDER / f"{name}.txt").write_text(text)

    kernels = {"first": array(3, 3, 32, 64), "second": array(3, 3, 64, 64)}
    save("convolutions", jax.value_and_grad(net), kernels, array(4, 24, 24, 32))
    everywhere = jax.tree.map(lambda x: array(*x.shape, sharding=mesh_lib.replicated(two)), kernels)
    x = array(4, 24, 24, 32, sharding=mesh_lib.split(two))
    save("all_reduces", jax.value_and_grad(net), everywhere, x)
    save("slices", slices, array(4096, 256), array(512, 32), array(dtype=jnp.int32))
    save("converted_slices", converted_slices, array(65536, dtype=jnp.float32))
    save("loop", loop, array(256, 256), array(256, 256))
    save("branches", branches, array(dtype=jnp.bool_), array(256, 256))
    operands = array(1024, 512), array(512, 2048), array(512, 512, dtype=jnp.float32)
    save("products", products, *operands)
    save("library_products", products, *operands, xla_gpu_enable_triton_gemm=False)


if __name__ == "__main__":
    main()
