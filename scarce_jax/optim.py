"""Configs of optimizers, and the optax transformations that are built from them."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from annotated_types import MinLen

from scarce_jax.errors import InputError, some
from scarce_jax.ranges import BelowOne, Count, CountOrZero, InsideOne, NonNegative, Positive, Share, check


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters with their own multipliers of the learning rate and the weight decay.

    Attributes:
      pattern: regular expression that is searched in the path of a parameter, such as "layer1_block0/conv1/kernel".
      lr: multiplier of the optimizer's learning rate, at least 0. 0 freezes the parameters, which then have no
        optimizer state.
      weight_decay: multiplier of the optimizer's weight decay, at least 0.
    """

    pattern: str = ""
    lr: NonNegative = 1.0
    weight_decay: NonNegative = 1.0

    def faults(self) -> Iterator[tuple[str, str]]:
        try:
            re.compile(self.pattern)
        except re.error as error:
            yield "pattern", f"a regular expression, this is none ({error})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate over a stage of N steps, as a multiple of the optimizer's `lr`.

    The rate rises linearly from 0 over the first `warmup` steps. Over the rest of the stage, of which t in 0..1 is the
    share that has passed, it follows `kind`:

    - `poly`: final + (1 - final) * (1 - t) ** power (DeepLab).
    - `cosine`: final + (1 - final) * (1 + cos(pi * t)) / 2 (Loshchilov & Hutter, SGDR, 2017; without restarts).
    - `step`: 1, multiplied by `factor` at each step of `boundaries`.
    - `constant`: 1.

    Attributes:
      kind: shape of the schedule.
      power: exponent of `poly`, above 0.
      final: value at the end of `poly` and `cosine`, 0 to 1.
      boundaries: steps of `step`, counted from the start of the stage, increasing and after the warm-up.
      factor: factor of `step`, above 0.
      warmup: number of steps. A warm-up that is longer than the stage never reaches `lr`.
    """

    kind: Literal["poly", "cosine", "step", "constant"] = "poly"
    power: Positive = 0.9
    final: Share = 0.0
    boundaries: tuple[Count, ...] = ()
    factor: Positive = 0.1
    warmup: CountOrZero = 0

    def faults(self) -> Iterator[tuple[str, str]]:
        after_each = zip(self.boundaries, (self.warmup, *self.boundaries), strict=False)
        if any(b <= before for b, before in after_each):
            yield "boundaries", f"increasing steps after the warm-up of {self.warmup}"
        if self.boundaries and self.kind != "step":
            yield "boundaries", f"none with kind {self.kind!r}; leave them out or set kind 'step'"
        if self.final and self.kind not in ("poly", "cosine"):
            yield "final", f"0 with kind {self.kind!r}; leave it out or set kind 'poly' or 'cosine'"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Optimizer of one net: SGD or Adam as in PyTorch, or AdamW.

    Attributes:
      kind: "sgd" adds the weight decay to the gradient, and the learning rate multiplies the momentum, as in PyTorch.
        With "adam", which is AdamW (Loshchilov & Hutter, 2019), the weight decay is decoupled from the gradient, and
        the learning rate multiplies both. "adam_l2" adds the weight decay to the gradient before its moments, as
        `torch.optim.Adam` does: where gradients are small, it then decays much faster.
      lr: peak learning rate for the whole batch. It does not change with the number of devices. A `Group` of lr 0
        freezes.
      momentum: momentum of SGD, or b1 of Adam.
      b2: b2 of Adam.
      nesterov: Nesterov momentum, for all kinds.
      weight_decay: weight decay; an L2 penalty with "sgd" and "adam_l2", decoupled with "adam".
      schedule: learning rate over the stage.
      groups: groups of parameters. A parameter belongs to the first group that matches, and must match one.
      layer_decay: factor, such as 0.9, by which the learning rates of a DINOv2 fall from each block to the one before
        it (see `DINOv2Config.layer_groups`), for fine-tuning; None for equal rates. These rates come before `groups`,
        which then have the head and the final normalisation alone.
      clip: largest global norm of the gradient; None for no limit. A longer gradient is scaled down to it before weight
        decay and momentum, as `torch.nn.utils.clip_grad_norm_` does. The norm is over all parameters that are not
        frozen.
      ema: decay d of an exponential moving average of the parameters, such as 0.999 (see `averaged`); None for none.
    """

    kind: Literal["sgd", "adam", "adam_l2"] = "sgd"
    lr: Positive
    momentum: BelowOne = 0.9
    b2: BelowOne = 0.999
    nesterov: bool = False
    weight_decay: NonNegative = 0.0
    schedule: Schedule = Schedule()
    groups: Annotated[tuple[Group, ...], MinLen(1)] = (Group(),)
    layer_decay: InsideOne | None = None
    clip: Positive | None = None
    ema: InsideOne | None = None


BIAS_PATTERN = r"(^|/)(?!\w*bn)\w+/bias$"
"""Matches the biases of convolutions and linear layers, but not those of batch normalisation."""


def caffe(lr: float, schedule: Schedule, *, head: str | None = None, terms: int = 1) -> Optimizer:
    """SGD as the solvers of DeepLab and DeconvNet have it, which are for Caffe: momentum 0.9, weight decay 5e-4.

    Biases have twice the learning rate and no weight decay; scale and bias of batch normalisation are as kernels.

    Caffe's sigmoid cross-entropy is divided by the number of images alone, ours by that of all its terms. The gradient
    of such a mean is 1/terms of that of the sum. With `terms` times the learning rate and 1/terms of the weight decay
    the steps are those of the sum: lr * (sum' + decay * p) = (terms * lr) * (sum' / terms + (decay / terms) * p).

    Args:
      lr: learning rate for the loss in Caffe.
      schedule: learning rate over the stage.
      head: pattern of the layer that is not pretrained, which has ten times the learning rate.
      terms: number of terms of each image that Caffe adds up; 1 for a loss that is a mean in Caffe too.
    """
    heads = ()
    if head is not None:
        heads = (Group(pattern=f"{head}.*bias$", lr=20.0, weight_decay=0.0), Group(pattern=head, lr=10.0))
    groups = (*heads, Group(pattern=BIAS_PATTERN, lr=2.0, weight_decay=0.0), Group())
    return Optimizer(lr=lr * terms, momentum=0.9, weight_decay=5e-4 / terms, schedule=schedule, groups=groups)


def learning_rate(optimizer: Optimizer, steps: int) -> optax.Schedule:
    """Learning rate at each step (from 0) of a stage of `steps` steps, without the multipliers of the groups."""
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
    """Paths of all leaves in tree order, with names joined by "/"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return ["/".join(str(getattr(k, "key", k)) for k in path) for path, _ in leaves]


def assign_groups(groups: tuple[Group, ...], params: Any) -> Any:
    """The index of each parameter's group, in a tree like `params`.

    Raises:
      InputError: a parameter matches no group, or a pattern no parameter.
    """
    indices, missed, paths = [], [], parameter_paths(params)
    for group in groups:
        if not any(re.search(group.pattern, path) for path in paths):
            raise InputError(
                f"optim.groups: the pattern {group.pattern!r} matches no parameter; expected a part of a path "
                f"such as {some(paths, 3)}"
            )
    for path in paths:
        index = next((i for i, group in enumerate(groups) if re.search(group.pattern, path)), None)
        indices.append(index)
        if index is None:
            missed.append(path)
    if missed:
        raise InputError(f"optim.groups: {len(missed)} parameters match no group: {missed[:5]}; add a Group for them")
    return jax.tree.unflatten(jax.tree.structure(params), indices)


def build(optimizer: Optimizer, params: Any, steps: int) -> optax.GradientTransformation:
    """Builds the optax transformation of an optimizer.

    Args:
      params: tree of arrays or ShapeDtypeStructs.
      steps: length of the stage.

    Raises:
      InputError: a setting is out of its range, a parameter matches no group, or a pattern no parameter; or
        `layer_decay` is left, whose groups depend on the net.
    """
    check(optimizer, "optim")
    check_layer_decay(optimizer)
    return build_for_groups(optimizer, assign_groups(optimizer.groups, params), steps)


def check_layer_decay(optimizer: Optimizer) -> None:
    """Raises InputError if `layer_decay` is left, because a backbone without layer groups ignores it."""
    if optimizer.layer_decay is not None:
        raise InputError(
            f"optim.layer_decay is {optimizer.layer_decay}; expected None, because the net stands on no DINOv2"
        )


def build_for_groups(optimizer: Optimizer, indices: Any, steps: int) -> optax.GradientTransformation:
    """Builds the optax transformation of an optimizer for arrays whose groups are known.

    Args:
      indices: the index of each array's group, in a tree like the parameters.
      steps: length of the stage.
    """
    rate = learning_rate(optimizer, steps)

    def chain(group: Group) -> optax.GradientTransformation:
        if group.lr == 0:
            return optax.set_to_zero()
        decay = optimizer.weight_decay * group.weight_decay
        decayed = [optax.add_decayed_weights(decay)] if decay else []
        if optimizer.kind == "sgd":
            moments = optax.trace(optimizer.momentum, nesterov=optimizer.nesterov)
        else:
            moments = optax.scale_by_adam(b1=optimizer.momentum, b2=optimizer.b2, nesterov=optimizer.nesterov)
        parts = [moments, *decayed] if optimizer.kind == "adam" else [*decayed, moments]
        return optax.chain(*parts, optax.scale_by_learning_rate(lambda step: rate(step) * group.lr))

    tx = optax.multi_transform({i: chain(group) for i, group in enumerate(optimizer.groups)}, indices)
    frozen = jax.tree.map(lambda i: optimizer.groups[i].lr == 0, indices)
    if optimizer.clip is not None:
        drop_frozen = optax.masked(optax.set_to_zero(), frozen)
        tx = optax.chain(drop_frozen, optax.clip_by_global_norm(optimizer.clip), tx)
    return tx if optimizer.ema is None else _averaging(tx, optimizer.ema, frozen)


class AveragingState(NamedTuple):
    """Optimizer state of a net whose parameters are averaged.

    Attributes:
      count: int32 scalar, number of steps in the average.
      average: tree like the parameters, with `optax.MaskedNode` for frozen ones.
      inner: state of the optimizer.
    """

    count: jax.Array
    average: Any
    inner: optax.OptState


def _averaging(tx: optax.GradientTransformation, decay: float, frozen: Any) -> optax.GradientTransformation:
    """`tx` with an exponential moving average of the updated parameters."""

    def init(params: Any) -> AveragingState:
        # A copy, because the step donates its state and a buffer can be donated only once.
        average = jax.tree.map(lambda fixed, p: optax.MaskedNode() if fixed else jnp.copy(p), frozen, params)
        return AveragingState(jnp.zeros((), jnp.int32), average, tx.init(params))

    def update(grads: Any, state: AveragingState, params: Any) -> tuple[Any, AveragingState]:
        updates, inner = tx.update(grads, state.inner, params)
        count = optax.safe_increment(state.count)
        # Share of the newest parameters in the average, (1 - d) / (1 - d^count), which is 1 at the first step.
        share = (1 - decay) / -jnp.expm1(count * math.log(decay))

        def follow(fixed: bool, average: jax.Array, p: jax.Array) -> Any:
            return average if fixed else ((1 - share) * average + share * p).astype(average.dtype)

        average = jax.tree.map(follow, frozen, state.average, optax.apply_updates(params, updates))
        return updates, AveragingState(count, average, inner)

    return optax.GradientTransformation(init, update)


def averaged(opt_state: optax.OptState, params: Any) -> Any:
    """The parameters to measure and store: their moving average if the optimizer has one, else `params`.

    For the decay d = `Optimizer.ema` the average after n steps is sum_k d^(n-k) p_k / sum_k d^(n-k), over the
    parameters p_k after the steps k = 1..n. Like Adam's moments and `optax.ema` it is unbiased: the initial parameters
    have no part in it. Before the first step it is `params`. Training continues from `params`.

    Args:
      opt_state: state of the transformation from `build`.
      params: parameters of the net after the same step.
    """
    if not isinstance(opt_state, AveragingState):
        return params
    return jax.tree.map(
        lambda average, p: p if isinstance(average, optax.MaskedNode) else average,
        opt_state.average,
        params,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )
