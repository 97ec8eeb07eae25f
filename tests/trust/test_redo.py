"""`--redo`, `--reuse` and killed processes: a stage is whole or gone, never an old net under new settings."""

import logging
import os
import shutil
import types

import pytest

from scarce_jax import runs
from scarce_jax.errors import InputError
from scarce_jax.training.folder import begun, read_done, read_summary
from scarce_jax.training.plan import clear, forget, take_over
from tests import tiny
from tests.trust.conftest import CONFIG, train

STAGES = ("pseudo_labels", "semi")


class Killed(BaseException):
    pass


def listing(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kill_at(monkeypatch, number):
    """Ends the process, so to say, at the so manyth change of the file system."""
    calls = []
    for name in ("rename", "unlink", "rmdir"):
        original = getattr(os, name)

        def change(*args, original=original, **keywords):
            calls.append(args)
            if len(calls) == number:
                raise Killed
            return original(*args, **keywords)

        monkeypatch.setattr(os, name, change)
    return calls


def test_a_kill_at_any_deletion_leaves_stages_whole_or_gone(finished, tmp_path):
    whole = {stage: listing(finished / stage) for stage in STAGES}
    number, states = 0, set()
    while True:
        number += 1
        run = shutil.copytree(finished, tmp_path / str(number))
        with pytest.MonkeyPatch.context() as patch:
            calls = kill_at(patch, number)
            try:
                forget(types.SimpleNamespace(run_dir=run), STAGES)
                killed = False
            except Killed:
                killed = True
        for stage in STAGES:
            assert not (run / stage).exists() or listing(run / stage) == whole[stage]
        states.add(tuple((run / stage).exists() for stage in STAGES))
        clear(run)
        assert not [path.name for path in run.iterdir() if path.name.startswith(".")]
        shutil.rmtree(run)
        if not killed:
            break
    assert number == len(calls) + 1 > 20 and states == {(True, True), (False, True), (False, False)}


@pytest.mark.parametrize("left", ["nets", "DONE", "checkpoints"])
def test_a_stage_without_its_description_is_named(run, tiny_data, left):
    """As an older version, killed while it deleted a stage, left it."""
    for path in (run / "semi").iterdir():
        if path.name != left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (run / "semi" / "checkpoints").mkdir(exist_ok=True)
    assert begun(run, "semi")
    with pytest.raises(InputError, match=r"semi/stage\.json: is missing.*--redo semi"):
        train(run, data_dir=tiny_data)


def test_a_damaged_stage_is_not_reused(run, tmp_path, caplog):
    logging.getLogger("scarce_jax").propagate = True
    new = tmp_path / "new"
    (new / "semi" / "checkpoints").mkdir(parents=True)  # Of an unfinished stage.
    fingerprints = {stage: read_done(run, stage)["fingerprint"] for stage in STAGES}
    plan = types.SimpleNamespace(run_dir=new, fingerprints=fingerprints, done=lambda stage: read_done(new, stage))
    part = run / "pseudo_labels/records/part-00000.arrayrecord"
    part.write_bytes(part.read_bytes()[:-1])
    take_over(plan, [run])
    assert f"pseudo_labels: not reused: {part}: has " in caplog.text
    assert sorted(path.name for path in new.iterdir()) == ["metrics.jsonl", "semi"]
    assert listing(new / "semi") == listing(run / "semi")


def test_a_stage_that_was_killed_before_its_description_is_not_begun(tmp_path):
    (tmp_path / "semi").mkdir()
    assert not begun(tmp_path, "semi") and not begun(tmp_path, "none")
    (tmp_path / "semi/.stage.json.abc.aside").write_text("half")
    assert not begun(tmp_path, "semi")
    (tmp_path / "semi/nets").mkdir()
    assert begun(tmp_path, "semi")


def test_leftovers_of_killed_writes_are_removed(tmp_path):
    (tmp_path / "semi").mkdir()
    for name in (".config.json.abc.aside", "semi/.stage.json.abc.aside", "semi/stage.json"):
        (tmp_path / name).write_text("half")
    for name in (".semi.1.aside", ".cams.2.aside"):
        (tmp_path / name / "nets").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "semi"):  # As a run does.
        clear(folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["semi", "stage.json"]


def test_after_a_killed_redo_other_settings_train_another_net(run, finished, tiny_data):
    (run / "semi").rename(run / ".semi.1.aside")
    with (run / "metrics.jsonl").open("r+b") as file:
        file.write(b"?")  # In the first line; a log stops no training.
    changed = tiny.replaced(CONFIG, "semi", steps=1)
    with tiny.little_optimised():
        summary = runs.train(changed, run, data_dir=tiny_data, mesh=tiny.mesh())
    assert read_done(run, "semi")["steps"] == 1 and not (run / ".semi.1.aside").exists()
    before = read_summary(finished)["results"]
    assert summary["results"]["semi"]["fingerprint"] != before["semi"]["fingerprint"]
    assert summary["results"]["labelled_only"] == before["labelled_only"]
