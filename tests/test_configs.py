"""Every shipped config: it builds its recipe without data, and says what it would train."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest

from scarce_jax import config_files, methods
from scarce_jax.cli import main
from scarce_jax.cli.common import load_config, parse_with_config
from scarce_jax.cli.train import Options
from scarce_jax.data.budget import Budget
from scarce_jax.data.builders import load_info, prepare
from scarce_jax.data.datasets import KNOWN
from scarce_jax.dry_run import planned_steps
from scarce_jax.methods import detailer
from scarce_jax.recipe import Epochs, sources
from tests import tiny
from tests.data import folders

PATHS = sorted((tiny.ROOT / "configs").glob("*.py"))
DETAILERS = [path for path in PATHS if isinstance(load_config(path), detailer.Config)]
ids = [path.stem for path in PATHS]


@pytest.fixture(scope="module")
def own_data(tmp_path_factory):
    """A data folder with nothing but a user's own dataset, whose classes only its source knows."""
    folder = tmp_path_factory.mktemp("configs")
    prepare("folder/mine", folder / "data", folders.write(folder / "source"))
    return folder / "data"


@pytest.fixture
def no_data(monkeypatch, own_data):
    monkeypatch.setenv("TFDS_DATA_DIR", str(own_data))


def info_of(config):
    return KNOWN.get(config.dataset) or load_info(config.dataset)


def dry_run(capsys, path, *flags):
    capsys.readouterr()
    assert main(["train", str(path), "--dry-run", "--json", *map(str, flags)]) == 0
    out, err = capsys.readouterr()
    # The images of a folder that is prepared are looked at.
    assert all("are left out because they lack" in line for line in err.splitlines())
    return json.loads(out.splitlines()[-1])["stages"]


@pytest.mark.parametrize("path", PATHS, ids=ids)
def test_a_dry_run_needs_no_data(path, no_data, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(path)
    for flags in ([], ["--compare"]) if config.has_baselines else ([],):
        stages = dry_run(capsys, path, *flags)
        recipe = methods.by_name(methods.name_of(config)).recipe(
            dataclasses.replace(config, compare=bool(flags) or config.compare), info_of(config)
        )
        assert [stage["name"] for stage in stages] == [stage.name for stage in recipe.stages]
        for stage in stages:
            assert set(stage) == {"name", "kind", "steps", "batch", "nets", "reads", "peak_bytes"}
            assert stage["peak_bytes"] is None and stage["kind"] in ("train", "infer")
            assert stage["reads"] and (stage["steps"] is None or stage["kind"] == "train")
            if stage["kind"] == "train" and stage["steps"] is None:
                # Without data, images with tags or of sure tags are not counted.
                assert isinstance(recipe.stage(stage["name"]).steps, Epochs)
            for net in stage["nets"].values():
                assert set(net) == {"parameters", "trainable", "init_from"} and net["parameters"] > 3e4
                # What is not trained at all comes from an earlier stage; a group of rate 0 is left as it is.
                assert 0 <= net["trainable"] <= net["parameters"]
                assert net["trainable"] > 0 or net["init_from"] is not None
            assert any(net["trainable"] for net in stage["nets"].values()) == (stage["kind"] == "train")
    assert list(tmp_path.iterdir()) == []
    assert main(["train", str(path), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["stage", "kind", "steps"] and lines[2].split()[0] == stages[0]["name"]


def test_overrides_of_every_kind_arrive(no_data, capsys):
    path = tiny.ROOT / "configs/detailer_scenes.py"
    flags = ["--seed", 1, "--detailer.steps", 500, "--no-compare", "--budget.fine", 25, "--detailer.size", 64, 96]
    stages = dry_run(capsys, path, *flags)
    assert [s["name"] for s in stages] == ["detailer", "detail"]
    assert stages[0]["steps"] == 500 and stages[0]["reads"][0]["size"] == [64, 96]
    assert stages[1]["reads"][0]["ids"] == "coarse"
    path = tiny.ROOT / "configs/detailer_scenes_students.py"
    compared = dry_run(capsys, path, "--compare", "--student.steps", 7, "--detailer.net.embedding", 9)
    assert [s["steps"] for s in compared if s["name"].startswith("student")] == [7, 7]
    assert compared[0]["nets"]["segmenter"]["parameters"] != stages[0]["nets"]["segmenter"]["parameters"]


def test_epochs_become_steps_by_the_size_of_the_budget(no_data, capsys):
    path = tiny.ROOT / "configs/supervised_scenes.py"
    flags = ["--segmenter.steps", "None", "--segmenter.epochs", 3, "--segmenter.batch", 8]
    assert dry_run(capsys, path, *flags, "--budget.fine", 20)[0]["steps"] == 8
    total = KNOWN["scenes"].splits["train"]
    assert dry_run(capsys, path, *flags, "--budget.fine", "all")[0]["steps"] == -(-3 * total // 8)
    assert dry_run(capsys, path, *flags, "--budget.fine", 0.1)[0]["steps"] == -(-3 * round(0.1 * total) // 8)
    # How many images that will be only the data can say.
    assert dry_run(capsys, path, *flags, "--budget.per-class", 2, "--budget.fine", "all")[0]["steps"] is None


@pytest.mark.parametrize("path", DETAILERS, ids=[path.stem for path in DETAILERS])
def test_classifier_and_detailer_are_trained_alike(path, no_data):
    config = dataclasses.replace(load_config(path), compare=True)

    def fields(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}

    shared, net = fields(config.classifier), fields(config.classifier.net)
    assert {**shared, "net": None} == {**{name: getattr(config.detailer, name) for name in shared}, "net": None}
    # The detailer's net is the classifier's but for what reads the coarse mask.
    kind = net.pop("kind")
    assert config.detailer.net.kind == ("detailer" if kind == "pspnet" else f"{kind}_detailer")
    assert net == {name: getattr(config.detailer.net, name) for name in net}
    recipe = detailer.recipe(config, info_of(config))
    ours, theirs = (next(iter(sources(recipe.stage(name)).values())) for name in ("detailer", "classifier"))
    for name in ("dataset", "split", "ids", "take", "labels", "batch", "size", "weight"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert recipe.stage("detailer").steps == recipe.stage("classifier").steps
    assert recipe.stage("classifier").keys_as == "detailer"
    students = [recipe.stage(name) for name in ("student_detailed", "student_coarse") if config.student]
    if students:
        apart = {"name": "", "sources": {}, "evals": ()}
        assert len({repr(dataclasses.replace(student, **apart)) for student in students}) == 1
        read = [dataclasses.replace(s.sources["labelled"], labels=(), transform=None) for s in students]
        assert read[0] == read[1] and read[0].ids == "unlabelled"


@pytest.mark.parametrize("path", PATHS, ids=ids)
def test_a_config_is_values_that_survive_json(path):
    config = load_config(path)
    values = json.loads(json.dumps(config_files.to_json(config), allow_nan=False))
    assert config_files.from_json(methods.name_of(config), values) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1


@pytest.mark.parametrize("path", PATHS, ids=ids)
def test_the_docstring_names_the_command(path):
    assert re.search(rf"scarce-jax train {path.stem}\s", path.read_text())


def test_comparison_runtime_and_citations_do_not_change_the_run_folder():
    config = load_config(tiny.ROOT / "configs/detailer_scenes.py")
    folder = config_files.default_workdir(config, "detailer_scenes")
    same = dataclasses.replace(
        config, compare=not config.compare, paper={"x": 1.0}, runtime=dataclasses.replace(config.runtime, workers=7)
    )
    assert config_files.default_workdir(same, "detailer_scenes") == folder
    assert config_files.default_workdir(dataclasses.replace(config, seed=5), "detailer_scenes") != folder


def test_importing_a_config_as_a_module_has_no_side_effect():
    code = "import sys, runpy; runpy.run_path(sys.argv[1]); import jax; print(jax._src.xla_bridge._backends)"
    argv = [sys.executable, "-c", code, str(tiny.ROOT / "configs/detailer_scenes.py")]
    found = subprocess.run(argv, env=tiny.environment(1), capture_output=True, text=True)
    assert found.stdout.strip() == "{}", found.stderr


def test_a_dataset_of_ones_own_has_to_be_prepared_first(no_data, capsys):
    path = tiny.ROOT / "configs/supervised_folder.py"
    assert main(["train", str(path), "--dry-run", "--dataset", "folder/other"]) == 1
    assert "run: scarce-jax prepare folder/other --source DIR" in capsys.readouterr().err
    # Two of its six images have a mask.
    flags = ["--segmenter.steps", "None", "--segmenter.epochs", 8, "--segmenter.batch", 4]
    assert dry_run(capsys, path, *flags)[0]["steps"] == 4


def test_the_papers_figures_stand_beside_its_own_budget_alone():
    def cited(config, *flags):
        return parse_with_config(Options, [str(tiny.ROOT / "configs" / config), *flags], "train", "")[2].paper

    own = {"semi", "labelled_only", "all_labels", "table_7"}
    assert set(cited("auxiliary_camvid.py")) == own
    again = cited("auxiliary_camvid.py", "--seed", "1", "--budget.seed", "1")
    assert again == cited("auxiliary_camvid.py")
    assert cited("auxiliary_camvid.py", "--eval-split", "val") == {}
    assert set(cited("auxiliary_camvid.py", "--budget.fine", "0.25")) == {"table_7"}
    # Table 6 says which budget a figure is for; table 5 is of the file's own.
    quarter = cited("auxiliary_cityscapes.py", "--budget.fine", "0.25")
    assert set(quarter) == {"figure", "table_2", "table_3", "table_4", "table_6"}
    assert cited("auxiliary_cityscapes.py", "--budget.fine", "0.25", "--dataset", "camvid") == {}


@pytest.mark.parametrize("path", [path for path in PATHS if path.stem.startswith(("transfer_voc", "decoupled_voc"))])
def test_photographs_of_voc_keep_their_proportions_in_the_papers_configs(path):
    config = dataclasses.replace(load_config(path), compare=True)
    recipe = methods.by_name(methods.name_of(config)).recipe(config, info_of(config))
    stages = [*recipe.stages, *(evaluation for stage in recipe.stages for evaluation in getattr(stage, "evals", ()))]
    read = [source for stage in (*stages, *recipe.results.values()) for source in sources(stage).values()]
    fits = {"stretch"} if path.stem.endswith("_small") else {"native"} if "transfer" in path.stem else {"pad"}
    assert {source.fit for source in read} == fits
    if fits == {"pad"}:
        measured = [recipe.results[name].source for name in ("decoupled", "strong_only")]
        measured += [recipe.stage("decoupled").evals[0].source] if recipe.stage("decoupled").evals else []
        assert {(source.size, source.interpolation) for source in measured} == {((320, 320), "bicubic")}


def test_steps_of_epochs_are_not_told_where_some_images_lack_a_mask():
    config = load_config(tiny.ROOT / "configs/detailer_folder.py")
    stage = dataclasses.replace(config.detailer, steps=None, epochs=4.0, batch=2)
    config = dataclasses.replace(config, budget=Budget(), detailer=stage)
    info = dataclasses.replace(KNOWN["scenes"], splits={"train": 6, "val": 2}, lacking={})
    for lacking, steps in (({}, 12), ({"train": {"coarse": 3}}, None), ({"val": {"coarse": 1}}, 12)):
        info = dataclasses.replace(info, lacking=lacking)
        recipe = methods.recipe_of(config, info)
        assert planned_steps(recipe.stage("detailer"), recipe, config.budget, info) == steps
