"""The state of a training stage. Random keys depend on names, not on the order of creation."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from scarce_jax import mesh as mesh_lib
from scarce_jax import optim
from scarce_jax.errors import InputError
from scarce_jax.models.weights import TRUNK, Backbone, check_backbone, flat_shapes, overlay
from scarce_jax.recipe import Artifact, Infer, Net, NetState, Recipe
from scarce_jax.training.origins import ImportedArrays


@flax.struct.dataclass
class TrainState:
    """The number of steps done (int32 scalar), and the arrays of every net by role."""

    step: jax.Array
    nets: dict[str, NetState]


def named_key(seed: int, *names: str) -> jax.Array:
    """Returns a PRNG key that depends on the seed and the names alone."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32("/".join(names).encode()))


def init_net(net: Net, key: jax.Array) -> NetState:
    """Draws initial values. Flax folds the path of each parameter into `key`, so equal paths give equal values."""
    inputs = [jnp.zeros(x.shape, x.dtype) for x in net.inputs]
    variables = net.module.init(key, *inputs, train=False)
    return NetState(params=variables["params"], batch_stats=variables.get("batch_stats", {}))


def abstract_net(net: Net) -> NetState:
    """Returns the shapes and dtypes of a net's params and stats, without computing anything."""
    return _initialiser(net.module, net.inputs).eval_shape(jax.eval_shape(jax.random.key, 0))


def check_origins(recipe: Recipe) -> None:
    """Checks that every net that starts from an earlier stage fits the net that the stage leaves.

    Raises:
      InputError: a net has other parameters, or its backbone another geometry or normalisation.
    """
    for stage in (*recipe.stages, *recipe.results.values(), *recipe.maps.values()):
        for role, net in stage.nets.items():
            if not isinstance(net.init_from, Artifact):
                continue
            origin = _left(recipe, net.init_from)
            if origin.module == net.module:
                continue  # Equal modules have equal parameters, and need no tracing.
            ours, theirs = (flat_shapes(abstract_net(n).variables) for n in (net, origin))
            wrong = sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))
            if wrong:
                here, there = (shapes.get(wrong[0], "absent") for shapes in (ours, theirs))
                raise InputError(
                    f"{stage.name}: net {role} starts from {net.init_from}, but {len(wrong)} arrays differ: {wrong[0]} "
                    f"is {here} in {stage.name} and {there} in {net.init_from.stage}; give both stages the same net"
                )
            flag = f"--{stage.name.replace('_', '-')}.net.{TRUNK}"
            ours, theirs = (Backbone.of(n.module, flag) for n in (net, origin))
            check_backbone(f"{stage.name}: net {role} starts from {net.init_from}", vars(theirs), ours)


def check_groups(recipe: Recipe) -> None:
    """Checks that the groups and the layer decay of every optimizer fit its net.

    Raises:
      InputError: a parameter matches no group, or a pattern no parameter; or the net has no layers that could decay.
    """
    for stage in recipe.stages:
        for role, net in stage.nets.items():
            if net.optim is None:
                continue
            try:
                optim.check_layer_decay(net.optim)
                # Groups without a pattern match everything, and need no tracing.
                if any(group.pattern for group in net.optim.groups):
                    optim.assign_groups(net.optim.groups, abstract_net(net).params)
            except InputError as error:
                raise InputError(f"stage {stage.name}, net {role}: {error}") from error


def _left(recipe: Recipe, artifact: Artifact) -> Net:
    """The net that a stage left."""
    stage = recipe.stage(artifact.stage)
    if isinstance(stage, Infer):  # A `Mean` with `into` leaves the net that it read.
        return _left(recipe, stage.nets[stage.write.into].init_from)
    return stage.nets[artifact.name]


@functools.lru_cache(maxsize=64)
def _initialiser(module: nn.Module, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> Callable[[jax.Array], NetState]:
    """Cached, because several stages have the same net, and tracing a deep net takes seconds."""
    return jax.jit(functools.partial(init_net, Net(module=module, inputs=inputs)))


@functools.lru_cache(maxsize=16)
def _draw(module: nn.Module, inputs: tuple[jax.ShapeDtypeStruct, ...], mesh: Mesh) -> Callable[[jax.Array], NetState]:
    """Draws a net's initial values, replicated over the mesh."""
    # The program runs once, and optimising its hundreds of small parts takes longer on a CPU than compiling the step.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 0} if on_cpu else None
    initialise = _initialiser(module, inputs)
    return jax.jit(lambda key: initialise(key), out_shardings=mesh_lib.replicated(mesh), compiler_options=options)


def transformation(net: Net, steps: int) -> optax.GradientTransformation:
    """Returns the optax transformation of a trained net, for a stage of `steps` steps."""
    return optim.build(net.optim, abstract_net(net).params, steps)


def averaged(nets: Mapping[str, NetState]) -> dict[str, NetState]:
    """Returns the nets to measure and to store: without optimizer state, and with averaged parameters under EMA."""
    return {
        role: NetState(params=optim.averaged(net.opt_state, net.params), batch_stats=net.batch_stats)
        for role, net in nets.items()
    }


def init_state(
    nets: Mapping[str, Net],
    steps: int,
    seed: int,
    stage: str,
    loaded: Mapping[str, NetState],
    mesh: Mesh,
    outside: Mapping[str, ImportedArrays] | None = None,
) -> TrainState:
    """Returns the state at step 0, replicated over the mesh.

    Args:
      nets: the nets of the stage, by role.
      steps: optimizer steps of the stage.
      seed: seed of the run.
      stage: the name that determines the keys of initial values.
      loaded: nets that start from an earlier stage.
      mesh: the mesh of the run.
      outside: arrays from outside the run, which replace initial values.
    """

    def with_optimizers(drawn: dict[str, NetState]) -> TrainState:
        states = {
            role: drawn[role].replace(opt_state=transformation(net, steps).init(drawn[role].params))
            if net.optim
            else drawn[role]
            for role, net in nets.items()
        }
        return TrainState(step=jnp.zeros((), jnp.int32), nets=states)

    drawn = {
        role: _draw(net.module, net.inputs, mesh)(named_key(seed, stage, role))
        for role, net in nets.items()
        if role not in loaded
    }
    for role, imported in (outside or {}).items():
        variables = overlay(drawn[role].variables, mesh_lib.replicate(mesh, imported.values))
        drawn[role] = NetState(params=variables["params"], batch_stats=variables["batch_stats"])
    return jax.jit(with_optimizers, out_shardings=mesh_lib.replicated(mesh))({**drawn, **loaded})
