"""The command line as a whole: usage, `python -m`, scripts, disks that are full."""

import json
import logging
import os
import pathlib
import resource
import subprocess
import sys

import jax
import pytest

import scarce_jax
from scarce_jax import cli
from scarce_jax.cli import COMMANDS, _quiet, main
from scarce_jax.errors import Interrupted
from tests import tiny
from tests.cli.conftest import CONFIGS, shrunk


def test_without_a_command_it_lists_them(command):
    found = command()
    assert found.status == 2 and all(name in found.out for name in COMMANDS)
    assert command("--help").status == command("-h").status == 0


def test_the_version_tells_what_a_report_of_a_fault_needs(command):
    python, devices = sys.version.split()[0], jax.device_count()
    expected = f"scarce-jax {scarce_jax.__version__}, jax {jax.__version__}, Python {python}, {devices} cpu devices\n"
    found = command("--version")
    assert (found.status, found.out, found.err) == (0, expected, "")


def test_the_version_without_the_device_that_is_asked_for_is_one_line():
    argv = [sys.executable, "-m", "scarce_jax", "--version"]
    environment = {**tiny.environment(1), "JAX_PLATFORMS": "cuda"}
    found = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert (found.returncode, found.stderr, len(found.stdout.splitlines())) == (0, "", 1)
    assert found.stdout.endswith(", no device of JAX_PLATFORMS=cuda\n")


@pytest.mark.parametrize(("wrong", "right"), [("trian", "train"), ("predcit", "predict"), ("eval", "evaluate")])
def test_an_unknown_command_is_a_usage_error_with_the_nearest_name(wrong, right, refused):
    refused(wrong, status=2, holds=[f"no command '{wrong}'; did you mean {right}?", *COMMANDS])


@pytest.mark.parametrize(
    ("argv", "missing"),
    [
        (["train"], "CONFIG"),
        (["train", "--seed", "1"], "config"),
        (["evaluate"], "RUN"),
        (["prepare"], "DATASET"),
        (["predict", "run", "a.png"], "--out"),
        (["predict", "run", "--out", "x"], "PATH"),
    ],
)
def test_a_missing_argument_is_a_usage_error(argv, missing, command):
    found = command(*argv)
    assert (found.status, found.out) == (2, "") and missing in found.err and "Traceback" not in found.err


@pytest.mark.parametrize(
    "argv",
    [
        ["train", CONFIGS / "supervised_scenes.py", "--workdir", ""],
        ["train", CONFIGS / "supervised_scenes.py", "--data-dir="],
        ["sweep", CONFIGS / "supervised_scenes.py", "--over", "seed=0,1", "--workdir", ""],
        ["evaluate", ""],
        ["report", ""],
        ["predict", "run", "", "--out", "out"],
        ["train", CONFIGS / "supervised_scenes.py", "--workdir=~no such user/x"],
    ],
)
def test_an_empty_path_is_a_usage_error(argv, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = command(*argv)
    assert (found.status, found.out) == (2, "") and "Traceback" not in found.err
    # Of a list of paths tyro says no more than that a value is wrong.
    assert any(said in found.err for said in ("found an empty path", "~no such user", "PATH...", "RUN..."))
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_is_one_message(refused):
    refused("evaluate", "x" * 300, holds=["x" * 300])


def test_errors_that_orbax_logs_are_told_by_us_alone(caplog):
    _quiet()
    log = logging.getLogger("absl")
    for library in ("orbax", "grain"):
        path = f"/site-packages/{library}/reader.py"
        log.handle(log.makeRecord("absl", logging.ERROR, path, 1, f"a fault of {library}", (), None))
    assert caplog.messages == ["a fault of grain"]


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    refused("evaluate", "~/run", holds=[f"{tmp_path}/home/run: not a run folder"])
    refused("report", "--out=~/x.html", "~/run", holds=[f"{tmp_path}/home/run"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, command):
    found = command(name, "--help")
    assert found.status == 0 and found.err == "" and found.out.startswith(f"usage: scarce-jax {name}")
    # Nothing without a word on what it is, and no Python in it.
    assert "{None}" not in found.out and "(default: None)" not in found.out
    near, right, *needed = {
        "benchmark": ("--satge", "--stage"),
        "check": ("--maksk", "--masks"),
        "configs": ("--jsno", "--json"),
        "evaluate": ("--reslt", "--result"),
        "init": ("--maksk", "--masks"),
        "predict": ("--confidenec", "--confidence", "--out", "y"),
        "prepare": ("--sorce", "--source"),
        "replay": ("--satge", "--stage"),
        "report": ("--imagse", "--images"),
        "sweep": ("--voer", "--over", "--workdir", "y"),
        "train": ("--wrokdir", "--workdir"),
        "weights": ("--jsno", "--json"),
    }[name]
    first = "supervised_scenes" if name in ("train", "sweep", "benchmark") else "x"
    found = command(name, first, *needed, near, "y")
    assert found.status == 2 and right in found.err


def test_python_m_is_the_same_program():
    argv = [sys.executable, "-m", "scarce_jax", "train", CONFIGS / "supervised_scenes.py", "--dry-run", "--json"]
    found = subprocess.run(argv, env=tiny.environment(1), capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout.splitlines()[-1])["stages"][0]["name"] == "segmenter"
    argv = [sys.executable, "-m", "scarce_jax", "evaluate", "nowhere"]
    found = subprocess.run(argv, env=tiny.environment(1), capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (1, "") and found.stderr.startswith("scarce-jax: nowhere: not a run")
    assert len(found.stderr.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_error():
    argv = f"'{sys.executable}' -m scarce_jax --help | true; exit ${{PIPESTATUS[0]}}"
    found = subprocess.run(["bash", "-c", argv], env=tiny.environment(1), capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_a_script_without_a_main_guard_works(tiny_data, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, scarce_jax\n"
        "from tests import tiny\n"
        "summary = scarce_jax.train(tiny.detailer_config(steps=1), sys.argv[1], data_dir=sys.argv[2])\n"
        "print(list(summary['results']))\n"
    )
    argv = [sys.executable, script, tmp_path / "run", tiny_data]
    found = subprocess.run(argv, env=tiny.environment(1), capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout == "['detailer', 'coarse', 'detailer_composite']\n"


@pytest.fixture
def small_disk(tmp_path):
    """A folder where a megabyte can be written, by root on a file system of that size, else by a limit on files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    if mounted:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_named_and_nothing_is_half_written(small_disk, tiny_data, refused, command):
    run = small_disk / "run"
    argv = ["train", CONFIGS / "supervised_scenes.py", "--workdir", run, "--data-dir", tiny_data, "--budget.fine", 8]
    argv += [*shrunk("segmenter"), "--segmenter.net.width", 6000]
    refused(*argv, holds=[str(run / "segmenter"), "make room or choose another"])
    assert not (run / "segmenter/DONE").exists() and not list((run / "segmenter").glob("nets/*"))


def test_a_folder_that_is_a_file_is_refused(tiny_data, refused, tmp_path):
    (tmp_path / "run").write_text("mine")
    argv = ["train", CONFIGS / "supervised_scenes.py", "--workdir", tmp_path / "run", "--data-dir", tiny_data]
    refused(*argv, *shrunk("segmenter"), "--budget.fine", 8, holds=[str(tmp_path / "run")])
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        ([], "the same command goes on from there"),
        (["--redo", "segmenter"], "the same command without --redo goes on from there"),
        (["--redo=segmenter"], "the same command without --redo goes on from there"),
    ],
)
def test_what_was_interrupted_goes_on_without_being_deleted_again(flags, advice, monkeypatch, capsys):
    def stop(words):
        raise Interrupted("stopped at step 3")

    monkeypatch.setattr(cli, "_run", stop)
    assert main(["train", "x.py", *flags]) == 130
    assert capsys.readouterr().err == f"scarce-jax: stopped at step 3; {advice}\n"


def test_main_takes_the_words_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scarce-jax", "--version"])
    assert main() == 0 and capsys.readouterr().out.startswith("scarce-jax ")
    assert pathlib.Path(scarce_jax.__file__).exists()
