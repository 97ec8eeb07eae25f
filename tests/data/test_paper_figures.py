"""Figures of papers: rows as printed, the forms in a config, and beside those of a run."""

import pytest

from scarce_jax.cli.train import _results
from scarce_jax.data.figures import beside, cited, numbers, printed

TABLE = {"budget.fine": [1, 2], "main": [0.5, {"miou": 0.6, "crab": 0.1}], "kept": [None, {"0.9": {"share": 1}}]}
PAPER = {
    "figure": "miou_at_size",
    "main": 0.5,
    "other": {"miou": 0.25, "crab": 0.125},
    "kept": {"0.9": {"share": 0.75}},
    "table_1": {
        "budget.fine": [1, 2],
        "main": [0.5, {"miou": 0.6, "crab": 0.1}],
        "kept": [None, {"0.9": {"share": 1}}],
    },
    "gains": [{"table": "table_1"}],
}


def test_a_printed_row_becomes_shares():
    assert printed(("sky", "miou"), "97.4 8.05") == {"sky": 0.974, "miou": 0.0805}
    with pytest.raises(ValueError):
        printed(("sky", "car", "miou"), "97.4 8.05")


def test_a_single_number_is_of_the_figure_that_the_config_names():
    assert cited(PAPER) == {
        "main": {"miou_at_size": 0.5},
        "other": {"miou": 0.25, "crab": 0.125},
        "kept": {"0.9": {"share": 0.75}},
    }
    assert cited({"main": 0.5}) == {"main": {"miou": 0.5}}


def test_the_report_has_one_number_of_each_result():
    table = {"budget.fine": [1, 2], "main": [0.5, 0.6], "kept": [None, {"share": 1}]}
    assert numbers(PAPER) == {"figure": "miou_at_size", "main": 0.5, "other": 0.25, "table_1": table}


def test_rows_of_a_table_find_their_figures_by_the_first_cell():
    table = {"columns": ["threshold", "mIoU", "share"], "rows": [[0.0, 0.5, 1.0], [0.9, 0.6, 0.7]], "auroc": 1}
    found = beside(table, PAPER["kept"])
    assert found["columns"] == ["threshold", "mIoU", "share", "paper's share"] and found["auroc"] == 1
    assert found["rows"] == [[0.0, 0.5, 1.0, None], [0.9, 0.6, 0.7, 0.75]]
    assert beside(table, {}) == table
    classes = {"columns": ["class", "IoU at 0"], "rows": [["traffic sign", 0.5]]}
    assert beside(classes, {"traffic sign": {"IoU at 0": 0.7}})["rows"] == [["traffic sign", 0.5, 0.7]]


def test_the_printed_results_have_the_papers_figure_under_its_own_name():
    figures = {"miou": 0.4, "miou_at_size": 0.45, "mean_accuracy": 0.6, "pixel_accuracy": 0.9, "per_class": {"a": 0.4}}
    summary = {"results": {"main": {**figures, "images": 7}, "third": {**figures, "images": 7}}}
    header, _, first, second = _results(summary, cited(PAPER)).strip().splitlines()
    assert header.split("  ")[-1].strip() == "paper's mIoU at size" and "mIoU at size" in header.replace(
        "paper's mIoU", ""
    )
    assert first.split()[1:3] == ["0.4000", "0.4500"] and first.split()[-1] == "0.5000"
    assert second.split()[-1] == "-"
    assert "paper" not in _results(summary, {})
