"""The state of a training stage, made and keyed by names so that nothing depends on the order of creation."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from scarce_jax import mesh as mesh_lib
from scarce_jax import optim
from scarce_jax.models.weights import overlay
from scarce_jax.recipe import Net, NetState
from scarce_jax.training.start import ImportedArrays


@flax.struct.dataclass
class State:
    """Steps done (int32 scalar) and the arrays of every net."""

    step: jax.Array
    nets: dict[str, NetState]


def named_key(seed: int, *names: str) -> jax.Array:
    """A PRNG key that depends on the run's seed and the names alone."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32("/".join(names).encode()))


def init_net(net: Net, key: jax.Array) -> NetState:
    """Draws a net's initial values; Flax folds each parameter's path into `key`, so equal paths give equal values."""
    inputs = [jnp.zeros(x.shape, x.dtype) for x in net.inputs]
    variables = net.module.init(key, *inputs, train=False)
    return NetState(params=variables["params"], stats=variables.get("batch_stats", {}))


def abstract_net(net: Net) -> NetState:
    """Shapes and dtypes of a net's params and stats, without computing anything."""
    return _abstract(net.module, net.inputs)


# Several stages have the same net, and tracing a deep one takes seconds: what follows traces each once.


@functools.lru_cache(maxsize=64)
def _initialiser(module: nn.Module, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> Callable[[jax.Array], NetState]:
    return jax.jit(functools.partial(init_net, Net(module=module, inputs=inputs)))


@functools.lru_cache(maxsize=64)
def _abstract(module: nn.Module, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> NetState:
    return _initialiser(module, inputs).eval_shape(jax.eval_shape(jax.random.key, 0))


@functools.lru_cache(maxsize=16)
def _draw(module: nn.Module, inputs: tuple[jax.ShapeDtypeStruct, ...], mesh: Mesh) -> Callable[[jax.Array], NetState]:
    """A net's initial values, replicated over the mesh."""
    # Hundreds of small random-number programs that run once: on a CPU, optimising them takes longer than compiling
    # the step.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 0} if on_cpu else None
    initialise = _initialiser(module, inputs)
    return jax.jit(lambda key: initialise(key), out_shardings=mesh_lib.replicated(mesh), compiler_options=options)


def transformation(net: Net, steps: int) -> optax.GradientTransformation:
    """The optax transformation of a trained net over a stage of this many steps."""
    return optim.build(net.optim, abstract_net(net).params, steps)


def averaged(nets: Mapping[str, NetState]) -> dict[str, NetState]:
    """The nets to measure and to store: without optimizer state, parameters averaged where the optimizer says so."""
    return {role: NetState(params=optim.averaged(net.opt, net.params), stats=net.stats) for role, net in nets.items()}


def init_state(
    nets: Mapping[str, Net],
    steps: int,
    seed: int,
    stage: str,
    loaded: Mapping[str, NetState],
    mesh: Mesh,
    outside: Mapping[str, ImportedArrays] | None = None,
) -> State:
    """The state at step 0, replicated over the mesh.

    Args:
      steps: optimizer steps of the stage.
      stage: the name under which initial values are drawn.
      loaded: nets that start from an earlier stage.
      outside: what other nets take over from outside the run, in place of the values drawn.
    """

    def with_optimizers(drawn: dict[str, NetState]) -> State:
        states = {
            role: drawn[role].replace(opt=transformation(net, steps).init(drawn[role].params))
            if net.optim
            else drawn[role]
            for role, net in nets.items()
        }
        return State(step=jnp.zeros((), jnp.int32), nets=states)

    drawn = {
        role: _draw(net.module, net.inputs, mesh)(named_key(seed, stage, role))
        for role, net in nets.items()
        if role not in loaded
    }
    for role, taken in (outside or {}).items():
        variables = overlay(drawn[role].variables, mesh_lib.replicate(mesh, taken.values))
        drawn[role] = NetState(params=variables["params"], stats=variables["batch_stats"])
    return jax.jit(with_optimizers, out_shardings=mesh_lib.replicated(mesh))({**drawn, **loaded})


def abstract_state(state: Any) -> Any:
    """Shapes, dtypes and shardings of a tree of arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
