"""A source folder of the `folder` builder."""

from __future__ import annotations

import json
import pathlib
import shutil

import numpy as np
import pytest

from scarce_jax.doctor import check_source
from tests.doctor.examples import (
    CLASSES,
    WIDTH,
    only,
    outlined,
    rewrite,
)


def retag(source: pathlib.Path, old: str, new: str) -> None:
    text = (source / "tags.csv").read_text()
    assert old in text
    (source / "tags.csv").write_text(text.replace(old, new))


def test_a_clean_source_gives_nothing(source):
    report = check_source(source)
    assert report.clean and not report.warnings, str(report)
    assert report.checked == 21


def test_tags_that_contradict_the_mask(source):
    retag(source, "b,red;green;blue", "b,red;blue")
    finding = only(check_source(source).problems, "tags-contradict-mask")
    assert finding.examples == [(str(source / "train/masks/b.png"), "the mask has 2 (green), the tags of b do not")]
    assert "correct the tags or the mask" in finding.advice


def test_a_tag_without_a_pixel(source):
    (source / "train/coarse/b.png").unlink()
    path = rewrite(source / "train/masks/b.png", lambda mask: np.where(mask == 3, 0, mask).astype(np.uint8))
    finding = only(check_source(source).problems, "tags-contradict-mask")
    assert finding.examples == [(str(path), "the tags of b have 3 (blue), the mask does not")]
    # What is tagged may lie in the void.
    rewrite(path, lambda mask: np.where(np.arange(WIDTH) < 9, 255, mask).astype(np.uint8))
    report = check_source(source)
    assert report.clean and only(report.warnings, "tags-contradict-mask")


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("b,red", "bb,red", "line 3: no image is called 'bb'"),
        ("b,red", "b,pink", "line 3: no class is called 'pink'"),
    ],
)
def test_lines_of_tags_that_fit_nothing(source, old, new, found):
    retag(source, old, new)
    finding = only(check_source(source).problems, "tags-file")
    ((file, text),) = finding.examples
    assert file == str(source / "tags.csv") and text.startswith(found) and "correct it" in finding.advice


def test_ids_that_classes_json_ignores_are_void(source):
    for path in source.glob("*/masks/*.png"):
        rewrite(path, lambda mask: outlined(mask, 9))
    assert "id 9" in only(check_source(source).problems, "id-out-of-range").examples[0][1]
    listing = json.loads((source / "classes.json").read_text())
    (source / "classes.json").write_text(json.dumps({**listing, "ignore": 9}))
    assert check_source(source).clean


def test_a_source_says_255_for_void_alone(source):
    redraw_source = [*source.glob("*/masks/*.png")]
    for path in redraw_source:
        rewrite(path, lambda mask: outlined(mask, CLASSES))
    finding = only([p for p in check_source(source).problems if p.kind == "void-code"], "void-code")
    assert 'write "ignore": 4 in classes.json' in finding.advice and "--ignore" not in finding.advice


def test_masks_in_a_folder_with_another_usual_name_are_read(source):
    (source / "train/masks").rename(source / "train/labels")
    report = check_source(source)
    assert report.clean and not report.warnings, str(report)
    assert (report.masks, report.unlabelled) == (7, 0)


def test_a_folder_beside_the_masks_is_pointed_out(source):
    shutil.copytree(source / "train/masks", source / "train/labels")
    finding = only(check_source(source).warnings, "folder-not-read")
    assert finding.examples == [(str(source / "train/labels"), "4 image files in a folder that is not read")]
    assert "rename it to masks" in finding.advice


def test_masks_in_a_folder_of_an_unknown_name_are_pointed_out(source):
    (source / "train/masks").rename(source / "train/drawn")
    finding = only(check_source(source).problems, "folder-not-read")
    assert finding.examples == [(str(source / "train/drawn"), "4 image files in a folder that is not read")]
