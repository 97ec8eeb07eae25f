"""A net's type is chosen by a flag of its own, and by the entry "kind" in JSON."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import pydantic
import pytest
import tyro

from scarce_jax.cli.common import parse
from scarce_jax.cli.kinds import choose_kinds, kinds_help
from scarce_jax.models.deconvolution import DeconvNetConfig
from scarce_jax.models.deeplabv3plus import DeepLabV3PlusConfig
from scarce_jax.models.dinov2 import DINOv2Config
from scarce_jax.models.dsnet import DSNetConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.segmenters import Segmenter
from scarce_jax.models.tiny import TinyConfig
from scarce_jax.models.vgg import VGGConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    net: Segmenter = PSPNetConfig()
    steps: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

    segmenter: Stage = Stage()
    student_net: Stage | None = None


FILE = Config(
    segmenter=Stage(net=PSPNetConfig(backbone=ResNetConfig(depth=18, width=8))),
    student_net=Stage(net=DSNetConfig(width=16)),
)


def parsed(*flags: str) -> Config:
    """What flags make of FILE."""
    config, rest = choose_kinds(FILE, flags)

    options = dataclasses.make_dataclass("Options", [("config", Annotated[Config, tyro.conf.arg(name="")], config)])
    return parse(options, rest, "train", "").config


@pytest.mark.parametrize(
    ("flags", "segmenter", "student"),
    [
        ((), PSPNetConfig(backbone=ResNetConfig(depth=18, width=8)), DSNetConfig(width=16)),
        (
            ("--segmenter.net.backbone.depth", "50"),
            PSPNetConfig(backbone=ResNetConfig(depth=50, width=8)),
            DSNetConfig(width=16),
        ),
        (("--segmenter.net", "pspnet"), PSPNetConfig(backbone=ResNetConfig(depth=18, width=8)), DSNetConfig(width=16)),
        (("--segmenter.net", "tiny", "--segmenter.net.dropout", "0.2"), TinyConfig(dropout=0.2), DSNetConfig(width=16)),
        (("--segmenter.net.width", "2", "--segmenter.net=tiny"), TinyConfig(width=2), DSNetConfig(width=16)),
        (("--segmenter.net", "tiny", "--segmenter.net", "dsnet"), DSNetConfig(), DSNetConfig(width=16)),
        (
            ("--segmenter.net.backbone", "vgg16", "--segmenter.net.backbone.batch-norm"),
            PSPNetConfig(backbone=VGGConfig(batch_norm=True)),
            DSNetConfig(width=16),
        ),
        # The net's kind comes first, wherever its flag stands.
        (
            ("--segmenter.net.backbone=dinov2", "--segmenter.net.backbone.frozen=5", "--segmenter.net=deeplabv3plus"),
            DeepLabV3PlusConfig(backbone=DINOv2Config(frozen=5)),
            DSNetConfig(width=16),
        ),
        (
            ("--segmenter.net.backbone", "resnet"),
            PSPNetConfig(backbone=ResNetConfig(depth=18, width=8)),
            DSNetConfig(width=16),
        ),
        (("--student-net.net", "deconvnet"), PSPNetConfig(backbone=ResNetConfig(depth=18, width=8)), DeconvNetConfig()),
    ],
)
def test_a_flag_chooses_the_type_and_others_its_fields(flags, segmenter, student):
    config = parsed(*flags)
    assert (config.segmenter.net, config.student_net.net) == (segmenter, student)


@pytest.mark.parametrize("flags", [("--student-net", "None"), ("--student-net=None", "--segmenter.steps", "3")])
def test_none_leaves_a_part_out(flags):
    assert parsed(*flags) == dataclasses.replace(FILE, student_net=None)
    assert "--student-net: None" in kinds_help(FILE)


def test_help_lists_the_kinds_of_a_net_and_those_of_its_backbone():
    nets, backbones = (kinds_help(FILE).partition(f"--segmenter.{path}: ")[2] for path in ("net", "net.backbone"))
    assert nets.startswith("pspnet, ") and backbones.startswith("resnet, vgg16, dinov2\n")
    assert "--student-net.net.backbone" not in kinds_help(FILE)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--segmenter.net", "pspnt"), "did you mean pspnet?"),
        (("--segmenter.net.backbone", "vgg"), "--segmenter.net.backbone: found 'vgg', expected one of resnet, vgg16, "),
        (("--segmenter.net", "tiny", "--segmenter.net.backbone", "vgg16"), "--segmenter.net.backbone"),
        (("--student-net", "3"), "--student-net: found '3', expected one of None"),
        (("--segmenter.net", "dsnet", "--segmenter.net.dept", "50"), "--segmenter.net.width"),
        (("--segmenter.net.embedding", "50"), "--segmenter.net.embedding"),
    ],
)
def test_what_is_unknown_ends_with_the_nearest_name(flags, expected, capsys):
    with pytest.raises(SystemExit) as error:
        parsed(*flags)
    assert error.value.code == 2 and expected in capsys.readouterr().err


def test_json_names_the_type_and_gives_the_same_config_back():
    adapter = pydantic.TypeAdapter(Config)
    config = Config(
        segmenter=Stage(net=DeconvNetConfig(deconvolutions=(1, 2, 1, 2, 1))),
        student_net=Stage(net=PSPNetConfig(backbone=VGGConfig(width=8))),
    )
    values = adapter.dump_python(config, mode="json")
    assert values["segmenter"]["net"]["kind"] == "deconvnet"
    assert values["student_net"]["net"]["backbone"]["kind"] == "vgg16"
    assert adapter.validate_python(values) == config


BACKBONES = [{"kind": "pspnet", "backbone": one} for one in ({"kind": "vgg"}, {"kind": "vgg16", "depth": 50}, {})]


@pytest.mark.parametrize("net", [{"kind": "dsnet", "depth": 50}, {"kind": "dsnt"}, {"width": 4}, *BACKBONES])
def test_json_of_no_net_is_refused(net):
    with pytest.raises(pydantic.ValidationError):
        pydantic.TypeAdapter(Config).validate_python({"segmenter": {"net": net}})
