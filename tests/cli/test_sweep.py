"""`sweep` through the command line: values as flags have them, the printed table, failures, interruption."""

import contextlib
import io
import json
import re
import shutil
import signal

import numpy as np
import pytest

from scarce_jax.cli import main
from scarce_jax.cli.sweep import _planned, parse_axis
from scarce_jax.training import loop
from tests import tiny
from tests.cli.conftest import CONFIGS, Finished, shrunk

CONFIG = CONFIGS / "supervised_scenes.py"
NAME = "budget.fine={0},detailer.steps={1},classifier.steps={1}"


def words(folder, data, *flags, steps=2):
    base = ["sweep", CONFIG, "--workdir", folder, "--data-dir", data, *shrunk("segmenter", steps=steps)]
    return [*base, "--runtime.log-every", 1, "--runtime.workers", 1, *flags]


@pytest.mark.parametrize(
    ("over", "key", "values"),
    [
        ("budget.fine=10,0.5,all", "budget.fine", [10, 0.5, "all"]),
        ("compare=true,False", "compare", [True, False]),
        ("detailer.size=[64,96],[32,48]", "detailer.size", [[64, 96], [32, 48]]),
        ("detailer.optim.groups.0.lr=1e-4,-1", "detailer.optim.groups.0.lr", [1e-4, -1]),
        ("budget.strong-categories=['car','tree']", "budget.strong_categories", [["car", "tree"]]),
        ("detailer.epochs+detailer.steps=2.5+none,None+7", "detailer.epochs+detailer.steps", [(2.5, None), (None, 7)]),
        ("budget.fine='a,b c+d.txt',\"e,f\",g.txt", "budget.fine", ["a,b c+d.txt", "e,f", "g.txt"]),
        ("paper.table_1=10,25", "paper.table_1", [10, 25]),
        ("paper.table_1", "paper.table_1", None),
    ],
)
def test_values_are_written_as_in_a_config(over, key, values):
    assert parse_axis(over) == (key, values)
    assert values is None or [type(value) for value in parse_axis(over)[1]] == [type(value) for value in values]


def test_a_dry_run_prints_the_product_of_axes_and_writes_nothing(command, tmp_path):
    argv = ["sweep", CONFIGS / "detailer_cityscapes.py", "--workdir", tmp_path / "sweep", "--dry-run"]
    argv += ["--over", "paper.table_1=200,2975", "--over", "seed=0,1", "--compare"]
    found = command(*argv, "--json")
    assert found.status == 0 and list(tmp_path.iterdir()) == []
    # The table shows neither students nor composites, and nothing is trained for them.
    assert {run["run"]: {s["name"]: s["steps"] for s in run["stages"]} for run in found.json["runs"]} == {
        f"{NAME.format(fine, steps)},seed={seed}": {"detailer": steps, "classifier": steps}
        for fine, steps in ((200, 10_000), (2975, 90_000))
        for seed in (0, 1)
    }
    assert {(run["dataset"], run["split"], run["paper"]["split"]) for run in found.json["runs"]} == {
        ("cityscapes", "val", "val")
    }
    out = command(*argv).out
    assert re.search(rf"^{NAME.format(2975, 90000)},seed=1 +cityscapes/val +90,000 +90,000$", out, re.M)
    assert f"{NAME.format(200, 10000)},seed=0: detailer miou_at_size 0.5995; classifier miou_at_size 0.475;" in out


def test_a_dry_run_refuses_a_run_that_lacks_images(refused, tiny_data, tmp_path):
    over = ("--over", "budget.fine=8,13", "--dry-run")
    refused(*words(tmp_path / "sweep", tiny_data, *over), holds=["budget.fine=13: budget.fine asks for 13"])
    # All twelve images have fine masks, so none is left for the students.
    argv = ["train", CONFIGS / "detailer_scenes_students.py", "--data-dir", tiny_data, "--budget.fine", "all"]
    argv = [*argv, "--results", "student_coarse", "--dry-run"]
    refused(*argv, holds=["student_coarse: scenes/train: 0 unlabelled images, expected the 100", "--student.images"])


@pytest.fixture(scope="module")
def swept(tmp_path_factory, tiny_data):
    """The folder of a sweep half of which cannot be done, and what the command left."""
    folder, out, err = tmp_path_factory.mktemp("sweep"), io.StringIO(), io.StringIO()
    argv = words(folder, tiny_data, "--over", "budget.fine=13,8", "--over", "seed=0,1", "--json")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(word) for word in argv])
    return folder, Finished(status, out.getvalue(), err.getvalue())


def test_a_failed_combination_is_named_and_the_rest_is_printed(swept):
    folder, found = swept
    assert found.status == 1 and "Traceback" not in found.err
    message = found.err[found.err.index("\nscarce-jax: ") :]
    assert "2 of 4 runs failed, the others are done:" in message
    assert "budget.fine=13,seed=0, budget.fine=13,seed=1: budget.fine asks for 13" in message
    assert found.json == {"sweep": str(folder), **json.loads((folder / "table.json").read_text())}
    miou = found.json["rows"][1]["results"]["segmenter"]["miou"]
    at_size = found.json["rows"][1]["results"]["segmenter"]["miou_at_size"]
    both = " +".join(rf"{x['mean']:.3f} ± {x['half_range']:.3f} \(2\)" for x in (miou, at_size))
    assert re.search(r"^budget\.fine +segmenter +segmenter \(at size\)$", found.out, re.M)
    assert re.search(r"^13 +- +-$", found.out, re.M)
    assert re.search(rf"^8 +{both}$", found.out, re.M), found.out
    assert "budget.fine=13,seed=0 will be left out: budget.fine asks for 13" in found.err
    assert str(folder / "table.json") in found.out and (folder / "curve.png").exists()


def test_runs_of_a_sweep_have_the_bits_of_separate_ones(swept, tiny_data, command, tmp_path):
    # In the other order, so that what an earlier run left behind would show.
    for seed in (1, 0):
        ours, alone = swept[0] / f"budget.fine=8,seed={seed}", tmp_path / str(seed)
        assert command("train", *words(alone, tiny_data, "--seed", seed, "--budget.fine", 8)[1:]).status == 0
        here, there = tiny.stored(ours), tiny.stored(alone)
        assert here and here.keys() == there.keys()
        assert all(np.array_equal(here[name], there[name]) for name in here)
        summaries = [json.loads((run / "summary.json").read_text()) for run in (ours, alone)]
        assert summaries[0]["results"] == summaries[1]["results"]


def test_an_interrupted_sweep_ends_with_130_and_goes_on(swept, tiny_data, command, tmp_path, monkeypatch):
    folder = shutil.copytree(swept[0], tmp_path / "copy")
    write = loop.MetricsLog.write

    def interrupt(self, step, kind, values):
        write(self, step, kind, values)
        if step == 1:  # A second signal would not be held back.
            signal.raise_signal(signal.SIGTERM)

    argv = words(folder, tiny_data, "--over", "budget.fine=8", "--over", "seed=2,0,1,3")
    with monkeypatch.context() as patch:
        patch.setattr(loop.MetricsLog, "write", interrupt)
        found = command(*argv)
    assert found.status == 130 and "the same command goes on" in found.err
    # What was done before stands in the table already.
    table = json.loads((folder / "table.json").read_text())
    assert table["missing"] == ["budget.fine=8,seed=2", "budget.fine=8,seed=3"]
    known = json.loads((swept[0] / "table.json").read_text())["rows"][1]["results"]["segmenter"]["miou"]["values"]
    assert table["rows"][0]["results"]["segmenter"]["miou"]["values"] == [None, *known, None]
    done = {path: path.stat().st_mtime_ns for path in folder.glob("*/segmenter/DONE")}
    argv = words(folder, tiny_data, "--over", "budget.fine=8", "--over", "seed=2,0,1")
    found = command(*argv)
    assert found.status == 0 and {path: path.stat().st_mtime_ns for path in done} == done
    assert re.search(r"^8 +0\.\d{3} ± 0\.\d{3} \(3\) +0\.\d{3} ± 0\.\d{3} \(3\)$", found.out, re.M), found.out
    assert found.out.endswith(f"\nnext: scarce-jax report {folder}/*/ --data-dir {tiny_data}\n")


@pytest.mark.parametrize(
    ("flags", "holds"),
    [
        (["--over", "seed"], ["--over seed: expected FIELD=V1,V2"]),
        (["--over", "seed=1,"], ["--over seed=1,: a value is empty"]),
        (["--over", "budget.fine+seed=1,2"], ["needs 2 values joined by +", "found 1 in (1,)"]),
        (["--over", "seed=0", "--over", "seed=1"], ["--over seed: given twice"]),
        (["--over", "budget.fine=2.5"], ["budget.fine=2.5: config field budget.fine", "fraction"]),
        (["--over", "budget.fien=1,2"], ["no field 'budget.fien'", "did you mean budget.fine?"]),
        (
            ["--segmenter.net", "pspnet", "--over", "segmenter.net.backbone.depth=18,19"],
            ["segmenter.net.backbone.depth=19: config field segmenter.net.backbone.depth", "101"],
        ),
        (["--over", "seed=x"], ["seed=x: config field seed"]),
        ([], ["give at least one --over"]),
    ],
)
def test_wrong_axes_are_refused_with_one_message(flags, holds, tiny_data, refused, tmp_path):
    refused(*words(tmp_path / "sweep", tiny_data, *flags), holds=holds)
    assert not (tmp_path / "sweep").exists()


def test_without_a_folder_it_is_named_after_the_config(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = []
    monkeypatch.setattr("scarce_jax.sweep.sweep", lambda config, over, workdir, **_: folders.append(workdir) or {})
    for flags in ([], ["--over", "seed=2"], ["--budget.fine", "7"]):
        with contextlib.suppress(KeyError):  # of the results, which are none
            command("sweep", CONFIG, "--over", "budget.seed=1", *flags)
    first, same, other = map(str, folders)
    assert re.fullmatch(r"runs/supervised_scenes-sweep-[0-9a-f]{8}", first)
    assert first == same != other


def test_a_plan_tells_steps_that_the_data_decide_from_stages_that_are_not_trained():
    def planned(run, name, steps, figures):
        stages = [{"name": name, "kind": "train", "steps": steps}]
        return {"run": run, "dataset": "d", "split": "val", "stages": stages, "paper": {"split": "val", **figures}}

    first = planned("a", "x", None, {"figures": {"selection": {"0.5": {"mIoU": 0.7, "selected": None}}, "main": {}}})
    lines = _planned([first, planned("b", "y", 5, {"figures": {}})]).splitlines()
    assert [line.split() for line in lines[2:4]] == [["a", "d/val", "?", "-"], ["b", "d/val", "-", "5"]]
    assert lines[5:] == [
        "?: only the data tell",
        "",
        "the paper's figures:",
        "a: selection 0.5 (mIoU 0.7); main (no figure), on val",
        "",
        "2 runs",
    ]
