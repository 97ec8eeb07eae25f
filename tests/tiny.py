"""Configs, nets and data so small that a test can train for real, also in other processes.

The nets are of the kind `tiny`: compiling a ResNet takes longer than everything else together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from orbax.checkpoint import v1 as ocp

from scarce_jax.cpu.diffusion import Diffusion
from scarce_jax.data.budget import Budget
from scarce_jax.data.files import write_checked_json
from scarce_jax.mesh import make_mesh
from scarce_jax.methods import adversarial, auxiliary, decoupled, detailer, supervised, three_step, transfer
from scarce_jax.methods.auxiliary.judge import AuxiliaryStage
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.decoupled.figure_ground import SegmentationStage
from scarce_jax.methods.transfer.pnet import AdversarialStage, PNetStage
from scarce_jax.models.deconvolution import DeconvNetConfig
from scarce_jax.models.decoupled import DecoupledClassifierConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.tiny import TinyConfig
from scarce_jax.models.vgg import VGGConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.ops.combinatorial import Combinatorial
from scarce_jax.ops.crf import CRF
from scarce_jax.optim import Optimizer
from scarce_jax.recipe import Views
from scarce_jax.runtime import Runtime
from scarce_jax.training import checkpoint

ROOT = pathlib.Path(__file__).parents[1]
SIZES = {"train": 12, "val": 7}
"""Images of the tiny `scenes`: eight devices divide neither."""

STRONG = ("striped fish", "spotted fish", "checked fish", "crab", "kelp", "coral", "shell")
"""Categories which alone 5 of the 12 training images show, and 3 of the 7 others."""

RUNTIME = Runtime(checkpoint_every=3, log_every=1, workers=1)


@contextlib.contextmanager
def little_optimised() -> Iterator[None]:
    """For programs that run but a few times: compiling them takes longer than everything else."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def mesh(devices: int = 1) -> jax.sharding.Mesh:
    """The first so many devices."""
    return make_mesh(jax.devices()[:devices])


def stage(**changes: Any) -> dict[str, Any]:
    """Arguments of a stage: a few steps at 32 x 32."""
    return {
        "steps": 6,
        "batch": 8,
        "size": (32, 32),
        "augment": Augment(crop=(32, 32)),
        "net": TinyConfig(width=4),
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
        detailer=detailer.DetailerStage(**shared),
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


def three_step_config(runtime: Runtime = RUNTIME, **changes: Any) -> three_step.Config:
    """`changes` are of every training stage. The classifier has the smallest ResNet, which IRNet needs."""
    shared = stage(**{"steps": 2, **changes})
    images = {key: value for key, value in shared.items() if key != "net"}
    return three_step.Config(
        dataset="scenes",
        classifier=three_step.ClassifierStage(
            **{**shared, "net": PSPNetConfig(backbone=ResNetConfig(depth=18, width=16))}
        ),
        cams=three_step.Cams(
            views=Views(flip=True),
            most=11,
            confidence=0.0,
            crf=CRF(bilateral_sigma=20, colour_sigma=5, bilateral_weight=10, iterations=1),
        ),
        irnet=three_step.IRNetStage(backbone=ResNetConfig(depth=18, width=16), radius=2, **images),
        walk=three_step.Walk(start="labels", radius=2, steps=4),
        segmenter=SegmenterStage(**shared),
        tta=Views(flip=True, average="logits"),
        runtime=runtime,
    )


def decoupled_config(
    compare: bool = False, runtime: Runtime = RUNTIME, reestimate: int = 0, **changes: Any
) -> decoupled.Config:
    """`changes` are of every training stage; images of 64 x 64, a pool5 of 2 x 2."""
    fields = stage(**{"size": (64, 64), **changes})
    shared = {key: fields[key] for key in ("steps", "batch", "size", "optim", "eval_batch")}
    backbone = VGGConfig(width=2, batch_norm=True, convolutions=(1,) * 5)
    net = {"backbone": backbone, "hidden": 4, "fc6_kernel": 1}
    augment = Augment(crop=(64, 64))
    return decoupled.Config(
        dataset="scenes",
        budget=Budget(fine=6),
        compare=compare,
        classifier=decoupled.ClassifierStage(net=DecoupledClassifierConfig(**net), augment=augment, **shared),
        decoupled=SegmentationStage(crops=Combinatorial(crop=(64, 64)), hidden=4, reestimate=reestimate, **shared),
        deconvnet=decoupled.DeconvNetStage(net=DeconvNetConfig(**net), augment=augment, **{**shared, "steps": None}),
        runtime=runtime,
    )


def replaced(config: Any, stage: str, **changes: Any) -> Any:
    """The config with some fields of one of its stages changed."""
    return dataclasses.replace(config, **{stage: dataclasses.replace(getattr(config, stage), **changes)})


def fused() -> dict[str, bool]:
    """Compiler options that bring back the fusion emitters, which conftest turns off; newer versions of XLA know no
    others."""
    name = "xla_cpu_use_fusion_emitters"
    return {name: True} if name in os.environ["XLA_FLAGS"] else {}


def environment(devices: int = 1) -> dict[str, str]:
    """For a process that finds this checkout and has this many simulated devices."""
    # The last of two values of a flag counts.
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}


def edit(path: pathlib.Path, **changes: Any) -> None:
    """Changes keys of a JSON file of the library as a stranger would: with the right checksum. None removes a key."""
    value = {**json.loads(path.read_text()), **changes}
    removed = {"checksum", *(key for key, part in changes.items() if part is None)}
    write_checked_json(path, {key: part for key, part in value.items() if key not in removed})


def stored(run_dir: pathlib.Path) -> dict[str, np.ndarray]:
    """Every array that a run's training stages left, by "stage/net/path"."""
    arrays = {}
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
        arrays |= {f"{net.parent.parent.name}/{net.name}/{path}": np.asarray(x) for path, x in loaded.items()}
    return arrays
