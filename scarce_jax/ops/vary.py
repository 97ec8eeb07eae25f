"""Arrays that are equal on all devices, beside those that are not, inside `jax.shard_map`."""

from __future__ import annotations

import jax


def vary_alike(*arrays: jax.Array | None) -> tuple[jax.Array | None, ...]:
    """Takes every array to differ over devices where one of them does. Outside of `jax.shard_map` they stay.

    The arguments of a function with a written gradient need it. Such a gradient is a device's own part, and JAX sums
    the parts for an argument that is equal on all devices, once it was made one that differs.
    """
    axes = frozenset().union(*(jax.typeof(x).manual_axis_type.varying for x in arrays if x is not None))

    def vary(x: jax.Array | None) -> jax.Array | None:
        missing = () if x is None else tuple(sorted(axes - jax.typeof(x).manual_axis_type.varying))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return tuple(map(vary, arrays))
