"""Ids of void, and ids that look like void."""

from __future__ import annotations

import numpy as np
import pytest

from tests.doctor.examples import (
    CLASSES,
    WIDTH,
    check,
    only,
    outlined,
    redraw,
)


def test_void_as_zero_shifts_all_ids(folder):
    redraw(folder, lambda mask: outlined((mask + 1).astype(np.uint8), 0))
    shifted = only(check(folder, coarse=False).problems, "void-code")
    assert shifted.count == 7 and "save 0 as 255 and every class one lower" in shifted.advice
    unknown = check(folder, classes=None, coarse=False)
    assert unknown.clean
    warning = only(unknown.warnings, "void-code")
    assert "id 0 is thin" in warning.examples[0][1] and "--ignore 0" in warning.advice


@pytest.mark.parametrize("bits", [8, 16])
def test_void_as_minus_one(folder, bits):
    dtype = np.uint8 if bits == 8 else np.uint16
    redraw(folder, lambda mask: outlined(mask.astype(dtype), 2**bits - 1))
    report = check(folder, coarse=False)
    if bits == 8:
        assert report.clean and not report.warnings, str(report)
        return
    finding = only(report.problems, "void-code")
    assert "id 65535" in finding.examples[0][1] and "-1 in unsigned 16 bits" in finding.advice and finding.count == 7


def test_void_as_the_highest_id(folder):
    redraw(folder, lambda mask: outlined(mask, CLASSES))
    finding = only(check(folder, coarse=False).problems, "void-code")
    assert "borders of the others" in finding.advice and f"--ignore {CLASSES}" in finding.advice
    assert check(folder, coarse=False, ignore=CLASSES).clean
    for classes in (None, CLASSES + 1):  # it may be a class: only suspicious
        report = check(folder, classes=classes, coarse=False)
        assert report.clean
        assert f"--ignore {CLASSES}" in only(report.warnings, "void-code").advice


def test_an_id_far_beyond_the_others(folder):
    redraw(folder, lambda mask: np.where(np.arange(WIDTH) < 12, 100, mask).astype(np.uint8))
    report = check(folder, classes=None, coarse=False)
    assert report.clean and "--ignore 100" in only(report.warnings, "void-code").advice


def test_an_ignore_id_that_no_mask_has(folder):
    redraw(folder, lambda mask: outlined(mask, 255))
    warning = only(check(folder, ignore=11, coarse=False).warnings, "void-code")
    assert "leave --ignore out" in warning.advice


def test_black_and_white_masks(folder):
    redraw(folder, lambda mask: np.where(mask > 0, 255, 0).astype(np.uint8))
    finding = only(check(folder, classes=None, coarse=False).problems, "one-class")
    assert "1 if 0 is the background" in finding.advice and finding.count == 7


def test_a_class_called_void(folder, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("sky\nroad\ncar\nvoid\n")
    assert "3 (void)" in only(check(folder, classes=names).warnings, "void-class").examples[0][1]


def test_void_of_255_classes_is_no_shift(folder):
    """255 is the id after the last class, and is void."""
    redraw(folder, lambda mask: outlined(np.where(mask == 0, 255, mask).astype(np.uint8), 0))
    report = check(folder, classes=255, coarse=False)
    assert report.clean and only(report.warnings, "void-code").advice.startswith("this is how void is drawn")
