"""One compiled training step for any number of turns, nets and sources."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import optax
from jax.sharding import Mesh

from scarce_jax import mesh as mesh_lib
from scarce_jax.recipe import Train, Turn
from scarce_jax.training.inputs import TrainInput, make_batch
from scarce_jax.training.state import State, named_key


def make_step(
    stage: Train,
    txs: Mapping[str, optax.GradientTransformation],
    inputs: Mapping[str, TrainInput],
    mesh: Mesh,
    count: int = 1,
) -> Callable:
    """The jitted step `(state, draws, keys, consts) -> (state, metrics)`; the state is donated.

    Args:
      stage: gives the turns, taken in order; a later turn sees the nets as the earlier ones left them.
      txs: the optax transformation of every net that has a turn.
      inputs: how each source's batch is made; `draws` are of their `batches`, by source name.
      count: steps in one call; above 1, `draws` have a first axis of this length and the metrics are the last step's.

    The step's `keys` holds one key per source for its transform, and "loss" for the losses (dropout); metrics are
    `<net>/loss`, `<net>/grad_norm` and what the losses report, float32 scalars.

    Stages whose turns, transformations and transforms are the same functions (see `recipe.interned`) get one step,
    which is then traced and compiled once for equal shapes.
    """
    transforms = tuple((name, source.transform) for name, source in inputs.items())
    return _make_step(stage.turns, tuple(txs.items()), transforms, mesh, count)


@functools.lru_cache(maxsize=8)
def _make_step(
    turns: tuple[Turn, ...],
    optimizers: tuple[tuple[str, optax.GradientTransformation], ...],
    transforms: tuple[tuple[str, Callable], ...],
    mesh: Mesh,
    count: int,
) -> Callable:
    txs = dict(optimizers)

    def step(state: State, draws: Mapping, keys: Mapping, consts: Mapping):
        batch = {}
        for name, transform in transforms:
            key = jax.random.fold_in(keys[name], state.step)
            batch[name] = make_batch(mesh, transform, draws[name], key, consts)
        loss_key = jax.random.fold_in(keys["loss"], state.step)
        nets, shared, metrics = dict(state.nets), {**consts, "step": state.step}, {}
        for i, turn in enumerate(turns):
            net = nets[turn.net]
            grad = jax.value_and_grad(turn.loss, has_aux=True)
            (loss, out), grads = grad(net.params, nets, batch, shared, jax.random.fold_in(loss_key, i))
            updates, opt = txs[turn.net].update(grads, net.opt, net.params)
            nets[turn.net] = net.replace(params=optax.apply_updates(net.params, updates), opt=opt)
            for name, stats in out.stats.items():
                nets[name] = nets[name].replace(stats=stats)
            shared |= jax.lax.stop_gradient(out.share)
            reported = {"loss": loss, "grad_norm": optax.tree.norm(grads), **out.metrics}
            metrics |= {f"{turn.net}/{name}": value for name, value in reported.items()}
        return State(step=state.step + 1, nets=nets), metrics

    def several(state: State, draws: Mapping, keys: Mapping, consts: Mapping):
        state, metrics = jax.lax.scan(lambda state, draw: step(state, draw, keys, consts), state, draws)
        return state, jax.tree.map(lambda x: x[-1], metrics)

    sharding = mesh_lib.replicated(mesh)
    return jax.jit(step if count == 1 else several, donate_argnums=0, out_shardings=(sharding, sharding))


def step_keys(inputs: Mapping[str, TrainInput], seed: int, drawn_as: str, mesh: Mesh) -> dict[str, jax.Array]:
    """The step's `keys`, on every device: one per source, and "loss"."""
    keys = {name: source.key for name, source in inputs.items()}
    keys["loss"] = named_key(seed, drawn_as, "loss")
    # `device_put` does not take PRNG keys to the devices of other processes; a compiled identity does.
    return jax.jit(lambda keys: keys, out_shardings=mesh_lib.replicated(mesh))(keys)
