"""The last lines of a command: what a user is likely to run next."""

import dataclasses
import shlex

import numpy as np
import pytest

from scarce_jax.cli.common import command_line, dataset_name, load_config
from scarce_jax.cli.prepare import CONFIGS as SUITED
from scarce_jax.cli.prepare import train_commands
from scarce_jax.cli.train import view_commands
from scarce_jax.data.builders import BUILDERS, load_prepared
from scarce_jax.run_folder import open_run
from tests import published, tiny, torch_files
from tests.cli.test_train import again
from tests.data.formats import exports


def following(found) -> list[str]:
    """The commands after "next: ", which are the last lines of standard output."""
    lines = found.out.splitlines()
    commands = [line.removeprefix("next: ") for line in lines if line.startswith("next: ")]
    assert lines[len(lines) - len(commands) :] == [f"next: {command}" for command in commands]
    return commands


def test_a_command_is_quoted_for_the_shell():
    line = command_line("predict", "my runs/x", out="o'clock", coarse=None, json=True, val=False)
    assert shlex.split(line) == ["scarce-jax", "predict", "my runs/x", "--out", "o'clock", "--json"]


@pytest.mark.parametrize(("folder", "name"), [("My Pets (2)", "my_pets_2"), ("pets", "pets"), ("写真", "mine")])
def test_a_folder_names_its_dataset(folder, name, tmp_path):
    assert dataset_name(tmp_path / folder) == name


@pytest.mark.parametrize("name", SUITED)
def test_the_config_of_a_published_dataset_is_shipped_and_reads_it(name):
    assert name in BUILDERS and load_config(tiny.ROOT / f"configs/{SUITED[name]}.py").dataset == name


def test_train_ends_with_report_and_predict(supervised_run, detailer_run, tiny_data, command):
    found = command(*again(supervised_run, tiny_data))
    report = f"scarce-jax report {supervised_run} --data-dir {tiny_data}"
    assert following(found) == [report, f"scarce-jax predict {supervised_run} PHOTOS --out overlays"]
    assert "next:" not in command(*again(supervised_run, tiny_data, "--json")).out
    measured = command("evaluate", supervised_run, "--data-dir", tiny_data)
    assert following(measured) == [report]


@pytest.mark.parametrize(("result", "coarse"), [("detailer", ["--coarse", "COARSE_MASKS"]), ("classifier", [])])
def test_only_a_result_that_reads_coarse_masks_is_predicted_with_them(result, coarse, detailer_run):
    config = dataclasses.replace(open_run(detailer_run)[2], results=(result,))
    _, predict = view_commands(detailer_run, None, config)
    assert predict == shlex.join(["scarce-jax", "predict", str(detailer_run), "PHOTOS", *coarse, "--out", "overlays"])


def test_tags_are_not_predicted(supervised_run):
    config = dataclasses.replace(open_run(supervised_run)[2], target="tags")
    assert list(view_commands(supervised_run, None, config)) == [f"scarce-jax report {supervised_run}"]


def test_what_is_checked_and_clean_is_prepared(command, tmp_path):
    source = tmp_path / "my pets"
    exports.pairs(source)
    (made,) = following(command("check", "--source", source))
    assert shlex.split(made)[1:] == ["prepare", "folder/my_pets", "--source", str(source), "--val", "0.2"]
    assert command(*shlex.split(made)[1:], "--data-dir", tmp_path / "data").status == 0
    loose = ["--images", source / "images", "--masks", source / "masks"]
    listed = ["--classes", source / "classes.txt"]
    (made,) = following(command("check", *loose, *listed))
    assert shlex.split(made)[1:] == ["prepare", "folder/images", *map(str, [*loose, *listed]), "--val", "0.2"]
    (made,) = following(command("check", *loose, "--classes", 3))
    assert "--classes CLASSES_FILE" in made
    exports.save(source / "masks/b.png", np.full(exports.SIZE, 7, np.uint8))
    argv = ["check", "--source", source, "--val", "0.34"]
    assert [shlex.split(line)[1:] for line in following(command(*argv))] == [[str(word) for word in argv]]
    assert "next:" not in command(*argv, "--json").out


def test_what_is_prepared_is_trained_on(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ["--data-dir", "data"]
    exports.folder(tmp_path / "pets")
    found = command("prepare", "folder/pets", "--source", "pets", *data)
    expected = "scarce-jax train supervised_folder --dataset folder/pets --eval-split None --data-dir data"
    assert following(found) == following(command("check", "folder/pets", *data)) == [expected]
    found = command("prepare", "folder/cats", "--source", "pets", "--val", "0.34", *data)
    init, train = "init pets --name cats --data-dir data --val 0.34", "train cats.py --data-dir data"
    assert following(found) == [f"scarce-jax {init}", f"scarce-jax {train}"]
    for line in (init, f"{train} --dry-run"):
        assert command(*shlex.split(line)).status == 0
    (tmp_path / "pets.py").touch()
    assert list(train_commands(load_prepared("folder/pets", "data"), None)) == ["scarce-jax train pets.py"]


@pytest.mark.parametrize(
    ("coarse", "proposed"),
    [
        ("train/d", "supervised_folder --dataset folder/pets"),
        ("train/a", "detailer_folder --dataset folder/pets --eval-split None"),
        ("train/a val/a", "detailer_folder --dataset folder/pets"),
    ],
    ids=["on other images", "of train", "of both splits"],
)
def test_a_detailer_is_proposed_for_images_with_both_masks(coarse, proposed, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exports.folder(tmp_path / "pets")
    exports.save_images(tmp_path / "pets/val/images")
    exports.save(tmp_path / "pets/val/masks/a.png", exports.truth("a"))
    for place in coarse.split():
        split, name = place.split("/")
        exports.save(tmp_path / f"pets/{split}/coarse/{name}.png", exports.truth("a"))
    assert command("prepare", "folder/pets", "--source", "pets", "--data-dir", "data").status == 0
    (line,) = train_commands(load_prepared("folder/pets", "data"), "data")
    assert line == f"scarce-jax train {proposed} --data-dir data"
    assert command(*shlex.split(line)[1:], "--dry-run").status == 0


def test_tags_without_a_background_are_for_no_config(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exports.save_images(tmp_path / "pets/train/images")
    (tmp_path / "pets/classes.json").write_text('{"classes": ["cat", "dog"]}')
    (tmp_path / "pets/train/tags.csv").write_text("a,cat\nb,dog\n")
    found = command("init", "pets", "--data-dir", "data")
    assert found.status == 1 and "needs a background class" in found.err
    found = command("prepare", "folder/pets", "--source", "pets", "--data-dir", "data")
    assert found.status == 0 and not following(found)


def test_weights_end_with_their_flags(command, tmp_path):
    assert following(command("weights"))[0].startswith("scarce-jax train CONFIG --STAGE.init-from hf:")
    path = torch_files.save(tmp_path / "my weights.safetensors", published.in_torch(published.resnet(18, 2)))
    (line,) = following(command("weights", path))
    assert shlex.split(line)[:5] == ["scarce-jax", "train", "CONFIG", "--STAGE.init-from", str(path)]
