"""A run folder or a prepared dataset of a stranger: nothing in it runs, and nothing outside it is touched."""

import json
import os
import subprocess
import sys
import types

import pytest

from scarce_jax import cli, methods, runs
from scarce_jax.data.builders import load_info
from scarce_jax.data.builders.prepared import builder_class
from scarce_jax.data.files import write_atomically, write_json
from scarce_jax.data.source import Reader
from scarce_jax.errors import InputError
from scarce_jax.report import report
from scarce_jax.run_folder import open_run
from scarce_jax.training.folder import refuse_links
from scarce_jax.training.lock import clear
from scarce_jax.training.log import MetricsLog
from tests import tiny
from tests.trust.conftest import train

EVIL = "import pathlib; pathlib.Path('ran').write_text(__name__)\n"


@pytest.fixture
def hostile(run, monkeypatch):
    """The run folder, which is the current one, with modules that must not run; on the path, as for `python -c`."""
    for name in ("evil", "boto3", "json"):
        (run / f"{name}.py").write_text(EVIL)
    monkeypatch.chdir(run)
    monkeypatch.setattr(sys, "path", [*sys.path, str(run)])
    yield run
    sys.modules.pop("evil", None)


@pytest.mark.parametrize("command", [runs.evaluate, runs.replay])
@pytest.mark.parametrize("name", ["method", "dataset"])
def test_no_name_of_a_run_folder_is_imported(hostile, name, command, tiny_data):
    changed = {"method": "evil"} if name == "method" else {"dataset": {"name": "evil:X", "versions": {"evil:X": "1"}}}
    facts = json.loads((hostile / "config.json").read_text())
    config = facts["config"] if name == "method" else {**facts["config"], "dataset": "evil:X"}
    tiny.edit(hostile / "config.json", config=config, **changed)
    for call in (
        lambda: command(hostile, data_dir=tiny_data),
        lambda: runs.load(hostile),
        lambda: runs.predict(hostile, [tiny.ROOT / "docs/methods.png"], hostile / "out"),
    ):
        with pytest.raises(InputError):
            call()
    report([hostile], data_dir=tiny_data)
    assert not (hostile / "ran").exists() and "evil" not in sys.modules
    with pytest.raises(InputError):
        command(hostile, data_dir=tiny_data, allow_import=True)
    assert (hostile / "ran").read_text() == "evil"


def test_the_command_line_runs_nothing_of_the_current_folder(run, tmp_path):
    for name in ("evil", "boto3", "json", "numpy", "pathlib", "logging"):
        (run / f"{name}.py").write_text(EVIL)
    tiny.edit(run / "config.json", method="evil")
    command = [sys.executable, "-m", "scarce_jax", "evaluate", "."]
    done = subprocess.run(command, cwd=run, env=tiny.environment(), capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("scarce-jax: config.json: method 'evil': "), done.stderr
    assert "--allow-import" in done.stderr and not (run / "ran").exists()


def test_only_commands_with_a_config_of_the_user_import_from_the_current_folder(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    (run / "config.json").unlink()
    for command, found in (("evaluate", False), ("report", False), ("train", True)):
        cli.main([command, str(run)])
        assert (str(tmp_path) in sys.path) == found, command
    assert "not a run folder" in capsys.readouterr().err


def test_modules_that_are_imported_already_need_no_permission(monkeypatch):
    mine = types.ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", mine)
    with pytest.raises(InputError, match="'mine': this module has no dataclass Config and function recipe"):
        methods.by_name("mine")
    mine.Config, mine.recipe = type(tiny.supervised_config()), lambda config, info: None
    assert methods.by_name("mine") is mine
    for name in ("os", "evil", "scarce_jax.methods", "..evil", ""):
        with pytest.raises(InputError):
            methods.by_name(name)
    for name, message in (("os:path", "no subclass"), ("os:nothing", "no attribute"), ("evil:X", "not imported")):
        with pytest.raises(InputError, match=message):
            builder_class(name)
    for name in ("../scenes", "folder/../x", "/etc", "folder//x", "folder/", ""):
        with pytest.raises(InputError):
            load_info(name, "/nowhere")


def test_features_json_names_no_class(data, monkeypatch):
    folder = data / "scenes" / "1.0.0"
    text = (folder / "features.json").read_text()
    (folder / "features.json").write_text(text.replace("tensorflow_datasets.core.features", "evil"))
    (folder / "dataset_info.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "evil", None)
    reader = Reader("scenes", "val", str(data))
    assert len(reader) == tiny.SIZES["val"] and reader.read(0)["image"].shape[2] == 3


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "a/b"])
def test_names_in_metadata_lead_nowhere_else(data, name):
    path = data / "scenes" / "1.0.0" / "metadata.json"
    facts = json.loads(path.read_text())
    for changes in (
        {"files": {**facts["files"], name: 1}},
        {"splits": {**facts["splits"], name: 1}, "shards": {**facts["shards"], name: {"x": 1}}},
        {"shards": {**facts["shards"], "val": {name: tiny.SIZES["val"]}}},
    ):
        tiny.edit(path, **{**{key: facts[key] for key in ("files", "splits", "shards")}, **changes})
        with pytest.raises(InputError, match=r"(scenes/1\.0\.0|/etc/passwd).*--again"):
            Reader("scenes", "val", str(data))


def test_names_in_a_run_folder_lead_nowhere_else(run):
    facts = json.loads((run / "summary.json").read_text())
    tiny.edit(run / "summary.json", stages=[{**facts["stages"][0], "name": "../run/semi"}])
    with pytest.raises(InputError, match=r"a stage is called '\.\./run/semi', expected the name of a folder"):
        report([run])
    done = json.loads((run / "semi/DONE").read_text())
    tiny.edit(run / "semi/DONE", files={**done["files"], "../../secret": [1, 1]})
    with pytest.raises(InputError, match=r"\.\./\.\./secret: is missing"):
        runs.evaluate(run)


@pytest.mark.parametrize("name", ["metrics.jsonl", "semi/nets/x", "pseudo_labels", "lock"])
def test_links_in_a_run_folder_are_refused(run, tiny_data, tmp_path, name):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    link = run / name
    if link.is_dir():
        link.rename(tmp_path / "elsewhere")
        mine = tmp_path / "elsewhere"
    link.unlink(missing_ok=True)
    link.symlink_to(mine)
    for call in (lambda: open_run(run), lambda: train(run, data_dir=tiny_data, redo="semi")):
        with pytest.raises(InputError, match=f"{link}: a link, pipe or device, expected files and folders alone"):
            call()
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_a_pipe_in_a_run_folder_is_not_waited_for(run, name):
    (run / name).unlink()
    os.mkfifo(run / name)
    for call in (open_run, lambda run: report([run])):
        with pytest.raises(InputError, match=f"{run / name}: a link, pipe or device"):
            call(run)


def test_a_folder_that_goes_while_the_run_is_looked_at_is_no_fault(run, tmp_path, monkeypatch):
    scandir = os.scandir

    def deleting(folder):
        if os.path.basename(folder) == "checkpoints":
            os.rename(folder, tmp_path / "gone")
        return scandir(folder)

    (run / "semi/checkpoints/3").mkdir(parents=True)
    monkeypatch.setattr(os, "scandir", deleting)
    refuse_links(run)
    assert not (run / "semi/checkpoints").exists()


def test_a_link_that_looks_like_a_leftover_is_removed_and_not_followed(run, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "photo").write_text("mine")
    link = run / ".metrics.jsonl.1.aside"
    link.symlink_to(mine)
    with pytest.raises(InputError, match=f"{link}: a link, pipe"):
        open_run(run)
    clear(run)
    assert not link.is_symlink() and (mine / "photo").read_text() == "mine"


def test_a_run_folder_may_be_reached_by_a_link(run, tmp_path):
    (tmp_path / "link").symlink_to(run)
    open_run(tmp_path / "link")


def test_nothing_is_written_through_a_link(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    for name in ("x.json", f".x.json.{os.getpid()}.aside"):
        (tmp_path / name).symlink_to(mine)
    write_json(tmp_path / "x.json", {})
    assert not (tmp_path / "x.json").is_symlink() and mine.read_text() == "mine"
    (tmp_path / "metrics.jsonl").symlink_to(mine)
    log = MetricsLog(tmp_path, "stage", 0, 0)
    log.write(1, "train", {"loss": 1.0})
    log.close()
    assert mine.read_text() == "mine" and (tmp_path / "metrics.jsonl").read_text().count("\n") == 1
    with write_atomically(tmp_path / ("n" * 250)) as aside:
        aside.write_text("a long name")
    for path in (tmp_path / "none" / "x.json", tmp_path / ("n" * 300)):
        with pytest.raises(OSError) as caught, write_atomically(path):
            pass
        assert caught.value.filename == str(path)
    assert sorted(path.name[:3] for path in tmp_path.iterdir() if path.is_file() and not path.is_symlink()) == [
        "eve", "met", "min", "nnn", "x.j"
    ]  # fmt: skip
