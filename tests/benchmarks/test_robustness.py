"""The judgements of the robustness harness, and that its sheet of figures is that of the results."""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys

import pytest

from scarce_jax.errors import InputError
from tests.tiny import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def attacks():
    """The modules of benchmarks/attacks, which set the environment of a process of their own."""
    with pytest.MonkeyPatch.context() as patch:
        before = dict(os.environ)
        patch.syspath_prepend(str(BENCHMARKS))
        try:
            yield {
                name: importlib.import_module(f"attacks.{name}") for name in ("sheet", "probes", "content", "values")
            }
        finally:
            os.environ.clear()
            os.environ.update(before)


def test_the_sheet_has_the_figures_of_the_results(attacks):
    sheet = attacks["sheet"]
    results = BENCHMARKS / "results" / "robustness.jsonl"
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    document = (ROOT / "docs" / "robustness.md").read_text()
    assert document.split(sheet.BEGIN)[1].split(sheet.END)[0].strip() == sheet.sheet(lines).strip()


def test_the_last_line_of_each_job_counts(attacks):
    shared = {"attack": "kills", "rounds": 1, "at_calls": 2, "failed": [], "processes_left": 0, "leftovers": []}
    shared |= {"git_revision": "abc", "versions": {"jax": "1"}}
    lines = [
        {**shared, "job": "train a", "statuses": {"-9": 3}, "equal": 0},
        {**shared, "job": "train a", "statuses": {"-9": 4}, "equal": 1},
        {**shared, "job": "train b", "statuses": {"-9": 5, "130": 1}, "equal": 1},
    ]
    table = attacks["sheet"].sheet(lines).split("###")[1]
    assert "| train a | 4 | 2 | 1 | 1 | 0 | 0 | 0 |" in table
    assert "| all | 10 | 4 | 2 | 2 | 0 | 0 | 0 |" in table


def test_outcomes_of_a_damage(attacks, tmp_path):
    outcome_of = attacks["probes"].outcome_of
    path, log = tmp_path / "run" / "net" / "DONE", logging.getLogger("scarce_jax")

    def outcome(command):
        return outcome_of(command, {"miou": 1}, path, tmp_path / "run")[0]

    def fails(error):
        def command():
            raise error

        return command

    def warns(text):
        def command():
            log.warning(text)
            return {"miou": 2}

        return command

    assert outcome(lambda: {"miou": 1}) == "harmless"
    assert outcome(lambda: {"miou": 2}) == "silent"
    assert outcome(warns("something else")) == "silent"
    assert outcome(warns(f"{path}: left out")) == "named"
    assert outcome(fails(InputError(f"{path.parent}: is damaged"))) == "named"
    assert outcome(fails(InputError(f"{tmp_path}/run: is damaged"))) == "unnamed"
    assert outcome(fails(InputError(f"{tmp_path}/run: stage net is not finished"))) == "named"
    assert outcome(fails(OSError(13, "Permission denied", str(path)))) == "named"
    assert outcome(fails(KeyError("miou"))) == "traceback"


# The hook of a process cannot be taken away, so another process has it.
KILLED = """
import os, pathlib, sys
from attacks import forks

root = pathlib.Path(sys.argv[1])
fatal = int(sys.argv[2]) or None

def child():
    forks._watch(bytearray(8), os.fspath(root), fatal)
    (root / "a").write_text("a")
    (root.parent / "outside").write_text("")
    (root / "a").read_text()
    (root / "a").rename(root / "b")
    (root / "c").mkdir()
    return 7

_, waited = os.waitpid(forks.forked(child), 0)
print(os.waitstatus_to_exitcode(waited), sorted(path.name for path in root.iterdir()))
"""


@pytest.mark.parametrize(
    ("fatal", "expected"),
    [(0, "7 ['b', 'c']"), (1, "-9 []"), (2, "-9 ['a']"), (3, "-9 ['b']")],
)
def test_a_command_is_killed_before_its_call_of_a_number(tmp_path, fatal, expected):
    root = tmp_path / "root"
    root.mkdir()
    command = [sys.executable, "-c", KILLED, str(root), str(fatal)]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_bits_are_compared_without_times(attacks, tmp_path):
    content = attacks["content"]
    assert content.timeless({"a": [{"seconds": 1, "b": 2}]}) == {"a": [{"b": 2}]}
    for name in ("whole/mask.png", "broken/mask.png", "broken/.mask.png.7.aside"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    assert content.leftovers(tmp_path / "broken") == [".mask.png.7.aside"]
    assert content.files_content(tmp_path / "broken") == content.files_content(tmp_path / "whole")
    (tmp_path / "broken/mask.png").write_bytes(b"y")
    assert content.files_content(tmp_path / "broken") != content.files_content(tmp_path / "whole")


def test_only_values_that_no_field_can_have_are_tried(attacks):
    wrong = attacks["values"]._wrong
    assert ("0",) in wrong("batch", 8, "int") and ("0",) not in wrong("eval_every", 8, "int")
    assert ("2.5",) in wrong("seed", 0, "int") and ("2.5",) not in wrong("lr", 1, "float")
    assert wrong("size", (32, 48), "tuple[int, int]")[0] == ("-3", "-3")
    assert wrong("balanced", True, "bool") == []
