"""`scarce-jax weights`: names, and what a file is."""

import numpy as np

from scarce_jax.models.weights.published import PUBLISHED
from tests import published, torch_files


def test_what_can_be_named_is_listed_with_its_command(command):
    found = command("weights", "--json")
    assert found.status == 0
    names = {entry["init_from"]: entry for entry in found.json["weights"]}
    assert len(names) == len(PUBLISHED) == 12
    resnet = names["hf:timm/resnet50.tv_in1k"]
    assert resnet["licence"] == "bsd-3-clause" and resnet["settings"] == {"depth": 50}
    assert resnet["url"] == "https://huggingface.co/timm/resnet50.tv_in1k/resolve/main/model.safetensors"
    example = "scarce-jax train CONFIG --STAGE.init-from hf:timm/resnet50.tv_in1k --STAGE.net.backbone resnet"
    assert f"next: {example}" in command("weights").out


def test_a_file_is_described_with_every_array_and_the_flags(command, tmp_path):
    tensors = published.in_torch(published.resnet(18, 2)) | {"fc.weight": np.zeros((5, 16), np.float32)}
    path = torch_files.save(tmp_path / "r.safetensors", tensors, geometry="caffe", licence="mit", name="mine")
    found = command("weights", path, "--json")
    assert found.status == 0 and found.json["layout"] == "torchvision's ResNet"
    flags = (
        "--STAGE.net.backbone resnet --STAGE.net.backbone.depth 18 --STAGE.net.backbone.width 2 "
        "--STAGE.net.backbone.geometry caffe --STAGE.net.backbone.normalisation imagenet"
    )
    assert found.json["flags"] == f"--STAGE.init-from {path} {flags}" and flags in found.out
    assert found.json["licence"] == "mit" and found.json["name"] == "mine" and found.json["kind"] == "resnet"
    assert {*found.json["used"], *found.json["unused"]} == {key for key in tensors if "num_batches" not in key}
    assert all(key in found.out for key in found.json["used"]) and "not used: fc.weight" in found.out


def test_a_switch_of_a_backbone_is_a_flag_without_a_value(command):
    from scarce_jax.cli.weights import _flags

    found = command("weights", "--json").json["weights"]
    for entry in found:
        flags = _flags(entry["init_from"], entry["kind"], entry["settings"])
        assert "True" not in flags and "False" not in flags
        assert ("--STAGE.net.backbone.registers" in flags.split()) == ("registers" in entry["init_from"])


def test_what_is_no_file_of_weights_is_refused(refused, tmp_path):
    refused("weights", tmp_path / "none.pth", holds=["none.pth: no such file", "`scarce-jax weights` lists names"])
    path = torch_files.save(tmp_path / "other.safetensors", {"a.weight": np.zeros(3, np.float32)})
    refused("weights", path, holds=["found arrays called a.weight, expected those of", "Keras' ResNet", "DINOv2"])
