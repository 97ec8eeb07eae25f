"""The text of a report: problems first, a few files of each, counts of the others."""

from __future__ import annotations

import cv2
import numpy as np

from tests.doctor.examples import check, image_of, mask_of, only, redraw, rewrite


def test_many_files_with_one_fault_are_one_finding(folder):
    redraw(folder, lambda mask: mask[:, :100])
    finding = only(check(folder, coarse=False).problems, "size-mismatch")
    lines = str(finding).splitlines()
    assert lines[0] == "PROBLEM size-mismatch in 7 files; expected a mask as large as its image:"
    assert lines[1] == f"  {mask_of(folder, 'train/a')}: 100x96, its image a.jpg is 128x96"
    assert lines[6] == "  and 2 more" and lines[7].startswith("  To do: ") and len(lines) == 8
    assert finding.to_json()["count"] == 7 and len(finding.to_json()["files"]) == 5


def test_what_is_the_same_in_all_files_is_said_once(folder):
    redraw(folder, lambda mask: np.full_like(mask, 255))
    finding = only(check(folder, coarse=False).problems, "all-ignore")
    assert str(finding).count("every pixel is void") == 1
    assert str(finding).splitlines()[1] == f"  {mask_of(folder, 'train/a')}"


def test_every_wrong_id_is_told(folder):
    """The files that are shown have different ids, though those come last by name."""
    for name, value in (("train/a", 90), ("train/b", 90), ("train/c", 90), ("val/e", 77), ("val/f", 66), ("val/g", 55)):
        rewrite(mask_of(folder, name), lambda mask, value=value: np.where(np.arange(128) < 4, value, mask).astype("u1"))
    finding = only(check(folder, coarse=False).problems, "id-out-of-range")
    shown = " ".join(observed for _, observed in finding.examples)
    assert all(f"id {value} " in shown for value in (90, 77, 66, 55)) and finding.count == 6
    assert "in all, the masks have 0..3, 55, 66, 77, 90" in finding.advice


def test_problems_come_before_warnings_and_notes(folder):
    image_of(folder, "train/b").write_bytes(image_of(folder, "train/a").read_bytes())
    mask_of(folder, "val/g").write_bytes(b"")
    mask_of(folder, "val/f").unlink()
    report = check(folder, classes=None, coarse=False)
    starts = [line.split()[0] for line in str(report).splitlines() if not line.startswith(" ")]
    assert starts == ["Checked", "PROBLEM", "WARNING", "Note:", "Note:"]
    assert "1 problem, 1 warning." in str(report) and "1 image without a fine mask" in str(report)


def test_readings_of_what_was_seen_have_lines_of_their_own(folder):
    report = check(folder, classes=3, coarse=False)
    assert [line[:7] for line in str(report).splitlines() if line.startswith("    (")] == [
        "    (1)",
        "    (2)",
        "    (3)",
    ]


def test_many_ids_are_a_short_line(folder):
    noise = np.random.default_rng(0).integers(700, 9000, (96, 128)).astype(np.uint16)
    redraw(folder, lambda mask: noise)
    report = check(folder, classes=None, coarse=False)
    assert only(report.problems, "deep-mask").count == 7 and not report.warnings
    assert all(len(note) < 200 for note in report.notes) and "ids)" in report.notes[0]


def test_blended_masks_without_a_list_of_classes(folder):
    redraw(folder, lambda mask: cv2.GaussianBlur(mask * np.uint8(80), (5, 5), 1.5))
    warning = only(check(folder, classes=None, coarse=False).warnings, "blended-mask")
    assert warning.count == 7 and "nearest neighbour" in warning.advice
