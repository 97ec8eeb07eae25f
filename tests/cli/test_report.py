"""`report` on finished and unfinished runs: its figures are those of the summary, its pictures those of the images."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from scarce_jax.data.datasets import SCENES
from scarce_jax.data.files import unseal
from scarce_jax.data.source import Reader
from scarce_jax.training.fingerprint import fingerprint
from tests import tiny


def content(path):
    """What a page is made of."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    return json.loads(found[1])


def pixels(uri):
    """A picture's pixels: of a mask its class ids."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.fixture
def copied(detailer_run, tmp_path):
    """The run folder, free to be changed."""
    return shutil.copytree(detailer_run, tmp_path / "copied")


def reseed(run, seed):
    """Writes another seed in all files of a run."""
    facts = json.loads((run / "config.json").read_text())
    tiny.edit(run / "config.json", config={**facts["config"], "seed": seed})
    fingerprints = {}
    for stage in [stage["name"] for stage in json.loads((run / "summary.json").read_text())["stages"]]:
        path = run / stage / "stage.json"
        reads = {name: fingerprints[name] for name in json.loads(path.read_text())["reads"]}
        tiny.edit(path, seed=seed, reads=reads)
        fingerprints[stage] = fingerprint(unseal(json.loads(path.read_text())))
        tiny.edit(run / stage / "DONE", fingerprint=fingerprints[stage])


def test_the_figures_are_measured_and_the_pictures_are_the_images(copied, detailer_run, tiny_data, command, tmp_path):
    # Two runs, one of them with another seed by its name alone: they share pictures and are averaged.
    reseed(copied, 5)
    out = tmp_path / "both.html"
    found = command("report", detailer_run, copied, "--data-dir", tiny_data, "--images", 3, "--out", out)
    assert found.status == 0, found.err
    assert found.out.startswith(f"{out}: 2 runs, 3 images, ") and len(found.out.splitlines()) == 1
    page = content(out)
    assert page["left_out"] == []
    assert [group["seeds"] for group in page["groups"]] == [[0, 5]]

    summary = json.loads((detailer_run / "summary.json").read_text())["results"]["detailer"]
    for run in page["runs"]:
        shared = ("images", "split", "miou", "mean_accuracy", "pixel_accuracy", "per_class")
        assert {key: run["measured"][key] for key in shared} == {key: summary[key] for key in shared}
        assert np.sum(run["measured"]["confusion"]) == tiny.SIZES["val"] * 256 * 256

    (gallery,) = page["galleries"]
    assert gallery["runs"] == [0, 1] and tuple(gallery["classes"]) == SCENES.classes
    assert [picture["rank"] for picture in gallery["pictures"]] == [1, 4, 7]
    reader = Reader("scenes", "val", str(tiny_data))
    for picture in gallery["pictures"]:
        example = reader.read(reader.index[picture["id"]])
        assert [layer["kind"] for layer in picture["layers"]] == ["truth", "coarse", "prediction", "prediction"]
        truth, coarse, prediction, again = (pixels(layer["mask"]) for layer in picture["layers"])
        np.testing.assert_array_equal(truth, example["fine"])
        np.testing.assert_array_equal(coarse, example["coarse"])
        np.testing.assert_array_equal(prediction, again)
        assert np.abs(pixels(picture["image"]).astype(int) - example["image"]).mean() < 8  # JPEG
        ious = []
        for k in sorted(set(np.unique(truth)) | set(np.unique(prediction))):
            hit, either = (truth == k) & (prediction == k), (truth == k) | (prediction == k)
            ious.append(hit.sum() / either.sum())
        assert picture["layers"][2]["miou"] == pytest.approx(np.mean(ious))
        assert picture["layers"][2]["classes"] == np.unique(prediction).tolist()


def test_without_the_dataset_it_says_what_is_left_out(copied, command, tmp_path):
    found = command("report", copied, "--data-dir", tmp_path / "nothing")
    assert found.status == 0, found.err
    page = content(copied / "report.html")
    assert page["galleries"] == [] and page["runs"][0]["measured"] is None
    (line,) = page["left_out"]
    assert "scarce-jax prepare scenes" in line and f"left out: {line}" in found.out
    assert set(page["runs"][0]["results"]) >= {"detailer", "coarse"} and page["runs"][0]["curves"]["detailer"]


def test_an_unfinished_run_is_reported_as_far_as_it_came(copied, command, tmp_path):
    (copied / "summary.json").unlink()
    (copied / "classifier" / "DONE").unlink()
    (copied / "detailer" / "DONE").unlink()
    assert command("report", copied, "--data-dir", tmp_path / "nothing").status == 0
    page = content(copied / "report.html")
    states = {stage["name"]: stage["done"] for stage in page["runs"][0]["stages"]}
    assert states == {
        "detailer": False, "classifier": False, "detail": True, "student_detailed": True, "student_coarse": True
    }  # fmt: skip
    measured, unfinished = page["left_out"]
    assert "stage detailer, which result detailer needs, is not finished" in measured
    assert "not finished (detailer, classifier)" in unfinished


def test_wrong_input_is_one_message(copied, refused, command, tmp_path):
    refused("report", tmp_path, holds=["not a run folder"])
    refused("report", copied, copied, holds=["are the same run"])
    refused("report", copied, "--out", tmp_path / "none" / "a.html", holds=["--out", "there is no folder"])
    assert command("report").status == 2
    assert not (copied / "report.html").exists()
