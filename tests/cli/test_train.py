"""`train` through the command line: a shrunk run of the shipped configs, dry runs, overrides, what is refused."""

import json
import logging
import re
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

import scarce_jax
from scarce_jax import mesh
from scarce_jax.data.files import unseal
from scarce_jax.data.images import write_png
from scarce_jax.errors import InputError
from scarce_jax.training import loop
from scarce_jax.training.session import Session
from tests import tiny
from tests.cli.conftest import CONFIGS, shrunk

RESULTS = [
    "detailer", "coarse", "detailer_composite", "classifier", "classifier_composite", "student_detailed",
    "student_coarse",
]  # fmt: skip
STAGES = ["detailer", "classifier", "detail", "student_detailed", "student_coarse"]


def read(path):
    return unseal(json.loads(path.read_text()))


def again(run, data, *flags):
    """The words of the command that made `supervised_run`, with further flags."""
    config = CONFIGS / "supervised_scenes.py"
    base = ["train", config, "--workdir", run, "--data-dir", data, *shrunk("segmenter"), "--budget.fine", 8]
    return [*base, "--runtime.log-every", 1, "--runtime.workers", 1, *flags]


def test_the_summary_of_a_whole_run(detailer_run):
    summary = read(detailer_run / "summary.json")
    assert set(summary) == {"method", "dataset", "seed", "devices", "seconds", "stages", "results", "tables"}
    assert (summary["method"], summary["dataset"], summary["seed"]) == ("detailer", "scenes", 0)
    assert summary["devices"] == jax.device_count() and summary["seconds"] > 0
    assert [stage["name"] for stage in summary["stages"]] == STAGES
    assert [stage["kind"] for stage in summary["stages"]] == ["train", "train", "infer", "train", "train"]
    assert list(summary["results"]) == RESULTS
    for figures in summary["results"].values():
        assert figures["images"] == tiny.SIZES["val"] and (figures["dataset"], figures["split"]) == ("scenes", "val")
        assert all(0 <= figures[key] <= 1 for key in ("miou", "mean_accuracy", "pixel_accuracy", "miou_at_size"))
        ious = [iou for iou in figures["per_class"].values() if iou is not None]
        assert figures["miou"] == pytest.approx(sum(ious) / len(ious))
    trained = {s["name"]: s["read"]["labelled"] for s in summary["stages"] if s["kind"] == "train"}
    assert trained["student_detailed"]["labels"] == ["detail/mask"] and trained["student_coarse"]["labels"] == [
        "coarse"
    ]
    assert all(trained[name]["images"] == 4 for name in ("student_detailed", "student_coarse"))
    assert all(trained[name]["images"] == 8 and trained[name]["ids"] == "fine" for name in ("detailer", "classifier"))


def test_the_run_folder_describes_itself(detailer_run):
    config = read(detailer_run / "config.json")
    assert config["format"] == 2 and config["method"] == "detailer" and config["config"]["budget"]["fine"] == 8
    assert config["config"]["detailer"]["steps"] == config["steps"]["detailer"] == 2
    for key in ("classes", "palette", "normalisation", "versions", "git_revision", "command", "devices"):
        assert key in config
    manifest = read(detailer_run / "manifest.json")
    assert len(manifest["roles"]["fine"]) == 8 and manifest["hash"]
    for name in STAGES:
        done = read(detailer_run / name / "DONE")
        assert done["fingerprint"] and done["seconds"] >= 0 and done["read"]
        assert not (detailer_run / name / "checkpoints").exists()
    lines = [json.loads(line) for line in (detailer_run / "metrics.jsonl").read_text().splitlines()]
    steps = [(line["stage"], line["step"]) for line in lines if line["kind"] == "train"]
    assert steps == [(name, step) for name in STAGES if name != "detail" for step in (1, 2)]
    assert list(detailer_run.glob("events.out.tfevents.*"))


def test_a_composite_is_at_least_as_good_as_the_coarse_mask_that_it_keeps(detailer_run):
    results = read(detailer_run / "summary.json")["results"]
    # Wherever the coarse mask says something both say the same, so recall can only grow.
    for name in ("detailer_composite", "classifier_composite"):
        assert results[name]["mean_accuracy"] >= results["coarse"]["mean_accuracy"]
        assert results[name]["pixel_accuracy"] >= results["coarse"]["pixel_accuracy"]


def test_the_same_command_again_only_prints(supervised_run, tiny_data, command):
    before = {path: path.stat().st_mtime_ns for path in (supervised_run / "segmenter").rglob("*")}
    found = command(*again(supervised_run, tiny_data, "--json"))
    assert found.status == 0 and "segmenter: done before (2 steps)" in found.err
    assert {path: path.stat().st_mtime_ns for path in (supervised_run / "segmenter").rglob("*")} == before
    assert found.json == {"run": str(supervised_run), **read(supervised_run / "summary.json")}
    table, _, rest = found.out.partition("\n\n")
    assert re.search(r"^segmenter +0\.\d{4} +0\.\d{4} +0\.\d{4} +7$", table, re.M), found.out
    assert "1 stage in" in rest


def test_a_config_changed_between_runs_is_refused_with_the_difference(supervised_run, tiny_data, refused):
    summary = (supervised_run / "summary.json").read_text()
    refused(
        *again(supervised_run, tiny_data, "--segmenter.optim.lr", 0.125),
        holds=[str(supervised_run), "optim.lr: 0.002 -> 0.125", "--workdir", "--redo segmenter"],
    )
    assert (supervised_run / "summary.json").read_text() == summary


def test_a_damaged_net_names_the_stage_to_redo(supervised_run, tiny_data, refused, command, tmp_path):
    run, net = tmp_path / "run", "segmenter/nets/segmenter"
    shutil.copytree(supervised_run, run)
    for path in (run / net).glob("**/d/*"):
        content = bytearray(path.read_bytes())
        content[: len(content) // 2] = bytes(len(content) // 2)
        path.write_bytes(content)
    write_png(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    holds = [str(run / net), "--redo segmenter"]
    refused("evaluate", run, "--data-dir", tiny_data, holds=holds)
    refused("predict", run, tmp_path / "a.png", "--out", tmp_path / "out", holds=holds)
    assert not (tmp_path / "out").exists()
    assert command(*again(run, tiny_data, "--redo", "segmenter")).status == 0
    assert command("evaluate", run, "--data-dir", tiny_data).status == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_says_so_with_130_and_goes_on(number, tiny_data, command, tmp_path, monkeypatch):
    write = loop.MetricsLog.write

    def interrupt(self, step, kind, values):
        write(self, step, kind, values)
        if step == 1:
            signal.raise_signal(number)

    argv = ["train", CONFIGS / "supervised_scenes.py", "--workdir", tmp_path, "--data-dir", tiny_data]
    argv += [*shrunk("segmenter", steps=4), "--budget.fine", 8, "--runtime.log-every", 1, "--runtime.workers", 1]
    with monkeypatch.context() as patch:
        patch.setattr(loop.MetricsLog, "write", interrupt)
        found = command(*argv)
    assert found.status == 130 and "Traceback" not in found.err
    assert re.search(r"scarce-jax: segmenter: interrupted at step \d, which is saved; the same command", found.err)
    assert list((tmp_path / "segmenter/checkpoints").iterdir()) and not (tmp_path / "summary.json").exists()
    found = command(*argv)
    assert found.status == 0 and "goes on from step" in found.err
    assert read(tmp_path / "summary.json")["stages"][0]["steps"] == 4


@pytest.mark.parametrize(
    ("where", "number"), [("measure", signal.SIGTERM), ("__post_init__", signal.SIGTERM), ("measure", signal.SIGINT)]
)
def test_a_signal_outside_the_stages_ends_with_130_too(
    where, number, supervised_run, tiny_data, command, tmp_path, monkeypatch
):
    run, before = tmp_path / "run", signal.getsignal(number)
    shutil.copytree(supervised_run, run)
    (run / "summary.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Session, where, lambda *args, **kwargs: signal.raise_signal(number))
        found = command(*again(run, tiny_data))
    assert found.status == 130 and found.err.endswith("scarce-jax: interrupted\n") and "Traceback" not in found.err
    assert signal.getsignal(number) is before
    assert not [path for path in run.iterdir() if path.name.startswith(".")]
    assert command(*again(run, tiny_data)).status == 0
    assert read(run / "summary.json")["results"] == read(supervised_run / "summary.json")["results"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_an_import_ends_with_130(number, tmp_path):
    """A module may swallow whatever is raised while it is imported."""
    (tmp_path / "mine.py").write_text(
        f"import signal\ntry:\n    signal.raise_signal({number:d})\nexcept BaseException:\n    pass\n"
    )
    (tmp_path / "config.py").write_text("import mine\n")
    command = [sys.executable, "-m", "scarce_jax", "train", "config.py"]
    done = subprocess.run(command, cwd=tmp_path, env=tiny.environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "scarce-jax: interrupted\n")


def test_scenes_is_prepared_by_the_first_run(command, tmp_path, monkeypatch):
    from scarce_jax.data.builders import Scenes

    monkeypatch.setattr(Scenes, "SIZES", {"train": 8, "val": 1})
    found = command(*again(tmp_path / "run", tmp_path / "data", "--segmenter.steps", 1))
    assert found.status == 0 and "preparing the dataset scenes" in found.err
    assert (tmp_path / "data/scenes/1.0.0/metadata.json").exists()


def test_train_of_the_package_is_what_the_command_calls(tiny_data, tmp_path):
    summary = scarce_jax.train(tiny.supervised_config(steps=1), tmp_path / "run", data_dir=tiny_data)
    assert summary == read(tmp_path / "run/summary.json") and summary["stages"][0]["steps"] == 1


WRONG = {
    "batch": (["--segmenter.batch", 12], ["segmenter.batch: 12", f"{jax.device_count()} devices", "8 or 16"]),
    "budget": (["--budget.fine", 13], ["budget.fine asks for 13", "scenes/train has 12"]),
    "both lengths": (["--segmenter.epochs", 1], ["segmenter: found", "exactly one of steps and epochs"]),
    "a fraction": (["--budget.fine", 1.5], ["--budget.fine 1.5: expected", "above 0 and below 1"]),
    "a rate": (["--segmenter.optim.lr", -0.1], ["--segmenter.optim.lr -0.1: expected a number above 0"]),
    "not a number": (["--segmenter.optim.momentum", "nan"], ["--segmenter.optim.momentum nan: expected"]),
    "a huge batch": (["--segmenter.batch", 10**9], ["--segmenter.batch 1000000000: expected", "65,536"]),
    "a size": (["--segmenter.size", 0, 32], ["--segmenter.size 0 32: expected 2 values"]),
    "a pattern": (["--segmenter.optim.groups.0.pattern", "("], ["--segmenter.optim.groups.0.pattern '(': expected"]),
    "an unmatched pattern": (
        ["--segmenter.optim.groups.0.pattern", "layer9"],
        ["stage segmenter, net segmenter: optim.groups: the pattern 'layer9' matches no parameter", "such as aux_"],
    ),
    "the training split": (["--eval-split", "train"], ["--eval-split 'train': expected another split"]),
    "no comparison": (["--compare"], ["--compare True: expected False, because this method has nothing"]),
    "redo": (["--redo", "detailer"], ["--redo detailer: no such stage", "segmenter"]),
    "reuse": (["--reuse", "nowhere"], ["--reuse nowhere: not a run folder"]),
    "split": (["--eval-split", "dev"], ["no split 'dev'", "train", "val", "--eval-split None"]),
}

PROCESSES = {
    "--processes 2 --process 0": "--processes 2: needs --coordinator HOST:PORT",
    "--process 0": "--process 0: needs --coordinator HOST:PORT",
    "--coordinator x --processes 2 --process 0": "--coordinator x: expected HOST:PORT",
    "--coordinator localhost:70000 --processes 2 --process 0": "--coordinator localhost:70000: expected HOST:PORT",
    "--coordinator localhost:1234": "--coordinator localhost:1234: needs --processes, which is missing",
    "--coordinator localhost:1234 --processes 2": "--coordinator localhost:1234: needs --process, which is missing",
    "--coordinator localhost:1234 --processes 0 --process 0": "--processes 0: expected at least 1",
    "--coordinator localhost:1234 --processes 2 --process 5": "--process 5: expected 0 to 1 of 2",
    "--coordinator localhost:1234 --processes 2 --process -1": "--process -1: expected 0 to 1 of 2",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused_before_anything_is_written(name, tiny_data, refused, tmp_path):
    flags, holds = WRONG[name]
    refused(*again(tmp_path / "run", tiny_data, *flags), holds=holds)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", PROCESSES)
def test_impossible_numbers_of_processes_are_usage_errors(flags, tiny_data, refused, tmp_path):
    refused(*again(tmp_path / "run", tiny_data, *flags.split()), status=2, holds=[PROCESSES[flags]])
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_is_refused_and_the_home_folder_found(tiny_data, refused, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    refused("train", CONFIGS / "supervised_scenes.py", "--workdir", "", status=2, holds=["an empty path; expected"])
    words = ["train", CONFIGS / "detailer_camvid.py", "--data-dir=~/data"]
    refused(*words, holds=[f"not prepared in {tmp_path / 'home' / 'data'}"])
    assert list(tmp_path.iterdir()) == []


def test_processes_that_do_not_find_each_other_say_whom_they_wait_for(monkeypatch, caplog):
    def late(*arguments):
        raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out.\nlong explanation")

    monkeypatch.setattr(jax.distributed, "initialize", late)
    with caplog.at_level(logging.INFO, "scarce_jax"), pytest.raises(InputError) as error:
        mesh.initialize("localhost:1234", 3, 1)
    assert "process 1 waits for the other 2 of 3 processes at localhost:1234" in caplog.text
    assert "do not find each other (DEADLINE_EXCEEDED: Barrier timed out.); start all" in str(error.value)
    monkeypatch.setenv("SLURM_NTASKS", "many")
    with pytest.raises(InputError, match="SLURM_NTASKS is 'many' in the environment"):
        mesh.initialize()


@pytest.mark.parametrize("config", ["detailer_camvid.py", "detailer_camvid_small.py"])
def test_a_dataset_that_is_not_prepared_comes_with_the_line_that_prepares_it(config, refused, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "empty"))
    argv = ["train", CONFIGS / config, "--workdir", tmp_path / "run"]
    refused(*argv, holds=["dataset camvid is not prepared", "scarce-jax prepare camvid --source DIR\n"])
    other = tmp_path / "a b"
    refused(*argv, "--data-dir", other, holds=[f"scarce-jax prepare camvid --source DIR --data-dir '{other}'\n"])
    assert list(tmp_path.iterdir()) == []


def test_unknown_flags_are_usage_errors_with_the_nearest_name(command):
    config = CONFIGS / "detailer_scenes_students.py"
    for wrong, right in (
        ("--detailer.stesp", "--detailer.steps"),
        ("--budget.fien", "--budget.fine"),
        ("--workdri", "--workdir"),
        ("--student.imagse", "--student.images"),
        ("--classifier.optim.lrr", "--classifier.optim.lr"),
    ):
        found = command("train", config, wrong, 5)
        assert (found.status, found.out) == (2, "")
        assert wrong in found.err and re.search(rf"{re.escape(right)}\b", found.err), found.err
    found = command("train", config, "--detailer.net.backbone.depth", 19)
    assert found.status == 2 and "--detailer.net.backbone.depth" in found.err and "101" in found.err
    found = command("train", config, "--seed", "x")
    assert found.status == 2 and "--seed" in found.err


BROKEN = {
    "missing": (None, ["no such file"]),
    "without config": ("value = 1", ["defines no `config`"]),
    "raising": ("raise RuntimeError('boom')", ["cannot be run", "RuntimeError: boom"]),
    "exiting": ("import sys; sys.exit(3)", ["cannot be run", "SystemExit: 3"]),
    "no Python": ("config = (", ["cannot be run", "SyntaxError"]),
    "of no method": ("config = 3", ["found a int", "detailer.Config"]),
    "wrong value": (
        "from tests import tiny\nconfig = tiny.supervised_config(batch=-1)",
        ["mine.py: --segmenter.batch -1: expected a whole number from 1"],
    ),
    "unknown field": (
        "from scarce_jax.data.budget import Budget\nconfig = Budget(fines=1)",
        ["unexpected keyword argument 'fines'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_config_file_that_is_none_is_refused(name, refused, tmp_path):
    text, holds = BROKEN[name]
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    refused("train", path, holds=[str(path), *holds])


def test_flags_may_come_before_the_config(command):
    found = command("train", "--dry-run", CONFIGS / "supervised_scenes.py")
    assert found.status == 0 and found.out.splitlines()[2].startswith("segmenter  train")


def test_a_config_has_a_help_of_its_own(command):
    found = command("train", CONFIGS / "detailer_scenes_students.py", "--help")
    assert found.status == 0
    for flag in ("--detailer.steps", "--student.images", "--budget.fine", "--compare, --no-compare", "--help-verbose"):
        assert flag in found.out
    assert "--detailer.net: detailer, fcn_detailer, deeplabv3plus_detailer, tiny\n" in found.out
    assert "--classifier.net: pspnet, fcn, dsnet, deeplabv2, deeplabv3plus, largefov, deconvnet, tiny\n" in found.out
    # What tells `None` from a value is no help to a reader of a flag that is off by default.
    assert "--workdir DIR" in found.out and "{None}|PATH" not in found.out
    verbose = command("train", CONFIGS / "detailer_scenes_students.py", "--help-verbose").out
    assert "number of training images (100 in the paper)" in verbose
