"""The compiled training step, for any number of turns, nets and sources."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from scarce_jax import mesh as mesh_lib
from scarce_jax import optim
from scarce_jax.models.tracing import Tracing, tracing
from scarce_jax.recipe import NetState, Out, Source, Train, Turn
from scarce_jax.training import state as state_lib
from scarce_jax.training.batches import TrainInput, make_batch
from scarce_jax.training.dispatch import scan_is_slow
from scarce_jax.training.packing import Buffers, is_packed, pack, packed_like, unpack
from scarce_jax.training.state import TrainState, named_key


def make_step(
    stage: Train, steps: int, inputs: Mapping[str, TrainInput | Source], mesh: Mesh, count: int = 1
) -> Callable:
    """Returns the jitted step `(state, draws, keys, consts) -> (state, metrics)`, which donates the state.

    The state is plain or packed (`training.packing`), and the returned one is like it. The optimizer works on packed
    arrays in both cases: an update is a few kernels for all parameters together, and in place if the state is packed.

    `keys` has a key per source for its transform, and "loss" for the losses. The metrics are float32 scalars:
    `<net>/loss`, `<net>/grad_norm`, and the metrics of the losses. Stages of equal turns, optimizers and transforms
    share one step, which is traced and compiled once for equal shapes.

    Args:
      stage: gives the turns, in order. A later turn sees the nets as updated by the earlier ones.
      steps: optimizer steps of the stage, for the schedules.
      inputs: the sources by name; `draws` has an item of each one's `batches`.
      mesh: the mesh of the run.
      count: steps per call. If above 1, `draws` have a leading axis of this length, and the metrics are those of the
        last step.
    """
    optimizers = tuple(stage.optimizers.items())
    transforms = tuple((name, source.transform) for name, source in inputs.items())
    settings = Tracing(stage.statistics_groups, stage.remat)
    return _make_step(stage.turns, optimizers, transforms, steps, stage.accumulate, mesh, count, settings)


@functools.lru_cache(maxsize=8)
def _make_step(
    turns: tuple[Turn, ...],
    optimizers: tuple[tuple[str, optim.Optimizer], ...],
    transforms: tuple[tuple[str, Callable], ...],
    steps: int,
    accumulate: int,
    mesh: Mesh,
    count: int,
    settings: Tracing,
) -> Callable:
    gradient = functools.partial(_gradient, accumulate=accumulate, mesh=mesh, settings=settings)

    def step(
        state: TrainState, draws: Mapping, keys: Mapping, consts: Mapping
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        batch = {}
        for name, transform in transforms:
            key = jax.random.fold_in(keys[name], state.step)
            batch[name] = make_batch(mesh, transform, draws[name], key, consts)
        loss_key = jax.random.fold_in(keys["loss"], state.step)
        packed, shared, metrics = pack(state, dict(optimizers)).nets, {}, {}
        consts = {**consts, "step": state.step, "averages": averages(packed)}
        for i, turn in enumerate(turns):
            nets, net = unpack({role: one.replace(opt_state=()) for role, one in packed.items()}), packed[turn.net]
            loss, out, grads = gradient(turn, nets, batch, consts, shared, jax.random.fold_in(loss_key, i), net.params)
            tx = optim.build_for_groups(dict(optimizers)[turn.net], net.params.groups, steps)
            updates, opt = tx.update(grads, net.opt_state, net.params)
            packed[turn.net] = net.replace(params=optax.apply_updates(net.params, updates), opt_state=opt)
            for name, stats in out.batch_stats.items():
                packed[name] = packed[name].replace(batch_stats=packed_like(packed[name].batch_stats, stats))
            shared |= jax.lax.stop_gradient(out.share)
            reported = {"loss": loss, "grad_norm": optax.tree.norm(grads), **out.metrics}
            metrics |= {f"{turn.net}/{name}": value for name, value in reported.items()}
        as_given = {
            role: packed[role] if is_packed(net.params) else unpack(packed[role]) for role, net in state.nets.items()
        }
        return TrainState(step=state.step + 1, nets=as_given), metrics

    def several(
        state: TrainState, draws: Mapping, keys: Mapping, consts: Mapping
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        state, metrics = jax.lax.scan(lambda state, draw: step(state, draw, keys, consts), state, draws)
        return state, jax.tree.map(lambda x: x[-1], metrics)

    sharding = mesh_lib.replicated(mesh)
    return jax.jit(step if count == 1 else several, donate_argnums=0, out_shardings=(sharding, sharding))


def averages(nets: Mapping[str, NetState]) -> dict[str, Any]:
    """The moving averages of parameters that a loss reads in `shared`: role -> tree, for the nets that have one."""
    averaging = {role: net for role, net in nets.items() if isinstance(net.opt_state, optim.AveragingState)}
    return {role: net.params for role, net in unpack(state_lib.averaged(averaging)).items()}


def _gradient(
    turn: Turn,
    nets: Mapping[str, NetState],
    batch: Mapping,
    consts: Mapping,
    shared: Mapping,
    key: jax.Array,
    params: Buffers,
    *,
    accumulate: int,
    mesh: Mesh,
    settings: Tracing,
) -> tuple[jax.Array, Out, Buffers]:
    """Returns the loss of a turn, its `Out`, and the gradient by `params`, the packed parameters of its net.

    With `accumulate`, `shared` and `Out.share` have a leading axis of that length: a part of the batch reads what the
    earlier turns shared of the same part. Loss, metrics and gradient are means over the parts, weighted by
    `Out.weight`; batch statistics are passed from part to part.
    """

    def differentiate(nets: Mapping[str, NetState], batch: Mapping, shared: Mapping, key: jax.Array) -> tuple:
        gradient = jax.value_and_grad(turn.loss, has_aux=True)
        with tracing(settings):
            (loss, out), grads = gradient(nets[turn.net].params, nets, batch, {**consts, **shared}, key)
        return loss, out, params.layout.pack(grads)

    if accumulate == 1:
        return differentiate(nets, batch, shared, key)

    def part_of_batch(stats: dict, inputs: tuple) -> tuple[dict, tuple]:
        part, rows, shares = inputs
        updated = {role: net.replace(batch_stats=stats[role]) for role, net in nets.items()}
        loss, out, grads = differentiate(updated, rows, shares, jax.random.fold_in(key, part))
        weight = jnp.float32(1) if out.weight is None else out.weight
        return {**stats, **out.batch_stats}, (loss, out.metrics, out.share, grads, weight)

    # The parts do not depend on the number of devices: each is split over all devices.
    split = NamedSharding(mesh, P(None, mesh_lib.AXIS))
    parts = jax.tree.map(lambda x: x.reshape(accumulate, x.shape[0] // accumulate, *x.shape[1:]), dict(batch))
    parts = jax.lax.with_sharding_constraint(parts, split)
    stats = {role: net.batch_stats for role, net in nets.items()}
    shapes = jax.eval_shape(
        part_of_batch, stats, jax.tree.map(lambda x: x[0], (jnp.arange(accumulate), parts, dict(shared)))
    )
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes[1][3])

    def add(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        stats, total, weights = carry
        stats, (loss, metrics, share, grads, weight) = part_of_batch(stats, inputs)
        total = jax.tree.map(lambda a, g: a + weight * g.astype(jnp.float32), total, grads)
        return (stats, total, weights + weight), (loss * weight, jax.tree.map(lambda x: x * weight, metrics), share)

    unroll = accumulate if scan_is_slow(mesh) else 1
    carry, (losses, metrics, share) = jax.lax.scan(
        add, (stats, zeros, jnp.float32(0)), (jnp.arange(accumulate), parts, dict(shared)), unroll=unroll
    )
    stats, total, weights = carry
    # A batch without labels has a gradient of zero, not nan.
    weights = jnp.where(weights > 0, weights, 1)
    grads = jax.tree.map(lambda g, p: (g / weights).astype(p.dtype), total, params)
    metrics = jax.tree.map(lambda x: x.sum(0) / weights, metrics)
    return losses.sum() / weights, Out(metrics=metrics, batch_stats=stats, share=share), grads


def step_keys(inputs: Mapping[str, TrainInput], seed: int, drawn_as: str, mesh: Mesh) -> dict[str, jax.Array]:
    """Returns the step's `keys`, replicated: one per source, and "loss"."""
    keys = {name: source.key for name, source in inputs.items()}
    keys["loss"] = named_key(seed, drawn_as, "loss")
    # `device_put` does not take PRNG keys to the devices of other processes; a compiled identity does.
    return jax.jit(lambda keys: keys, out_shardings=mesh_lib.replicated(mesh))(keys)
