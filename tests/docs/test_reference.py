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


@pytest.mark.parametrize(("name", "least"), [("commands", 60), ("config_fields", 200)])
def test_every_flag_and_field_has_a_word_on_what_it_is(name, least, pages):
    rows = [line for line in pages[name][1].splitlines() if line.startswith("| `")]
    assert len(rows) > least and [row for row in rows if row.endswith("|  |")] == []


def test_a_flag_is_written_as_it_is_given(pages):
    assert "| `PATH...` |  | image files" in pages["commands"][1]
    assert "| `--out DIR` | required | folder for" in pages["commands"][1]
    assert "scarce-jax predict RUN [PATH...] --out DIR\n" in pages["commands"][1]
    assert "| `--images N` | `12` |" in pages["commands"][1]


def test_every_field_of_a_config_is_there_with_what_it_takes(pages):
    text = pages["config_fields"][1]
    rows = {line.split(" | ")[0][2:]: line for line in text.splitlines() if line.startswith("| `")}
    assert rows["`class_weighting`"].startswith("| `class_weighting` | a number above 1 or None | `None` | c in the")
    assert "[pspnet](#pspnet) or [fcn](#fcn)" in rows["`net`"] or "[detailer net](#detailer-net)" in rows["`net`"]
    assert "| `lr` | a number above 0 | required |" in text
    assert "[Group](#group)" in rows["`groups`"]
    for method in ("three_step", "detailer", "supervised"):
        assert f"### {method}\n" in text


def test_docstrings_are_no_markup(script):
    assert script.prose("a * b ** c, `x * y`, RUN/<stage> [B]") == r"a \* b \*\* c, `x * y`, RUN/\<stage> \[B\]"
    assert script.in_cell("a|b\n  c") == r"a\|b c"
