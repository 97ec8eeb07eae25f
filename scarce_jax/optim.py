"""Optimizers as values: a frozen config, and the optax transformation built from it."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Literal

import jax
import optax


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters whose path ("layer1_block0/conv1/kernel") the regular expression `pattern` finds.

    `lr` and `weight_decay` multiply the optimizer's own; `lr = 0` freezes the group, which then has no optimizer state.
    """

    pattern: str = ""
    lr: float = 1.0
    weight_decay: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate over a stage of N steps, as a multiple of the optimizer's `lr`.

    `poly` is (1 - step / N) ** power, `step` multiplies by `factor` at each of `boundaries` (steps), both after a
    linear warm-up over `warmup` steps.
    """

    kind: Literal["poly", "step", "constant"] = "poly"
    power: float = 0.9
    boundaries: tuple[int, ...] = ()
    factor: float = 0.1
    warmup: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """SGD with momentum as PyTorch defines it (decay joins the gradient, the rate multiplies the momentum), or Adam.

    Attributes:
      lr: peak learning rate for the batch stated in the config; it is not rescaled with the number of devices.
      momentum: SGD's, or Adam's b1.
      b2: Adam's.
      weight_decay: L2 for SGD, decoupled for Adam.
      groups: tried in order; the first that matches holds; every parameter must be in one.
    """

    kind: Literal["sgd", "adam"] = "sgd"
    lr: float
    momentum: float = 0.9
    b2: float = 0.999
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Schedule = Schedule()
    groups: tuple[Group, ...] = (Group(),)


def learning_rate(optimizer: Optimizer, steps: int) -> optax.Schedule:
    """The rate at each 0-based step of a stage of `steps` steps, before any group's multiplier."""
    schedule = optimizer.schedule
    if schedule.kind == "poly":
        base = optax.polynomial_schedule(optimizer.lr, 0.0, schedule.power, max(steps - schedule.warmup, 1))
    elif schedule.kind == "step":
        drops = {b - schedule.warmup: schedule.factor for b in schedule.boundaries}
        base = optax.piecewise_constant_schedule(optimizer.lr, drops)
    else:
        base = optax.constant_schedule(optimizer.lr)
    if not schedule.warmup:
        return base
    return optax.join_schedules([optax.linear_schedule(0.0, optimizer.lr, schedule.warmup), base], [schedule.warmup])


def parameter_paths(params: Any) -> list[str]:
    """The path of every leaf, names joined by "/", in tree order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return ["/".join(str(getattr(k, "key", k)) for k in path) for path, _ in leaves]


def assign_groups(groups: tuple[Group, ...], params: Any) -> Any:
    """A tree like `params` holding the index of each leaf's group.

    Raises:
      ValueError: a parameter is in no group; the message lists such parameters.
    """
    indices, missed = [], []
    for path in parameter_paths(params):
        hit = next((i for i, group in enumerate(groups) if re.search(group.pattern, path)), None)
        indices.append(hit)
        if hit is None:
            missed.append(path)
    if missed:
        raise ValueError(f"{len(missed)} parameters are in no optimizer group: {missed[:5]}; add a Group for them")
    return jax.tree.unflatten(jax.tree.structure(params), indices)


def build(optimizer: Optimizer, params: Any, steps: int) -> optax.GradientTransformation:
    """The optax transformation for `params` (arrays or ShapeDtypeStructs) over a stage of `steps` steps."""
    rate = learning_rate(optimizer, steps)

    def chain(group: Group) -> optax.GradientTransformation:
        if group.lr == 0:
            return optax.set_to_zero()
        decay = optimizer.weight_decay * group.weight_decay
        decayed = [optax.add_decayed_weights(decay)] if decay else []
        if optimizer.kind == "sgd":
            parts = [*decayed, optax.trace(optimizer.momentum, nesterov=optimizer.nesterov)]
        else:
            parts = [optax.scale_by_adam(b1=optimizer.momentum, b2=optimizer.b2), *decayed]
        return optax.chain(*parts, optax.scale_by_learning_rate(lambda step: rate(step) * group.lr))

    return optax.multi_transform(
        {i: chain(group) for i, group in enumerate(optimizer.groups)}, assign_groups(optimizer.groups, params)
    )
