"""Parameters, statistics and optimizer state in few flat buffers, as the compiled step keeps them.

A deep net has hundreds of small arrays. A kernel for each of them costs more in launches than in work, and so does
passing each of them to a compiled program. So the step reads and updates buffers of several arrays each.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from scarce_jax import mesh as mesh_lib
from scarce_jax import optim
from scarce_jax.recipe import NetState
from scarce_jax.training.state import TrainState

MOST_ARRAYS = 40
"""Arrays in a buffer. XLA fuses at most 96 operands and results into a kernel: the gradients of a buffer's arrays, the
buffer, those of the optimizer, and their updates."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the arrays of a tree lie in its buffers.

    Attributes:
      structure: the structure of the tree.
      shapes: shapes of its arrays, in tree order.
      members: for each buffer, the positions of its arrays in tree order.
      groups: the group of each buffer's arrays.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    members: tuple[tuple[int, ...], ...]
    groups: tuple[int, ...]

    @classmethod
    def of(cls, tree: Any, groups: Sequence[int] | None = None) -> Layout:
        """Divides a tree of arrays (or ShapeDtypeStructs) into buffers; the arrays of one have equal group and dtype.

        Vectors and kernels are apart: XLA fuses a slice of a small buffer into what reads it, but gives a slice of a
        large one a kernel of its own.

        Args:
          groups: group of each array, in tree order; None is one group.
        """
        leaves, structure = jax.tree.flatten(tree)
        alike = collections.defaultdict(list)
        for position, (leaf, group) in enumerate(zip(leaves, groups or [0] * len(leaves), strict=True)):
            alike[group, jnp.dtype(leaf.dtype), leaf.ndim > 1].append(position)
        members, group_of = [], []
        for (group, *_), positions in alike.items():
            parts = np.array_split(positions, math.ceil(len(positions) / MOST_ARRAYS))
            members += [tuple(part.tolist()) for part in parts]
            group_of += [group] * len(parts)
        return cls(structure, tuple(x.shape for x in leaves), tuple(members), tuple(group_of))

    def pack(self, tree: Any) -> Buffers:
        """Returns the buffers of a tree of this structure; a buffer of `optax.MaskedNode`s is one."""
        leaves = self.structure.flatten_up_to(tree)

        def join(positions: tuple[int, ...]) -> Any:
            if isinstance(leaves[positions[0]], optax.MaskedNode):
                return optax.MaskedNode()
            concatenate = np.concatenate if isinstance(leaves[positions[0]], np.ndarray) else jnp.concatenate
            return concatenate([leaves[k].transpose(_order(leaves[k].ndim)).ravel() for k in positions])

        return Buffers(tuple(map(join, self.members)), self)


@flax.struct.dataclass
class Buffers:
    """The arrays of a tree: 1-D arrays, and where each array lies in them."""

    arrays: tuple[Any, ...]
    layout: Layout = flax.struct.field(pytree_node=False)

    @property
    def groups(self) -> Buffers:
        """The group of each buffer, in a tree like this one."""
        return Buffers(self.layout.groups, self.layout)

    def unpack(self) -> Any:
        """Returns the tree."""
        layout = self.layout
        leaves = [optax.MaskedNode()] * len(layout.shapes)
        for buffer, positions in zip(self.arrays, layout.members, strict=True):
            if isinstance(buffer, optax.MaskedNode):
                continue
            start = 0
            for k in positions:
                shape, order = layout.shapes[k], _order(len(layout.shapes[k]))
                end = start + math.prod(shape)
                leaves[k] = buffer[start:end].reshape([shape[axis] for axis in order]).transpose(np.argsort(order))
                start = end
        return layout.structure.unflatten(leaves)


def _order(ndim: int) -> tuple[int, ...]:
    """The order of an array's axes in a buffer.

    Kernels of convolutions have the output channels first, as cuDNN returns their gradients, so that the update of a
    buffer reads and writes consecutive elements, and can be done in place.
    """
    return (3, 0, 1, 2) if ndim == 4 else tuple(range(ndim))


def pack(state: TrainState, optimizers: Mapping[str, optim.Optimizer]) -> TrainState:
    """Packs the trained nets of a state; those that are packed already stay.

    Args:
      state: any state of the stage.
      optimizers: role -> optimizer of every trained net.
    """
    return state.replace(
        nets={
            role: _pack_net(net, optimizers[role]) if role in optimizers and not is_packed(net.params) else net
            for role, net in state.nets.items()
        }
    )


def _pack_net(net: NetState, optimizer: optim.Optimizer) -> NetState:
    layout = Layout.of(net.params, jax.tree.leaves(optim.assign_groups(optimizer.groups, net.params)))

    def like_params(node: Any) -> bool:
        return isinstance(node, dict) and node.keys() == net.params.keys()

    return NetState(
        params=layout.pack(net.params),
        batch_stats=Layout.of(net.batch_stats).pack(net.batch_stats),
        opt_state=jax.tree.map(
            lambda node: layout.pack(node) if like_params(node) else node, net.opt_state, is_leaf=like_params
        ),
    )


def is_packed(node: Any) -> bool:
    return isinstance(node, Buffers)


def unpack(tree: Any) -> Any:
    """Returns the tree with trees of arrays in place of all `Buffers`."""
    return jax.tree.map(lambda node: node.unpack() if is_packed(node) else node, tree, is_leaf=is_packed)


def packed_like(present: Any, tree: Any) -> Any:
    """Returns the tree, packed if `present`, its value up to now, is."""
    return present.layout.pack(tree) if is_packed(present) else tree


def packed(state: TrainState, optimizers: Mapping[str, optim.Optimizer], mesh: Mesh) -> TrainState:
    """Returns `pack` of a state, replicated over the mesh. It packs on the host, without compiling anything."""
    trained = pack(_on_host(state.replace(nets={role: state.nets[role] for role in optimizers})), optimizers)
    return state.replace(nets={**state.nets, **mesh_lib.replicate(mesh, trained.nets)})


def unpacked(tree: Any, mesh: Mesh) -> Any:
    """Returns `unpack` of a tree, replicated over the mesh. It unpacks on the host, without compiling anything."""

    def moved(node: Any) -> Any:
        return mesh_lib.replicate(mesh, unpack(_on_host(node))) if is_packed(node) else node

    return jax.tree.map(moved, tree, is_leaf=is_packed)


def _on_host(tree: Any) -> Any:
    # A copy, because the next step donates the arrays, of which `np.asarray` is a view on a CPU.
    return jax.tree.map(np.array, tree)
