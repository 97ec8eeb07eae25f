"""What is there to learn from and to measure by: labels in each split, pixels of each class; few labels are normal."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np

from scarce_jax.doctor import check_folders, check_source
from scarce_jax.doctor.coverage import absent_classes, absent_notes, one_class
from scarce_jax.doctor.facts import Examined, Example, Expected, Facts, MaskFacts
from tests.doctor.examples import check, only, redraw, rewrite


def drop(folder, split: str) -> None:
    for kind in ("masks", "coarse"):
        for path in (folder / kind / split).iterdir():
            rewrite(path, lambda mask: np.where(mask == 3, 0, mask).astype(np.uint8))


def test_a_class_that_few_masks_lack_is_a_note(folder):
    drop(folder, "val")
    report = check(folder)
    assert not report.findings
    assert [note for note in report.notes if "3 of 4 classes are in the 3 masks of val (not 3 (class 3))" in note]


def test_five_masks_of_150_classes_are_one_note(folder):
    report = check(folder, classes=150, coarse=False)
    assert not report.findings and len(report.notes) == 1
    assert "4 of 150 classes are in the 4 masks of train; 4 of 150 classes are in the 3 masks of val" in report.notes[0]
    assert len(str(report).splitlines()) == 2


def examined(split: str, masks: int, names: int, shown: int) -> Examined:
    """`masks` masks, each of which shows the first `shown` classes."""
    counts = dict.fromkeys(range(shown), 9)
    examples = [Example(split=split, name=str(k), image=f"{k}.jpg", mask=f"{k}.png") for k in range(masks)]
    facts = [Facts(example=example, fine=MaskFacts(example.mask, dict(counts), {})) for example in examples]
    return Examined(facts=facts, expected=Expected(names=tuple(f"class {k}" for k in range(names))), where="here")


def test_a_class_that_many_masks_lack_is_a_warning():
    few, many = examined("train", 13, 4, 3), examined("train", 14, 4, 3)
    assert list(absent_notes(few)) and not list(absent_classes(few))
    assert not list(absent_notes(many))
    warning = only(list(absent_classes(many)), "empty-class")
    assert not warning.certain and "nothing can be learned" in warning.advice
    assert warning.examples[0][1] == "1 of 4 classes in none of 14 masks of train: 3 (class 3)"
    measured = only(list(absent_classes(examined("val", 14, 4, 3))), "empty-class")
    assert "left out of the mean" in measured.advice and "in val" in measured.expected


def test_ids_without_a_class_explain_the_absent_ones():
    """Grey levels 0, 127, 254 leave two classes without a pixel, which is no fault of its own."""
    few = examined("train", 2, 3, 1)
    few.facts[0].fine.counts.update({127: 9, 254: 9})
    assert not list(absent_notes(few))


def test_one_id_in_all_masks(folder):
    redraw(folder, lambda mask: mask * np.uint8(0))
    for classes in (None, 4):
        finding = only(check(folder, classes=classes, coarse=False).problems, "one-class")
        assert finding.count == 7 and finding.examples[0][1].startswith("only id 0")


def test_one_class_among_ids_that_the_user_does_not_see():
    """Where files have other ids than class indices, 255 may be any void id of the files, and no object."""
    one = examined("train", 2, 2, 1)
    one.facts[0].fine.counts[255] = 9
    plain, mapped = one.expected, dataclasses.replace(one.expected, plain=False)
    for expected, advice in ((plain, "if 255 is an object"), (mapped, "nothing can be learned from one class")):
        findings = list(one_class(dataclasses.replace(one, expected=expected)))
        assert findings and all(finding.advice.startswith(advice) for finding in findings)


def test_no_label_at_all(source):
    for split in ("train", "val"):
        for kind in ("masks", "coarse"):
            shutil.rmtree(source / split / kind)
    report = check_source(source)
    assert report.clean  # tags alone are labels
    warning = only(report.warnings, "no-fine-masks")
    assert warning.examples[0][1] == "none of 3 images of val has a fine mask"
    (source / "val").rename(source / "test")  # whose labels are often kept back
    assert not check_source(source).findings
    (source / "test").rename(source / "val")
    (source / "tags.csv").unlink()
    finding = only(check_source(source).problems, "no-labels")
    assert finding.examples[0] == (str(source), "none of 7 images has a label")


def test_a_split_without_fine_masks_cannot_be_measured(source):
    shutil.rmtree(source / "val/masks")
    report = check_source(source)
    assert report.clean and only(report.warnings, "no-fine-masks").advice.startswith("add some")
    assert check_source(source).unlabelled == 3


def test_masks_that_fit_no_image_are_told_alone(folder):
    shutil.rmtree(folder / "coarse")
    for number, path in enumerate(list((folder / "masks").rglob("*.png"))):
        path.rename(folder / f"masks/other{'x' * number}.png")
    report = check_folders(folder / "images", folder / "masks", classes=4)
    assert only(report.problems, "mask-without-image").count == 7 and not report.warnings


def test_classes_json_with_a_class_too_many(source):
    listing = json.loads((source / "classes.json").read_text())
    listing["classes"].append("bird")
    listing["palette"].append([9, 9, 9])
    (source / "classes.json").write_text(json.dumps(listing))
    report = check_source(source)
    assert not report.findings and any("not 4 (bird)" in note for note in report.notes)


def test_void_alone_is_told_once(source):
    """Masks without a labelled pixel are a fault of their own, and no reason to list the classes that they lack."""
    for path in source.glob("val/masks/*.png"):
        rewrite(path, lambda mask: np.full_like(mask, 255))
    for path in source.glob("val/coarse/*.png"):
        path.unlink()
    report = check_source(source)
    assert only(report.problems, "all-ignore") and not any("classes are in" in note for note in report.notes)
