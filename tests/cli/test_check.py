"""`check` through the command line: exit status, JSON, usage."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def loose(tmp_path):
    """images and masks of two classes, nothing wrong."""
    draw = np.random.default_rng(0)
    for k in range(3):
        for kind, array in (("images", draw.integers(0, 256, (20, 30, 3))), ("masks", np.arange(600) // 300)):
            (tmp_path / kind).mkdir(exist_ok=True)
            shape = array.shape if array.ndim == 3 else (20, 30)
            Image.fromarray(array.astype(np.uint8).reshape(shape)).save(tmp_path / kind / f"{k}.png")
    return ["--images", tmp_path / "images", "--masks", tmp_path / "masks"]


def test_a_clean_folder_exits_0(loose, command):
    finished = command("check", *loose, "--classes", 2, "--json")
    assert finished.status == 0 and finished.err == ""
    assert finished.out.startswith("Checked 6 files of ")
    assert finished.json["checked"] == 6 and finished.json["problems"] == finished.json["warnings"] == []


def test_a_fault_exits_1_and_is_in_the_json(loose, command):
    path = loose[3] / "1.png"
    path.write_bytes(b"")
    finished = command("check", *loose, "--classes", 2, "--json")
    assert finished.status == 1
    assert f"PROBLEM empty-file in {path}: 0 bytes; expected " in finished.out
    (problem,) = finished.json["problems"]
    assert {key: problem[key] for key in ("kind", "file", "found", "count")} == {
        "kind": "empty-file", "file": str(path), "found": "0 bytes", "count": 1,
    }  # fmt: skip
    assert problem["expected"] and problem["advice"]


def test_a_warning_alone_exits_0(loose, command):
    Image.new("RGB", (30, 20), (9, 9, 9)).save(loose[1] / "1.png")
    finished = command("check", *loose, "--classes", 2)
    assert finished.status == 0 and "0 problems, 1 warning" in finished.out and "WARNING constant-image" in finished.out


def test_a_prepared_dataset_is_checked(command, tiny_data):
    finished = command("check", "scenes", "--data-dir", tiny_data)
    assert finished.status == 0 and "Checked 57 files of dataset scenes" in finished.out


@pytest.mark.parametrize(
    ("flags", "holds"),
    [
        ([], "expected one of DATASET, --source DIR, or --images"),
        (["scenes", "--images", "x"], "got DATASET and --images"),
        (["--images", "x"], "--images needs --masks"),
        (["scenes", "--classes", "3"], "--classes: for --images only"),
        (["--source", "x", "--data-dir", "y"], "--data-dir is for DATASET only"),
        (["--images", "x", "--masks", "y", "--data-dir", "z"], "DATASET only; leave it out with --images"),
        (["--source", "x", "--masks", "y"], "--masks: for --images only"),
        (["--images", "x", "--masks", "y", "--format", "coco"], "--format: for --source only"),
        (["scenes", "--val", "0.2"], "--val: for --source only"),
    ],
)
def test_flags_that_do_not_go_together_are_usage_errors(flags, holds, command):
    finished = command("check", *flags)
    assert finished.status == 2 and holds in finished.err and finished.out == ""


def test_wrong_input_is_one_message(loose, refused, tiny_data, tmp_path):
    refused("check", "--images", tmp_path / "none", *loose[2:], holds=[str(tmp_path / "none"), "missing"])
    refused("check", "scnes", "--data-dir", tiny_data, holds=["did you mean scenes?"])
    refused("check", "camvid", "--data-dir", tiny_data, holds=["scarce-jax prepare camvid"])
    refused("check", *loose, "--classes", tmp_path / "none.txt", holds=["--classes", "number of classes"])


@pytest.mark.parametrize(
    "text", ["# label:color_rgb:parts:actions\na:0,0,0::\nb:9,9,9::\n", "Pixel Value, Class\n0, a\n1, b\n"]
)
def test_a_heading_of_a_list_of_classes_is_no_class(loose, command, tmp_path, text):
    listing = tmp_path / "listing.txt"
    listing.write_text(text)
    finished = command("check", *loose, "--classes", listing)
    assert finished.status == 0 and "nothing wrong" in finished.out
