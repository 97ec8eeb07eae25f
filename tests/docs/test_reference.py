"""The pages of docs/reference that are generated are what the package says of itself."""

from __future__ import annotations

import importlib.util

import pytest

from tests.tiny import ROOT


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "docs/generate_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(script):
    return {path.stem: (path, text) for path, text in script.pages().items()}


@pytest.mark.parametrize("name", ["commands", "config_fields", "python"])
def test_a_page_is_current(name, pages):
    path, text = pages[name]
    assert path.read_text() == text, f"run python docs/generate_reference.py, which writes {path.relative_to(ROOT)}"


def test_every_flag_and_field_has_a_word_on_what_it_is(pages):
    rows = [line for line in pages["commands"][1].splitlines() if line.startswith("| `")]
    assert len(rows) > 60 and [row for row in rows if row.endswith("|  |")] == []
    lines = [line for line in pages["config_fields"][1].splitlines() if line.startswith("- `") and " (" in line]
    assert len(lines) > 200 and [line for line in lines if line.rstrip().endswith("):")] == []


def test_a_flag_is_written_as_it_is_given(pages):
    assert "| `PATH...` |  | image files" in pages["commands"][1]
    assert "| `--out DIR` | required | folder for" in pages["commands"][1]
    assert "scarce-jax predict RUN [PATH...] --out DIR\n" in pages["commands"][1]
    assert "| `--images N` | `12` |" in pages["commands"][1]


def test_every_field_of_a_config_is_there_with_what_it_takes(pages):
    text = pages["config_fields"][1]
    assert "\n- `class_weighting` (a number above 1 or None; default `None`): c in the class weights" in text
    assert (
        "\n- `net` ([pspnet](#pspnet) or [fcn](#fcn) or" in text
        and "\n- `net` ([detailer net](#detailer-net) or" in text
    )
    assert "\n- `lr` (a number above 0; required): peak learning rate" in text
    assert "\n- `groups` (a tuple of [Group](#group); default" in text
    for method in ("three_step", "detailer", "supervised"):
        assert f"### {method}\n" in text


def test_docstrings_are_no_markup(script):
    assert script.prose("a * b ** c, `x * y`, RUN/<stage> [B]") == r"a \* b \*\* c, `x * y`, RUN/\<stage> \[B\]"
    assert script.in_cell("a|b\n  c") == r"a\|b c"
