"""Sweeps: axes, names of runs, reuse of stages, the table and the paper's figures in it, the curve."""

import dataclasses
import json
import shutil

import jax
import pytest

from scarce_jax import mesh as mesh_lib
from scarce_jax.cli.common import load_config
from scarce_jax.data.images import read_image
from scarce_jax.errors import InputError
from scarce_jax.models.tiny import TinyConfig
from scarce_jax.sweep import sweep
from scarce_jax.sweep.axes import combine
from scarce_jax.sweep.plot import draw, drawn_rows
from scarce_jax.sweep.table import make_table, spread
from tests import tiny

CITYSCAPES = load_config(tiny.ROOT / "configs/detailer_cityscapes.py")
# As in the tests of the runner, whose compiled programs these then share.
DETAILER = tiny.detailer_config(compare=True, steps=3, eval_every=2)
SUPERVISED = tiny.supervised_config(steps=2)
OVER = {"compare": [False, True]}
ONE_DEVICE = mesh_lib.make_mesh(jax.devices()[:1])


@pytest.fixture(scope="module")
def swept(tmp_path_factory, tiny_data):
    """A finished sweep, and the table that the call returned."""
    folder = tmp_path_factory.mktemp("sweep")
    return folder, sweep(DETAILER, OVER, folder, data_dir=tiny_data, mesh=ONE_DEVICE)


def summaries(runs, **miou):
    """Made summaries: result -> one mIoU per run."""
    return {
        run.name: {
            "results": {
                name: {"miou": values[i], "mean_accuracy": values[i] / 2, "pixel_accuracy": 1.0}
                for name, values in miou.items()
            }
        }
        for i, run in enumerate(runs)
    }


def table_of(config, over, **miou):
    axes, runs = combine(config, over)
    return make_table(config, axes, runs, summaries(runs, **miou), {})


def names(config, over):
    return [run.name for run in combine(config, over)[1]]


def done(run):
    """When each stage was finished."""
    return {path.parent.name: path.stat().st_mtime_ns for path in run.glob("*/DONE")}


def test_equal_stages_of_all_other_runs_are_taken_over(swept, tiny_data, tmp_path):
    folder, table = swept
    plain, compared = (folder / f"compare={value}" for value in ("false", "true"))
    assert [row["runs"] for row in table["rows"]] == [[plain.name], [compared.name]]
    assert done(plain).keys() == {"detailer", "detail"} and done(compared).keys() == {
        "detailer",
        "detail",
        "classifier",
    }
    # The second run trained nothing but what the first had not.
    for stage in ("detailer", "detail"):
        assert (plain / stage / "DONE").samefile(compared / stage / "DONE")
    # A later sweep finds it all, in two folders.
    folder = shutil.copytree(folder, tmp_path / "copy")
    plain, compared = folder / plain.name, folder / compared.name
    shutil.rmtree(compared / "detail")
    later = sweep(DETAILER, {"seed": [0]}, folder, data_dir=tiny_data, mesh=ONE_DEVICE)
    assert (folder / "seed=0/detail/DONE").samefile(plain / "detail/DONE")
    assert (folder / "seed=0/classifier/DONE").samefile(compared / "classifier/DONE")
    assert later["rows"][0]["results"] == table["rows"][1]["results"]


def test_the_table_holds_what_the_runs_measured(swept):
    folder, table = swept
    assert table["axes"] == [{"fields": ["compare"], "values": [[False], [True]], "repeats": False}] and (
        table["failed"],
        table["missing"],
    ) == ({}, [])
    for row, name in zip(table["rows"], ("false", "true"), strict=True):
        measured = json.loads((folder / f"compare={name}/summary.json").read_text())["results"]
        assert list(row["results"]) == list(measured)
        for result, found in row["results"].items():
            for figure in ("miou", "mean_accuracy", "pixel_accuracy"):
                assert found[figure]["values"] == [measured[result][figure]] == [found[figure]["mean"]]
    first, second = (row["results"] for row in table["rows"])
    assert len(second) == len(first) + 2 and first["detailer"] == second["detailer"]
    assert read_image(folder / "curve.png").shape[0] > 300


def test_the_same_call_again_trains_nothing_and_holds_no_memory(swept, tiny_data):
    folder, table = swept
    before, arrays = [done(folder / name) for name in ("compare=false", "compare=true")], len(jax.live_arrays())
    assert sweep(DETAILER, OVER, folder, data_dir=tiny_data, mesh=ONE_DEVICE) == table
    assert json.loads((folder / "table.json").read_text()) == table
    assert [done(folder / name) for name in ("compare=false", "compare=true")] == before
    assert len(jax.live_arrays()) <= arrays


def test_a_run_begun_with_other_settings_fails_and_its_old_figures_are_not_shown(swept, tiny_data):
    changed = tiny.replaced(DETAILER, "classifier", net=TinyConfig(dropout=0.5))
    table = sweep(changed, {"compare": [True]}, swept[0], data_dir=tiny_data, mesh=ONE_DEVICE)
    assert "dropout: 0.1 -> 0.5" in table["failed"]["compare=true"]
    assert table["rows"][0]["results"] == {}


def test_mistakes_are_refused_before_anything_is_written(tmp_path, tiny_data):
    for over, message in (
        ({}, "give at least one --over"),
        ({"budget.fien": [1]}, "no field 'budget.fien'.*did you mean budget.fine"),
        ({"budget": [1]}, "no field 'budget' with a value"),
        ({"runtime.workers": [1, 2]}, "runtime.workers changes no result; .*--runtime.workers"),
        ({"seed": []}, "seed has no values"),
        ({"seed": [1, 2, 1]}, "seed has the value 1 twice"),
        ({"seed": [1], "seed+budget.seed": [(1, 1)]}, "seed is swept twice"),
        ({"seed+budget.seed": [(1, 2, 3)]}, "seed.budget.seed needs 2 values joined by .*found 3"),
        ({"seed": [1, "x"]}, "seed=x: config field seed: .*found 'x'"),
        ({"budget.fine": [4, 1.5]}, "budget.fine=1.5: config field budget.fine: .* less than 1 or .* found 1.5"),
        ({"segmenter.epochs": [1]}, "segmenter.epochs=1: segmenter: found .*exactly one of steps and epochs"),
        ({"dataset": ["scenes", "camvid"]}, "dataset camvid is not prepared"),
        ({"paper.table_1": None}, "no table paper.table_1; it has none"),
    ):
        with pytest.raises(InputError, match=message):
            sweep(SUPERVISED, over, tmp_path / "sweep", data_dir=tiny_data)
    assert not (tmp_path / "sweep").exists()


def test_folder_names_are_legible_and_distinct():
    assert names(SUPERVISED, {"seed": [0, 1], "segmenter.optim.lr": [0.1, 1e-5]}) == [
        "seed=0,segmenter.optim.lr=0.1", "seed=0,segmenter.optim.lr=1e-05",
        "seed=1,segmenter.optim.lr=0.1", "seed=1,segmenter.optim.lr=1e-05",
    ]  # fmt: skip
    assert names(SUPERVISED, {"segmenter.size": [(32, 48)], "segmenter.remat": [True], "budget.per_class": [None]}) == [
        "segmenter.size=32x48,segmenter.remat=true,budget.per_class=none"
    ]
    files = names(SUPERVISED, {"budget.fine": ["lists/a,b 1.txt", "lists/a-b 1.txt", "x" * 300]})
    assert len(set(files)) == 3 and all(len(name) < 60 and "/" not in name and "," not in name for name in files)
    assert files[0].startswith("budget.fine=lists-a-b-1.txt-")


def test_mean_and_spread_by_hand():
    over = {"segmenter.net.width": [4, 8], "seed": [0, 1, 2]}
    table = table_of(SUPERVISED, over, segmenter=[0.5, 0.6, 0.85, 0.25, 0.75, 0.5])
    first, second = (row["results"]["segmenter"] for row in table["rows"])
    assert first["miou"]["values"] == [0.5, 0.6, 0.85] and first["miou"]["n"] == 3 and first["miou"]["paper"] is None
    assert first["miou"]["mean"] == pytest.approx(0.65)
    assert first["miou"]["half_range"] == pytest.approx(0.175)
    assert first["miou"]["std"] == pytest.approx(((0.15**2 + 0.05**2 + 0.2**2) / 2) ** 0.5)
    assert first["mean_accuracy"]["mean"] == pytest.approx(0.325) and first["pixel_accuracy"]["half_range"] == 0
    assert second["miou"]["std"] == 0.25 == second["miou"]["half_range"]
    assert [row["values"] for row in table["rows"]] == [{"segmenter.net.width": 4}, {"segmenter.net.width": 8}]
    # A class that is nowhere leaves no figure, and a run that is not done none of its own.
    assert spread([None, 0.25, None]) == {
        "mean": 0.25, "half_range": 0.0, "std": None, "n": 1, "values": [None, 0.25, None]
    }  # fmt: skip
    assert spread([None])["mean"] is None and spread([None])["n"] == 0


def test_means_over_groups_of_classes_have_their_place():
    axes, runs = combine(SUPERVISED, {"seed": [0, 1]})
    figures = {"miou": 0.5, "mean_accuracy": 0.5, "pixel_accuracy": 0.5, "miou_at_size": 0.5}
    found = {
        run.name: {"results": {"segmenter": {**figures, "miou_weak": value}}}
        for run, value in zip(runs, (0.25, 0.75), strict=True)
    }
    (row,) = make_table(SUPERVISED, axes, runs, found, {})["rows"]
    result = row["results"]["segmenter"]
    assert set(result) == {"miou", "miou_at_size", "mean_accuracy", "pixel_accuracy", "miou_weak"}
    assert (result["miou_weak"]["mean"], result["miou_weak"]["half_range"]) == (0.5, 0.25)


def test_results_of_tags_have_their_own_figures_and_are_not_drawn_beside_masks(tmp_path):
    axes, runs = combine(SUPERVISED, {"segmenter.net.width": [4, 8]})
    masks, tags = {"miou": 0.5, "mean_accuracy": 0.5, "pixel_accuracy": 0.5}, {"map": 0.75, "mean_f1": 0.25}
    found = {run.name: {"results": {"segmenter": masks, "classifier": tags}} for run in runs}
    table = make_table(SUPERVISED, axes, runs, found, {})
    result = table["rows"][0]["results"]["classifier"]
    assert set(result) == {"map", "mean_f1"} and result["map"]["mean"] == 0.75
    rows, heading = drawn_rows(table["rows"])
    assert heading == "mIoU" and [list(row["results"]) for row in rows] == [["segmenter"]] * 2
    alone = {run.name: {"results": {"tags": tags}} for run in runs}
    table = make_table(SUPERVISED, axes, runs, alone, {})
    rows, heading = drawn_rows(table["rows"])
    assert heading == "mAP of tags" and rows[0]["results"]["tags"]["figure"]["mean"] == 0.75
    draw(table, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_draws_and_seeds_can_change_together_as_repeats():
    table = table_of(SUPERVISED, {"seed+budget.seed": [(0, 0), (1, 5)]}, segmenter=[0.5, 0.7])
    assert table["rows"][0]["values"] == {} and table["rows"][0]["runs"] == [
        "seed=0,budget.seed=0",
        "seed=1,budget.seed=5",
    ]
    assert table["rows"][0]["results"]["segmenter"]["miou"]["mean"] == pytest.approx(0.6)


def test_the_papers_figures_stand_beside_its_own_settings_alone():
    over = {"budget.fine": [10, 30, 100, 500], "seed": [0]}
    cited = CITYSCAPES.paper["table_1"]
    ours = dict(detailer=[0.1] * 4, coarse=[0.2] * 4, classifier=[0.3] * 4)
    rows = table_of(CITYSCAPES, over, **ours)["rows"]
    # Its figures are those at 340 x 340, but for that of the coarse masks.
    assert all(row["results"]["detailer"]["miou"]["paper"] is None for row in rows)
    figures = {"detailer": "miou_at_size", "coarse": "miou", "classifier": "miou_at_size"}
    paper = [{name: row["results"][name][figure]["paper"] for name, figure in figures.items()} for row in rows]
    assert paper == [
        {"detailer": cited["detailer"][0], "coarse": 0.4781, "classifier": cited["classifier"][0]},
        {"detailer": None, "coarse": None, "classifier": None},
        {"detailer": cited["detailer"][3], "coarse": 0.4781, "classifier": cited["classifier"][3]},
        # The paper trains nine times as many steps on 500 images.
        {"detailer": None, "coarse": None, "classifier": None},
    ]


def test_figures_of_classes_and_of_the_tables_of_a_method_stand_beside():
    cited = {
        "segmenter": {"miou": 0.75, "crab": 0.5},
        "kept": {"0.5": {"share": 0.25}},
        "table": {"budget.fine": [8], "segmenter": [{"miou": 0.75, "crab": 0.5}], "kept": [{"0.5": {"share": 0.25}}]},
    }
    config = dataclasses.replace(SUPERVISED, paper=cited)
    axes, runs = combine(config, {"paper.table": None})
    per_class = {"crab": 0.4, "eel": 0.6}
    kept = {"columns": ["threshold", "share"], "rows": [[0.5, 0.2], [0.9, 0.1]], "auroc": 0.5}
    found = {runs[0].name: {"results": {"segmenter": {"miou": 0.5, "per_class": per_class}}, "tables": {"kept": kept}}}
    (row,) = make_table(config, axes, runs, found, {})["rows"]
    assert row["results"]["segmenter"]["per_class"] == {"crab": {"mean": 0.4, "paper": 0.5}}
    assert row["results"]["segmenter"]["miou"]["paper"] == 0.75
    beside = {"columns": ["threshold", "share", "paper's share"], "rows": [[0.5, 0.2, 0.25], [0.9, 0.1, None]]}
    assert row["tables"] == {"kept": {**kept, **beside}}
    assert runs[0].config.results == ("segmenter", "kept")


def test_the_papers_rows_can_be_swept():
    axes, runs = combine(CITYSCAPES, {"paper.table_1": [25, 500], "seed": [1]})
    assert [run.name for run in runs] == [
        f"budget.fine={fine},detailer.steps={steps},classifier.steps={steps},seed=1"
        for fine, steps in ((25, 10_000), (500, 90_000))
    ]
    assert axes[0].fields == ("budget.fine", "detailer.steps", "classifier.steps")
    for run, (fine, steps) in zip(runs, [(25, 10_000), (500, 90_000)], strict=True):
        config = run.config
        assert (config.budget.fine, config.detailer.steps, config.classifier.steps) == (fine, steps, steps)
        assert (config.seed, config.student.steps) == (1, CITYSCAPES.student.steps)
    rows = make_table(CITYSCAPES, axes, runs, summaries(runs, detailer=[0.5, 0.6]), {})["rows"]
    assert [row["results"]["detailer"]["miou_at_size"]["paper"] for row in rows] == [0.5134, 0.6045]
    assert len(combine(CITYSCAPES, {"paper.table_1": None})[1]) == len(CITYSCAPES.paper["table_1"]["budget.fine"])
    # Rows whose first values are equal are different rows.
    table = {"budget.fine": [25, 25, 100], "detailer.steps": [1, 2, 3]}
    repeated = dataclasses.replace(CITYSCAPES, paper={"table": table})
    steps = [run.config.detailer.steps for run in combine(repeated, {"paper.table": None})[1]]
    assert steps == [1, 2, 3]
    assert len(combine(repeated, {"paper.table": [25]})[1]) == 2
    with pytest.raises(InputError, match="paper.table_1 has no row 11; it has 10, 25,"):
        combine(CITYSCAPES, {"paper.table_1": [11]})
    paper = {"table": {"budget.fine": [1, 2], "detailer": [0.5]}}
    with pytest.raises(InputError, match="paper.table: its columns have"):
        combine(dataclasses.replace(CITYSCAPES, paper=paper), {"paper.table": None})


def test_a_setting_that_the_paper_does_not_state_is_not_compared_with_it():
    over = {"detailer.net.inject": ["before_pool", "after_pool"]}
    rows = table_of(CITYSCAPES, over, detailer=[0.4, 0.5], coarse=[0.4, 0.4])["rows"]
    figures = {"detailer": "miou_at_size", "coarse": "miou"}
    paper = [tuple(row["results"][name][figure]["paper"] for name, figure in figures.items()) for row in rows]
    assert paper == [(None, None), (0.5661, 0.4781)]


@pytest.mark.parametrize(
    ("over", "panels"),
    [
        ({"budget.fine": [10, 25, 2975], "seed": [0, 1]}, 1),
        ({"detailer.net.inject": ["before_pool", "after_pool"], "budget.fine": [10, 25], "seed": [0, 1]}, 2),
        ({"detailer.net.inject": ["before_pool", "after_pool"], "seed": [0]}, 1),
        ({"budget.fine": ["all", 10]}, 1),
        ({"seed": [0, 1]}, 1),
    ],
)
def test_a_curve_is_drawn_for_every_kind_of_axis(over, panels, tmp_path):
    count = len(combine(CITYSCAPES, over)[1])
    table = table_of(CITYSCAPES, over, detailer=[0.5 + 0.01 * i for i in range(count)], coarse=[0.4] * count)
    draw(table, tmp_path / "curve.png")
    height, width, _ = read_image(tmp_path / "curve.png").shape
    assert height > 400 and (width > 1500) == (panels > 1)
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


def test_nothing_done_draws_too(tmp_path):
    axes, runs = combine(SUPERVISED, {"segmenter.net.width": [4, 8]})
    table = make_table(SUPERVISED, axes, runs, {}, {run.name: "why" for run in runs})
    draw(table, tmp_path / "curve.png")
    assert [row["results"] for row in table["rows"]] == [{}, {}] and (tmp_path / "curve.png").exists()
