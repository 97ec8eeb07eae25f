"""The configs that come with the package: where they lie, what names them, and `scarce-jax configs`."""

import pytest

from scarce_jax import config_files, methods, shipped
from scarce_jax.cli.common import load_config, parse_with_config
from scarce_jax.cli.train import Options
from scarce_jax.errors import InputError
from tests.cli.conftest import CONFIGS

NAMES = sorted(path.stem for path in CONFIGS.glob("*.py"))
STARTING_FROM_ANOTHER = [name for name in NAMES if "variables(" in (CONFIGS / f"{name}.py").read_text()]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_wheel_has_them_in_the_package_and_a_checkout_beside_it(tmp_path):
    package = tmp_path / "scarce_jax"
    package.mkdir()
    assert shipped._folder(package) == tmp_path / "configs"
    (package / "configs").mkdir()
    assert shipped._folder(package) == package / "configs"
    assert shipped.FOLDER == CONFIGS and shipped.names() == NAMES


def test_a_name_is_the_same_run_as_a_path():
    def run_folder(*argv):
        path, _, config = parse_with_config(Options, argv, "train", "")
        return config_files.default_workdir(config, path.stem)

    by_path = run_folder(str(CONFIGS / "detailer_scenes.py"), "--seed", "1")
    assert by_path.name.startswith("detailer_scenes-")
    assert run_folder("detailer_scenes", "--seed", "1") == by_path
    assert run_folder("detailer_scenes.py", "--seed", "1") == by_path


def test_an_existing_file_wins(empty_folder):
    for name in ("detailer_scenes", "detailer_scenes.py"):
        (empty_folder / name).write_text((CONFIGS / "supervised_scenes.py").read_text())
        assert methods.name_of(load_config(name)) == "supervised"
    (empty_folder / "supervised_folder").mkdir()
    assert shipped.locate("supervised_folder") == CONFIGS / "supervised_folder.py"


@pytest.mark.parametrize("command_name", ["train", "sweep", "benchmark"])
def test_what_names_no_config_is_one_message(command_name, refused):
    flags = ["--workdir", "w"] if command_name == "sweep" else []
    refused(command_name, "detailer_scene", *flags, holds=["`scarce-jax configs` lists", "mean detailer_scenes?"])
    refused(command_name, "my.py", *flags, holds=["config my.py: no such file", "`scarce-jax configs` lists"])
    named = "is named without a folder: detailer_scenes"
    refused(command_name, "configs/detailer_scenes.py", *flags, holds=["configs/detailer_scenes.py: no such", named])


def test_a_file_without_its_suffix_is_suggested(empty_folder, refused):
    (empty_folder / "pets").mkdir()
    refused("train", "pets", holds=["config pets: a folder; expected a Python file"])
    (empty_folder / "pets.py").touch()
    refused("train", "pets", holds=["did you mean pets.py?"])


def test_all_are_listed_below_their_method(command):
    found = command("configs", "--json")
    assert found.status == 0 and found.err == ""
    listed = {config["name"]: config for config in found.json["configs"]}
    assert sorted(listed) == NAMES
    for name, config in listed.items():
        assert config["method"] == methods.name_of(load_config(name)), "a config is named after its method"
        assert config["summary"].endswith(".") and len(config["summary"]) <= 120
    text = found.out.splitlines()
    assert text[0] == "supervised" and text[text.index("detailer") + 1].split()[0] == "detailer_camvid"


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_list_fits_the_terminal(columns, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    groups = command("configs").out.rpartition("\n\n")[0].splitlines()
    assert max(map(len, groups)) <= min(columns, 120)
    assert {line.split()[0] for line in groups if line[:3].strip() and line.startswith("  ")} == set(NAMES)


@pytest.mark.parametrize("name", ["detailer_scenes", *STARTING_FROM_ANOTHER])
def test_a_shown_config_is_the_same_config_anywhere(name, command, empty_folder):
    found = command("configs", "show", name)
    assert (found.status, found.err, found.out) == (0, "", (CONFIGS / f"{name}.py").read_text())
    (empty_folder / "my.py").write_text(found.out)
    assert load_config("my.py") == load_config(name)
    assert command("configs", "show", f"{name}.py").out == found.out


def test_a_config_that_cannot_be_shown_is_one_message(refused):
    refused("configs", "show", "detailer_scens", holds=["config detailer_scens: none", "mean detailer_scenes?"])
    refused("configs", "show", status=2, holds=["expected the name of one config, found 0"])
    refused("configs", "show", "detailer_scenes", "--json", status=2, holds=["leave out --json"])
    for words in (["detailer_scenes"], ["shwo", "detailer_scenes"]):
        refused("configs", *words, status=2, holds=["scarce-jax configs show detailer_scenes"])


def test_a_config_that_starts_from_an_unknown_one_is_named(empty_folder):
    (empty_folder / "my.py").write_text('from scarce_jax.shipped import variables\nconfig = variables("detailer")\n')
    with pytest.raises(InputError, match="config my.py: config detailer: none of this name"):
        load_config("my.py")
