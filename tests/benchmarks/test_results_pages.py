"""The tables of the documentation are those of benchmarks/results."""

from __future__ import annotations

import importlib
import json
import runpy
import sys

import pytest

from tests.tiny import ROOT


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("results_pages")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def line(seed, miou, *, title="t", fine=50, **results):
    others = {name: {"miou": value} for name, value in results.items()}
    content = {"pnet": {"columns": ["images", "true"], "rows": [["strong", 0.5], ["weak", 0.25]]}}
    return {
        "title": title,
        "config": {"seed": seed, "budget": {"fine": fine}},
        "seconds": 61.4,
        "stage_seconds": {"semi": 12.3},
        "results": {
            "semi": {"miou": miou, "per_class": {"cat": 2 * miou}, "precision_per_class": {"cat": 0.9}},
            **others,
        },
        "tables": content,
    }


@pytest.fixture
def fill(script, tmp_path):
    """Fills a table of the rows of a description, from lines of a file; returns the rows and the sentence below."""

    def fill(lines, described):
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
        page = f'before\n\n<!-- results\nfile = "a.jsonl"\n{described}\n-->\nold\n<!-- end of results -->\nafter\n'
        filled = script.filled(page, tmp_path)
        assert filled.startswith("before\n\n<!-- results\nfile") and filled.endswith("<!-- end of results -->\nafter\n")
        assert script.filled(filled, tmp_path) == filled and "old" not in filled
        table, sentence = filled.split("-->\n\n")[1].split("\n\n")[:2]
        return table.splitlines()[2:], sentence

    return fill


def test_every_table_of_the_documentation_is_current(script):
    texts = {page.relative_to(ROOT): page.read_text() for page in script.pages()}
    behind = [str(name) for name, text in texts.items() if script.filled(text) != text]
    assert not behind, f"{', '.join(behind)}: run python benchmarks/results_pages.py"
    assert sum(len(script.TABLE.findall(text)) for text in texts.values()) > 10


def test_the_first_column_has_its_heading(script, tmp_path):
    described = {"heading": "frames", "columns": {"a": {}}, "rows": {"b": {"text": {"a": "1"}}}}
    assert script.table(described, tmp_path).startswith("| frames | a |\n| --- | --- |\n| b | 1 |\n")


SEMI = 'title = "t"\nresult = "semi"\n[columns]\n"mIoU" = { figure = "miou" }\n[rows]\n"`semi`" = { seconds = 0 }'


def test_a_cell_is_the_mean_of_the_newest_line_of_each_seed(fill):
    lines = [line(0, 0.9), line(1, 0.3), line(0, 0.2), line(0, 0.8, title="another")]
    assert fill(lines, SEMI) == (
        ["| `semi` | 0.250 ± 0.050 |"],
        "*Means of seeds 0, 1 ± half their range. Lines of `benchmarks/results/a.jsonl`.*",
    )
    assert fill(lines[:1], SEMI) == (["| `semi` | 0.900 |"], "*One seed. Lines of `benchmarks/results/a.jsonl`.*")


def test_results_of_two_runs_with_one_seed_stand_side_by_side(fill):
    described = """figure = "miou"
[columns]
"semi" = { result = "semi" }
"other" = { result = "other" }
[rows]
"both" = { title = "t" }"""
    alone, beside = line(0, 0.2), line(0, 0.4, other=0.7)
    assert fill([beside, alone], described)[0] == ["| both | 0.200 | 0.700 |"]
    assert fill([alone, beside], described)[0] == ["| both | 0.400 | 0.700 |"]


def test_columns_and_rows_say_what_their_cells_are(fill):
    rows, sentence = fill(
        [line(0, 0.2, other=0.7), line(0, 0.4, fine=25), line(1, 0.6, title="u"), line(2, 0.8, title="u")],
        """title = "t"
budget = { fine = 50 }
result = "semi"
figure = "miou"
[columns]
"mIoU" = {}
"cat" = { figure = "IoU of cat" }
"right" = { figure = "precision", class = "cat" }
"s" = { figure = "seconds", decimals = 0 }
"stage" = { figure = "stage_seconds of semi" }
"true" = { table = "pnet", row = "weak", column = "true" }
[rows]
"few" = { budget = { fine = 25 } }
"other" = { result = "other", only = ["mIoU"], text = { "cat" = "by hand" } }
"cited" = { text = { "mIoU" = "0.7" } }
"two" = { title = "u", only = ["mIoU"] }""",
    )
    assert rows == [
        "| few | 0.400 | 0.800 | 0.900 | 61 | 12.300 | 0.250 |",
        "| other | 0.700 | by hand |  |  |  |  |",
        "| cited | 0.7 |  |  |  |  |  |",
        "| two | 0.700 ± 0.100 |  |  |  |  |  |",
    ]
    assert "without ±, one seed" in sentence


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (('title = "t"', 'title = "T"'), "no line with the title 'T'"),
        (('"semi"', '"smei"'), "'smei'"),
        (('"miou"', '"mIoU"'), "'mIoU'"),
        (('"miou"', '"IoU of dog"'), "'dog'"),
        (('figure = "miou"', 'table = "pnet", row = "none", column = "true"'), "'true'"),
        (("seconds = 0", 'file = "b.jsonl"'), "no file b.jsonl"),
        (("seconds = 0", "budget = { fine = 7 }"), "no line with the title 't' and {'fine': 7}"),
        (("seconds = 0", 'text = { "miou" = "1" }'), "row '`semi`': no column miou"),
        (("[columns]", "[columns"), "Expected ']'"),
    ],
)
def test_a_description_that_names_what_is_not_there_is_an_error(change, found, fill):
    with pytest.raises(ValueError) as error:
        fill([line(0, 0.5)], SEMI.replace(*change))
    assert found in str(error.value)


def test_the_lines_of_runs_are_what_the_tables_read(fill, tmp_path, monkeypatch):
    config = {"seed": 0, "budget": {"fine": 50}, "segmenter": {"init_from": "/home/me/w.npz"}}
    config["semi"] = {"init_from": "/home/me/runs/a:segmenter/segmenter"}
    facts = {"config": config, "git_revision": "abc", "versions": {"jax": "0"}, "devices": ["cpu"], "python": "3"}
    semi = {"images": 3, "miou": 0.5, "coverage": 0.6, "precision_per_class": {"cat": 0.25}, "confusion": [[1]]}
    summary = {"seconds": 9.0, "stages": [{"name": "semi", "seconds": 8.0}], "results": {"semi": semi}}
    for name, content in {"config": facts, "summary": summary}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    flags = ["--title", "t", "--append", str(tmp_path / "b.jsonl")]
    monkeypatch.setattr(sys, "argv", ["results_table.py", *flags, str(tmp_path)])
    runpy.run_path(str(ROOT / "benchmarks" / "results_table.py"), run_name="__main__")
    (appended,) = map(json.loads, (tmp_path / "b.jsonl").read_text().splitlines())
    assert appended["config"]["segmenter"] == {"init_from": "w.npz"}
    assert appended["config"]["semi"] == {"init_from": "a:segmenter/segmenter"}
    assert "confusion" not in appended["results"]["semi"] and "python" not in appended
    described = SEMI.replace("figure", "file = 'b.jsonl', figure")
    rows, _ = fill(
        [], described.replace("[rows]", '"right" = { file = "b.jsonl", figure = "precision of cat" }\n[rows]')
    )
    assert rows == ["| `semi` | 0.500 | 0.250 |"]


def test_budgets_are_not_mixed(fill):
    with pytest.raises(ValueError, match="several budgets"):
        fill([line(0, 0.5), line(1, 0.5, fine=25)], SEMI)


def test_a_table_without_an_end_is_an_error(script):
    with pytest.raises(ValueError, match="lacks"):
        script.filled("<!-- results\nfile = 'a.jsonl'\n-->\n")
