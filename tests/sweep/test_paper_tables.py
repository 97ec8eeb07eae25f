"""Every table of a paper in a shipped config against `paper_tables.toml`, which was typed from the papers."""

import dataclasses
import functools
import re
import shlex
import tomllib

import pytest

from scarce_jax import methods
from scarce_jax.cli.common import load_config, parse_with_config
from scarce_jax.cli.train import Options
from scarce_jax.config_files import leaves, to_json
from scarce_jax.data.datasets import KNOWN
from scarce_jax.dry_run import planned_steps
from scarce_jax.recipe import Train
from scarce_jax.sweep.axes import combine
from scarce_jax.sweep.paper import departures, figures, own_figures, tables
from scarce_jax.sweep.table import make_table, planned_figures
from tests import tiny

PATHS = {path.stem: path for path in sorted((tiny.ROOT / "configs").glob("*.py"))}
TYPED = tomllib.loads((tiny.ROOT / "tests/sweep/paper_tables.toml").read_text())
config_of = functools.cache(lambda name: load_config(PATHS[name]))
NONE, UNKNOWN = "", "?"


def test_every_table_was_typed_from_its_paper():
    named = {name: set(tables(config_of(name))) for name in PATHS}
    assert {name: tables for name, tables in named.items() if tables} == {k: set(v) for k, v in TYPED.items()}


def test_the_docs_have_the_command_of_every_table():
    page = (tiny.ROOT / "docs/papers.md").read_text()
    commands = re.findall(r"`scarce-jax sweep ([a-z]\w*) --over paper\.([a-z]\w*)`", page)
    assert sorted(commands) == sorted((name, table) for name, of in TYPED.items() for table in of)


def steps_of(run):
    """The steps of each training stage of a run, as they are typed."""
    info = KNOWN[run.config.dataset]
    recipe = methods.recipe_of(run.config, info)
    trained = [stage for stage in recipe.stages if isinstance(stage, Train)]
    steps = {stage.name: planned_steps(stage, recipe, run.config.budget, info) for stage in trained}
    return {name: UNKNOWN if count is None else count for name, count in steps.items()}


@pytest.mark.parametrize(("name", "table"), [(name, table) for name, of in TYPED.items() for table in of])
def test_a_table_trains_and_cites_what_the_paper_has(name, table):
    config, typed = config_of(name), TYPED[name][table]
    _, runs = combine(config, {f"paper.{table}": None})
    for k, run in enumerate(runs):
        assert steps_of(run) == {stage: row[k] for stage, row in typed["steps"].items() if row[k] != NONE}
        values = leaves(to_json(run.config))
        for field, row in typed["settings"].items():
            assert (NONE if values[field] is None else values[field]) == row[k], field
        stated = planned_figures(run, config)
        assert (run.config.eval_split, stated["split"]) == (typed["measured"], typed["split"])
        for result, by_figure in typed.get("figures", {}).items():
            for figure, row in by_figure.items():
                found = stated["figures"].get(result, {}).get(figure, NONE)
                assert found == (NONE if row[k] == NONE else pytest.approx(row[k] / 100)), (result, figure)
        for kind, by_row in typed.get("rows", {}).items():
            for first, cells in by_row.items():
                expected = {column: pytest.approx(value / 100) for column, value in cells.items()}
                assert stated["figures"][kind][first] == expected
        # What the paper has no figure of is not trained for the table.
        assert set(run.config.results) == set(stated["figures"])
        # Figures of another split are not those of what is measured.
        beside = figures(run.config, config, table)
        alike = [beside.get(result) == of for result, of in stated["figures"].items()]
        assert all(alike) if typed["measured"] == typed["split"] else not any(alike)
    counts = {len(row) for column in ("settings", "steps") for row in typed[column].values()}
    assert counts == {len(runs)}


# The paper states 15.52 and 5.28.
@pytest.mark.parametrize(("less", "gain"), [("classifier", 0.15518), ("coarse", 0.05272)])
def test_the_gains_of_the_abstract_follow_from_the_figures_of_the_table(less, gain):
    config = config_of("detailer_cityscapes")
    axes, runs = combine(config, {"paper.table_1": None})
    cited = [figures(run.config, config, "table_1") for run in runs]
    made = {
        run.name: {
            "results": {name: {"miou": 0.0, "miou_at_size": next(iter(of.values()))} for name, of in row.items()}
        }
        for run, row in zip(runs, cited, strict=True)
    }
    found = {row["less"]: row for row in make_table(config, axes, runs, made, {})["gains"]}
    assert found[less]["mean"] == pytest.approx(gain, abs=1e-6)
    assert found[less]["mean"] == pytest.approx(found[less]["paper"], abs=2e-4)
    # It is over the rows of up to 200 images, and is not made of fewer.
    assert found[less]["over"] == {"budget.fine": [10, 25, 50, 100, 200]}
    del made[runs[0].name]
    assert make_table(config, axes, runs, made, {})["gains"][0]["mean"] is None


def test_the_command_that_trains_a_row_is_one_for_the_shell():
    original = config_of("transfer_voc_split1")
    changed = dataclasses.replace(
        original, budget=dataclasses.replace(original.budget, strong_categories=("split-set-2",))
    )
    (told,) = [line for line in departures(changed, original, "my configs/x.py") if "sweep" in line]
    words = shlex.split(told.partition("`")[2].partition("`")[0])
    assert words == ["scarce-jax", "sweep", "my configs/x.py", "--over", "paper.table_2=split-set-2"]
    assert combine(original, {"paper.table_2": ["split-set-2"]})[1]


def test_a_budget_with_the_steps_of_another_row_is_told(caplog):
    argv = [str(PATHS["decoupled_voc"]), "--budget.per-class"]
    with caplog.at_level("WARNING", logger="scarce_jax"):
        parse_with_config(Options, [*argv, "5"], "train", "")
        (record,) = caplog.records
        assert "decoupled.steps 5500 (here 7500)" in record.message and "--over paper.table_1=5`" in record.message
        caplog.clear()
        # Ten of each class are the file's own, and the paper has no row of seven.
        parse_with_config(Options, [*argv, "10"], "train", "")
        parse_with_config(Options, [*argv, "7"], "train", "")
        assert not caplog.records
    # Nobody is told of what he set himself, nor of a row that is met.
    config = config_of("detailer_cityscapes")
    for run in combine(config, {"paper.table_1": None})[1]:
        assert not [line for line in departures(run.config, config) if "table_1" in line]
    of_500 = combine(config, {"budget.fine": [500], "detailer.steps": [7], "classifier.steps": [7]})[1][0].config
    assert departures(of_500, config) == []


def test_figures_of_one_split_are_not_cited_for_another():
    config = config_of("auxiliary_camvid")
    assert own_figures(config, config).paper == config.paper
    on_val = combine(config, {"eval_split": ["val"]})[1][0].config
    assert own_figures(on_val, config).paper == {} and figures(on_val, config) == {}


def test_a_table_of_the_paper_goes_before_its_other_figures_for_the_same_settings():
    config = config_of("detailer_cityscapes")
    stated = {}
    for table in ("table_1", "table_3"):
        run = combine(config, {f"paper.{table}": [100]})[1][0]
        stated[table] = figures(run.config, config, table)["detailer"]
    assert stated == {"table_1": {"miou_at_size": 0.5661}, "table_3": {"miou_at_size": 0.5396}}
    assert figures(config, config)["detailer"] == {"miou_at_size": 0.5661}
