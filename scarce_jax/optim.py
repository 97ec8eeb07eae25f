"""Optimizers as values: a frozen config, and the optax transformation built from it."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from scarce_jax.errors import InputError


def _check(holds: bool, field: str, value: Any, expected: str) -> None:
    if not holds:
        raise InputError(f"{field}: found {value!r}, expected {expected}")


def _at_least_zero(value: float) -> bool:
    return 0 <= value < math.inf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters that share multipliers of the learning rate and the weight decay.

    Attributes:
      pattern: regular expression, searched in a parameter's path ("layer1_block0/conv1/kernel").
      lr: multiplies the optimizer's rate; 0 freezes the group, which then has no optimizer state.
      weight_decay: multiplies the optimizer's decay.
    """

    pattern: str = ""
    lr: float = 1.0
    weight_decay: float = 1.0

    def __post_init__(self):
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise InputError(f"groups.pattern: {self.pattern!r} is no regular expression ({error})") from error
        _check(_at_least_zero(self.lr), "groups.lr", self.lr, "a finite multiplier of at least 0")
        _check(
            _at_least_zero(self.weight_decay), "groups.weight_decay", self.weight_decay, "a multiplier of at least 0"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate over a stage of N steps, as a multiple of the optimizer's `lr`.

    The rate rises linearly from 0 over the first `warmup` steps. The rest of the stage, of which a share t in 0..1 is
    over, follows `kind`:

    - `poly`: final + (1 - final) * (1 - t) ** power (DeepLab).
    - `cosine`: final + (1 - final) * (1 + cos(pi * t)) / 2 (Loshchilov & Hutter, SGDR, 2017; without restarts).
    - `step`: 1, multiplied by `factor` from each step of `boundaries` on.
    - `constant`: 1.

    Attributes:
      power: of `poly`.
      final: where `poly` and `cosine` end, in 0..1.
      boundaries: of `step`, counted from the start of the stage: increasing, and after the warm-up.
      factor: of `step`.
      warmup: steps; a warm-up longer than the stage never reaches `lr`.

    Raises:
      InputError: a value is out of its range, or `boundaries` or `final` does not belong to the kind.
    """

    kind: Literal["poly", "cosine", "step", "constant"] = "poly"
    power: float = 0.9
    final: float = 0.0
    boundaries: tuple[int, ...] = ()
    factor: float = 0.1
    warmup: int = 0

    def __post_init__(self):
        _check(0 < self.power < math.inf, "schedule.power", self.power, "a number above 0")
        _check(0 <= self.final <= 1, "schedule.final", self.final, "a number in 0..1")
        _check(0 < self.factor < math.inf, "schedule.factor", self.factor, "a number above 0")
        _check(self.warmup >= 0, "schedule.warmup", self.warmup, "a number of steps of at least 0")
        after_each = zip(self.boundaries, (self.warmup, *self.boundaries), strict=False)
        expected = f"increasing steps after the warm-up of {self.warmup}"
        _check(all(b > before for b, before in after_each), "schedule.boundaries", self.boundaries, expected)
        if self.kind != "step":
            expected = f"none with kind {self.kind!r}; leave them out or set kind 'step'"
            _check(not self.boundaries, "schedule.boundaries", self.boundaries, expected)
        if self.kind not in ("poly", "cosine"):
            expected = f"0 with kind {self.kind!r}; leave it out or set kind 'poly' or 'cosine'"
            _check(self.final == 0, "schedule.final", self.final, expected)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How one net is trained: SGD as PyTorch defines it, or AdamW.

    Attributes:
      kind: `sgd` adds the weight decay to the gradient, and the rate multiplies the momentum (PyTorch's SGD); `adam` is
        AdamW (Loshchilov & Hutter, 2019): the decay is decoupled from the gradient, and the rate multiplies both.
      lr: peak learning rate for the batch stated in the config; it is not rescaled with the number of devices.
      momentum: SGD's, or Adam's b1.
      b2: Adam's.
      nesterov: Nesterov momentum, for either kind.
      weight_decay: L2 for SGD, decoupled for Adam.
      schedule: the rate over the stage.
      groups: tried in order; a parameter belongs to the first that matches, and must match one.
      clip: largest global norm of the net's gradient. A longer one is scaled down to it before decay and momentum,
        as `torch.nn.utils.clip_grad_norm_` does: the norm is over the parameters of all groups but the frozen ones.
        None for no limit.
      ema: decay d of an exponential moving average of the parameters, such as 0.999; see `averaged`. None for none.

    Raises:
      InputError: a value is out of its range.
    """

    kind: Literal["sgd", "adam"] = "sgd"
    lr: float
    momentum: float = 0.9
    b2: float = 0.999
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Schedule = Schedule()
    groups: tuple[Group, ...] = (Group(),)
    clip: float | None = None
    ema: float | None = None

    def __post_init__(self):
        _check(0 < self.lr < math.inf, "optim.lr", self.lr, "a finite rate above 0 (a Group of lr 0 freezes)")
        _check(0 <= self.momentum < 1, "optim.momentum", self.momentum, "a number of at least 0 and below 1")
        _check(0 <= self.b2 < 1, "optim.b2", self.b2, "a number of at least 0 and below 1")
        _check(_at_least_zero(self.weight_decay), "optim.weight_decay", self.weight_decay, "a number of at least 0")
        _check(self.clip is None or 0 < self.clip < math.inf, "optim.clip", self.clip, "a norm above 0, or none")
        _check(self.ema is None or 0 < self.ema < 1, "optim.ema", self.ema, "a decay between 0 and 1, or none")


def learning_rate(optimizer: Optimizer, steps: int) -> optax.Schedule:
    """The rate at each 0-based step of a stage of `steps` steps, before any group's multiplier."""
    schedule = optimizer.schedule
    decay_steps = max(steps - schedule.warmup, 1)
    if schedule.kind == "poly":
        final = optimizer.lr * schedule.final
        base = optax.polynomial_schedule(optimizer.lr, final, schedule.power, decay_steps)
    elif schedule.kind == "cosine":
        base = optax.cosine_decay_schedule(optimizer.lr, decay_steps, schedule.final)
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
    """A tree like `params` that holds the index of each leaf's group.

    Raises:
      InputError: a parameter is in no group; the message lists such parameters.
    """
    indices, missed = [], []
    for path in parameter_paths(params):
        index = next((i for i, group in enumerate(groups) if re.search(group.pattern, path)), None)
        indices.append(index)
        if index is None:
            missed.append(path)
    if missed:
        raise InputError(f"{len(missed)} parameters are in no optimizer group: {missed[:5]}; add a Group for them")
    return jax.tree.unflatten(jax.tree.structure(params), indices)


def build(optimizer: Optimizer, params: Any, steps: int) -> optax.GradientTransformation:
    """The optax transformation for `params` (arrays or ShapeDtypeStructs) over a stage of `steps` steps.

    Raises:
      InputError: a parameter is in no group.
    """
    rate = learning_rate(optimizer, steps)

    def chain(group: Group) -> optax.GradientTransformation:
        if group.lr == 0:
            return optax.set_to_zero()
        decay = optimizer.weight_decay * group.weight_decay
        decayed = [optax.add_decayed_weights(decay)] if decay else []
        if optimizer.kind == "sgd":
            parts = [*decayed, optax.trace(optimizer.momentum, nesterov=optimizer.nesterov)]
        else:
            adam = optax.scale_by_adam(b1=optimizer.momentum, b2=optimizer.b2, nesterov=optimizer.nesterov)
            parts = [adam, *decayed]
        return optax.chain(*parts, optax.scale_by_learning_rate(lambda step: rate(step) * group.lr))

    indices = assign_groups(optimizer.groups, params)
    tx = optax.multi_transform({i: chain(group) for i, group in enumerate(optimizer.groups)}, indices)
    frozen = jax.tree.map(lambda i: optimizer.groups[i].lr == 0, indices)
    if optimizer.clip is not None:
        drop_frozen = optax.masked(optax.set_to_zero(), frozen)
        tx = optax.chain(drop_frozen, optax.clip_by_global_norm(optimizer.clip), tx)
    return tx if optimizer.ema is None else _averaging(tx, optimizer.ema, frozen)


class AveragingState(NamedTuple):
    """Optimizer state of a net whose parameters are averaged.

    Attributes:
      count: int32 scalar, steps averaged over.
      average: tree like the parameters; `optax.MaskedNode` in place of a frozen one, whose average is itself.
      inner: state of the optimizer itself.
    """

    count: jax.Array
    average: Any
    inner: optax.OptState


def _averaging(tx: optax.GradientTransformation, decay: float, frozen: Any) -> optax.GradientTransformation:
    """`tx`, with an exponential moving average of the parameters that its updates lead to."""

    def init(params: Any) -> AveragingState:
        # A copy: the step donates its state, and a buffer can be donated once.
        average = jax.tree.map(lambda fixed, p: optax.MaskedNode() if fixed else jnp.copy(p), frozen, params)
        return AveragingState(jnp.zeros((), jnp.int32), average, tx.init(params))

    def update(grads: Any, state: AveragingState, params: Any) -> tuple[Any, AveragingState]:
        updates, inner = tx.update(grads, state.inner, params)
        count = optax.safe_increment(state.count)
        # The newest parameters' share of the average so far, (1 - d) / (1 - d^count): 1 at the first step.
        share = (1 - decay) / -jnp.expm1(count * math.log(decay))

        def follow(fixed: bool, average: jax.Array, p: jax.Array) -> Any:
            return average if fixed else ((1 - share) * average + share * p).astype(average.dtype)

        average = jax.tree.map(follow, frozen, state.average, optax.apply_updates(params, updates))
        return updates, AveragingState(count, average, inner)

    return optax.GradientTransformation(init, update)


def averaged(opt_state: optax.OptState, params: Any) -> Any:
    """The parameters to measure and store: their moving average where the optimizer keeps one, else `params`.

    The average after n steps is sum_k d^(n-k) p_k / sum_k d^(n-k) over the parameters p_k after step k = 1..n, for the
    decay d = `Optimizer.ema`. It is unbiased as Adam's moments and `optax.ema` are: the initial parameters have no
    part in it. Before the first step it is `params`. Training itself goes on from `params`.

    Args:
      opt_state: state of the transformation that `build` returned.
      params: the net's parameters after the same step.
    """
    if not isinstance(opt_state, AveragingState):
        return params
    return jax.tree.map(
        lambda average, p: p if isinstance(average, optax.MaskedNode) else average,
        opt_state.average,
        params,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )
