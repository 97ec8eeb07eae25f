"""Configs, nets and data so small that a test can train for real, also in other processes.

`python -m tests.tiny train CONFIG ...` is the command line with small nets in place of PSPNet and detailer: compiling a
ResNet takes longer than everything else together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from orbax.checkpoint import v1 as ocp

from scarce_jax.cpu.diffusion import Diffusion
from scarce_jax.data.budget import Budget
from scarce_jax.methods import adversarial, auxiliary, decoupled, detailer, networks, supervised, transfer
from scarce_jax.methods.auxiliary.judge import AuxiliaryStage
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.decoupled.figure_ground import SegmentationStage
from scarce_jax.methods.transfer import pnet
from scarce_jax.methods.transfer.pnet import AdversarialStage, PNetStage
from scarce_jax.ops.augment import Augment
from scarce_jax.ops.combinatorial import Combinatorial
from scarce_jax.ops.resize import resize_bilinear
from scarce_jax.optim import Optimizer
from scarce_jax.runtime import Runtime
from scarce_jax.training import checkpoint

ROOT = pathlib.Path(__file__).parents[1]
SIZES = {"train": 12, "val": 7}
"""Images of the tiny `scenes`: eight devices divide neither."""

STRONG = ("striped fish", "spotted fish", "checked fish", "crab", "kelp", "coral", "shell")
"""Categories which alone 5 of the 12 training images show, and 3 of the 7 others."""

RUNTIME = Runtime(checkpoint_every=3, log_every=1, workers=1)


class TinyNet(nn.Module):
    """Called as PSPNet and Detailer are, with what matters to training: BatchNorm, channel dropout, a second head."""

    classes: int
    depth: int = 18
    width: int = 4
    dropout: float = 0.1
    inject: str = ""
    embedding: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, coarse: jax.Array | None = None, *, train: bool):
        x = image
        if coarse is not None:
            x = jnp.concatenate([x, jax.nn.one_hot(coarse, self.classes)], -1)
        x = nn.Conv(2 * self.width, (3, 3), 2, use_bias=False, dtype=self.dtype, name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn")(x))
        x = nn.Dropout(self.dropout, broadcast_dims=(1, 2))(x, deterministic=not train)
        heads = [nn.Conv(self.classes, (1, 1), name=name)(x) for name in ("classifier", "aux_classifier")]
        return tuple(resize_bilinear(head, image.shape[1:3], align_corners=True) for head in heads)


class TinyEncoder(nn.Module):
    """Called as ResNet is."""

    depth: int
    width: int
    caffe: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        x = nn.Conv(2 * self.width, (3, 3), 2, use_bias=False, name="conv1")(image)
        return {"layer1": nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn1")(x))}


class TinyPNet(nn.Module):
    """Called as PNet is."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, masked_image: jax.Array, *, train: bool) -> jax.Array:
        x = nn.tanh(nn.Conv(4 * self.width, (4, 4), 4, dtype=self.dtype, name="conv")(masked_image))
        return nn.Dense(1, name="fc6")(x.reshape(len(x), -1).astype(jnp.float32))[:, 0]


def install(setattr=setattr) -> None:
    """Puts the small nets in place; a test gives `monkeypatch.setattr`."""
    setattr(networks, "PSPNet", TinyNet)
    setattr(networks, "ResNet", TinyEncoder)
    setattr(pnet, "PNet", TinyPNet)
    setattr(detailer, "Detailer", TinyNet)


@contextlib.contextmanager
def little_optimised() -> Iterator[None]:
    """For programs that run but a few times: compiling them takes longer than everything else."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def stage(**changes: Any) -> dict[str, Any]:
    """Arguments of a stage: a few steps at 32 x 32."""
    return {
        "steps": 6,
        "batch": 8,
        "size": (32, 32),
        "augment": Augment(crop=(32, 32)),
        "depth": 18,
        "width": 4,
        "optim": Optimizer(lr=0.01, weight_decay=1e-4),
        "eval_batch": 2,
        **changes,
    }


def supervised_config(runtime: Runtime = RUNTIME, **changes: Any) -> supervised.Config:
    """`changes` are of the stage."""
    return supervised.Config(
        dataset="scenes", budget=Budget(fine=8), segmenter=SegmenterStage(**stage(**changes)), runtime=runtime
    )


def detailer_config(
    compare: bool = False, student: bool = False, runtime: Runtime = RUNTIME, **changes: Any
) -> detailer.Config:
    """`changes` are of every training stage."""
    shared = stage(**changes)
    return detailer.Config(
        dataset="scenes",
        budget=Budget(fine=8),
        compare=compare,
        detailer=detailer.DetailerStage(embedding=8, **shared),
        classifier=SegmenterStage(**shared),
        student=detailer.StudentStage(images=4, **shared) if student else None,
        runtime=runtime,
    )


def auxiliary_config(compare: bool = False, runtime: Runtime = RUNTIME, **changes: Any) -> auxiliary.Config:
    """`changes` are of every training stage."""
    shared = stage(**changes)
    judged = {key: shared[key] for key in ("steps", "batch", "size", "augment", "optim")}
    return auxiliary.Config(
        dataset="scenes",
        budget=Budget(fine=4),
        compare=compare,
        segmenter=SegmenterStage(**shared),
        auxiliary=AuxiliaryStage(width=4, **judged),
        semi=auxiliary.SemiStage(threshold=0.3, **shared),
        adversarial=adversarial.AdversarialStage(discriminator_width=4, semi_start=2, **shared),
        runtime=runtime,
    )


def transfer_config(compare: bool = False, runtime: Runtime = RUNTIME, **changes: Any) -> transfer.Config:
    """`changes` are of every training stage."""
    shared = stage(**changes)
    judged = {key: shared[key] for key in ("steps", "batch", "optim")}
    return transfer.Config(
        dataset="scenes",
        budget=Budget(strong_categories=STRONG),
        compare=compare,
        cam=SegmenterStage(**shared),
        lnet=SegmenterStage(**shared),
        diffusion=Diffusion(segments=40),
        segmenter=SegmenterStage(**shared),
        pnet=PNetStage(width=2, side=16, categories=2, eval_batch=2, **judged),
        adversarial=AdversarialStage(pnet_optim=shared["optim"], **judged),
        runtime=runtime,
    )


def decoupled_config(
    compare: bool = False, runtime: Runtime = RUNTIME, reestimate: int = 0, **changes: Any
) -> decoupled.Config:
    """`changes` are of every training stage; images of 64 x 64, a pool5 of 2 x 2."""
    given = stage(**{"size": (64, 64), **changes})
    shared = {key: given[key] for key in ("steps", "batch", "size", "optim", "eval_batch")}
    net = {"width": 2, "hidden": 4, "fc6_kernel": 1, "convolutions": (1,) * 5, "augment": Augment(crop=(64, 64))}
    return decoupled.Config(
        dataset="scenes",
        budget=Budget(fine=6),
        compare=compare,
        classifier=decoupled.ClassifierStage(batch_norm=True, **net, **shared),
        decoupled=SegmentationStage(crops=Combinatorial(crop=(64, 64)), hidden=4, reestimate=reestimate, **shared),
        deconvnet=decoupled.DeconvNetStage(**net, **{**shared, "steps": None}),
        runtime=runtime,
    )


def replaced(config: Any, stage: str, **changes: Any) -> Any:
    """The config with some fields of one of its stages changed."""
    return dataclasses.replace(config, **{stage: dataclasses.replace(getattr(config, stage), **changes)})


def environment(devices: int = 1) -> dict[str, str]:
    """For a process that finds this checkout and has this many simulated devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}


def stored(run_dir: pathlib.Path) -> dict[str, np.ndarray]:
    """Every array that a run's training stages left, by "stage/net/path"."""
    found = {}
    for net in sorted(pathlib.Path(run_dir).glob("*/nets/*")):
        leaves = ocp.metadata(net.absolute()).custom_metadata["scarce_jax"]["checksums"]
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = {
            tuple(path.split("/")): jax.ShapeDtypeStruct(shape, dtype, sharding=here)
            for path, (_, shape, dtype) in leaves.items()
        }
        # A net without BatchNorm has an empty dict of them.
        tree = {"batch_stats": {}, **traverse_util.unflatten_dict(like)}
        loaded = traverse_util.flatten_dict(checkpoint.load(net, tree), sep="/")
        found |= {f"{net.parent.parent.name}/{net.name}/{path}": np.asarray(x) for path, x in loaded.items()}
    return found


if __name__ == "__main__":
    from scarce_jax.cli import main

    install()
    sys.exit(main(sys.argv[1:]))
