"""The queue of GPU measurements, rehearsed on the CPU."""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import subprocess
import sys
import time
import types

import pytest

from tests.tiny import ROOT

GPU = ROOT / "benchmarks" / "gpu"
COMMON = {"device": "cpu", "tiny": True}


@pytest.fixture(scope="module")
def scripts():
    """The modules beside the queue, which are scripts and import each other by name."""
    sys.path.insert(0, str(GPU))
    try:
        yield {name: importlib.import_module(name) for name in ("run_queue", "tasks", "kernels", "choices")}
    finally:
        sys.path.remove(str(GPU))


@pytest.fixture
def queue(scripts, tmp_path):
    """Runs snippets of Python as tasks, and gives the lines of results; `work` is the folder for files."""

    def run(*snippets: str, limit: float = 60.0, seconds: float = 60.0, workers=("jax", "jax")):
        head = f"import sys; sys.path.insert(0, {str(GPU)!r}); import device, os, pathlib, subprocess, time\n"
        planned = [scripts["tasks"].Task(f"t{k}", ("-c", head + text), limit) for k, text in enumerate(snippets)]
        end = time.monotonic() + seconds
        made = scripts["run_queue"].Queue(
            planned, tmp_path / "out", tmp_path / "work", tmp_path, end, COMMON, least=0.0
        )
        made.run(workers)
        return list(scripts["run_queue"].rows([tmp_path / "out" / "results.jsonl"]))

    return run


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may still wait for its parent to notice."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_one_process_at_a_time_has_the_gpu(queue):
    body = "with device.taken():\n    device.emit(at=time.time())\n    time.sleep(0.5)\n    device.emit(at=time.time())"
    lines = [row for row in queue(body, body) if "at" in row]
    first, second = ([row["at"] for row in lines if row["task"] == f"t{k}"] for k in range(2))
    assert first[1] <= second[0] or second[1] <= first[0]


def test_a_task_is_killed_with_its_children_when_its_time_with_the_gpu_is_over(queue, tmp_path):
    child = (
        "with device.taken():\n"
        "    child = subprocess.Popen(['sleep', '600'])\n"
        "    device.emit(child=child.pid)\n"
        "    time.sleep(600)"
    )
    rows = queue(child, "device.emit(value=1)", limit=1.0, workers=("jax",))
    (pid,) = [row["child"] for row in rows if "child" in row]
    assert not alive(pid)
    ends = {row["task"]: row for row in rows if "status" in row}
    assert ends["t0"]["status"] != 0
    assert "killed after 1 s with the GPU" in ends["t0"]["errors"]
    assert ends["t1"]["status"] == 0  # The GPU is free again, and the lines of the killed task are kept.


def test_waiting_for_the_gpu_does_not_count(queue):
    holds = "with device.taken():\n    time.sleep(3)"
    ends = [row for row in queue(holds, holds, limit=5.0) if "status" in row]
    assert [row["status"] for row in ends] == [0, 0]
    assert all(row["gpu_seconds"] < 5 for row in ends)
    assert max(row["seconds"] for row in ends) > 5.5


def test_all_ends_with_the_time(queue):
    began = time.monotonic()
    rows = queue("device.emit(value=1)\ntime.sleep(600)", seconds=8.0, workers=("jax",))
    assert time.monotonic() - began < 30
    assert [row["value"] for row in rows if "value" in row] == [1]
    assert "killed at the end of the time" in rows[-1]["errors"]


def test_a_queue_that_is_ended_from_outside_kills_its_processes(tmp_path):
    child = "import device, os, time; device.emit(pid=os.getpid()); time.sleep(600)"
    script = (
        "import run_queue, tasks\n"
        f"run_queue.tasks = lambda tiny: [tasks.Task('t', ('-c', {child!r}))]\n"
        "run_queue.main()"
    )
    words = [sys.executable, "-c", script, "--out", tmp_path / "out", "--work", tmp_path / "work", "--tiny"]
    queue = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": f"{GPU}{os.pathsep}{ROOT}"})
    results = tmp_path / "out" / "results.jsonl"
    deadline = time.monotonic() + 60
    while not (results.is_file() and '"pid"' in results.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    queue.terminate()
    queue.wait(60)
    (pid,) = [row["pid"] for row in map(json.loads, results.read_text().splitlines()) if "pid" in row]
    assert not alive(pid)


def test_a_task_is_done_by_its_code_on_its_device(scripts, tmp_path):
    lines = [
        {"task": "a", "device": "H100", "code": "1", "status": 0},
        {"task": "b", "device": "H100", "code": "1", "status": 1},
        {"task": "c", "device": "H200", "code": "1", "status": 0},
        {"task": "d", "device": "H100", "status": 1, "final": True},
        {"task": "e", "device": "H100", "code": "1", "status": 0, "tiny": True},
    ]
    file = tmp_path / "lines.jsonl"
    file.write_text("\n".join([*map(json.dumps, lines), '{"task": "f", "dev']))
    assert scripts["run_queue"].finished([file], "H100", tiny=False) == {"a": "1", "d": None}


def test_the_code_follows_the_sources(scripts, monkeypatch, tmp_path):
    monkeypatch.setattr(scripts["tasks"].device, "ROOT", tmp_path)
    (tmp_path / "lib").mkdir()
    source = tmp_path / "lib" / "op.py"
    source.write_text("1")
    task = scripts["tasks"].Task("t", ("x.py",), sources=("lib",))
    before = task.code()
    assert task.code() == before
    source.write_text("2")
    assert task.code() != before


def test_every_task_names_files_that_exist(scripts):
    planned = scripts["tasks"].tasks(tiny=False)
    assert len({task.name for task in planned}) == len(planned)
    for task in planned:
        assert (ROOT / task.words[0]).is_file()
        assert scripts["tasks"].files(task.sources)


def test_the_queue_runs_and_resumes(tmp_path):
    """The command itself, on an operator and a train step."""
    words = [sys.executable, GPU / "run_queue.py", "--out", tmp_path / "out", "--work", tmp_path / "work", "--tiny"]
    words += ["--minutes", "4", "--only", "operators.ceilings", "step.dsnet"]
    subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    results = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    (step,) = [row for row in map(json.loads, results) if "median_step_ms" in row]
    assert step["parameters"] == 2_107_027
    assert step["peak_bytes"] > 0
    assert (tmp_path / "out" / "more.tar.gz").stat().st_size > 0
    listed = subprocess.run([*words, "--list"], check=True, capture_output=True, text=True)
    assert listed.stdout.split() == []
    again = subprocess.run([*words, "--list", "--again", "step.dsnet"], check=True, capture_output=True, text=True)
    assert again.stdout.split() == ["step.dsnet"]


@pytest.mark.parametrize("flag", ["--only", "--again"])
def test_names_of_no_task_are_refused(flag):
    words = [sys.executable, GPU / "run_queue.py", "--tiny", "--list"]
    assert "step.dsnet" in subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    found = subprocess.run([*words, flag, "step.nothing"], capture_output=True, text=True)
    assert found.returncode == 2 and "no task is called step.nothing" in found.stderr


def test_choices_of_rows(scripts):
    common = {"task": "operators.layers", "device": "GPU", "operator": "pool", "part": "both"}
    step = {"device": "GPU", "parameters": 3, "images_per_second": 1.0, "trace_s": 1, "compile_s": 2}
    step["from_cache"] = False
    found = [
        {**common, "form": "library", "us": 10.0},
        {**common, "form": "slices", "us": 15.0},
        {**step, "task": "step.net", "median_step_ms": 10.0},
        {"task": "step.net", "device": "GPU", "status": 0},
        {**step, "task": "torch.net.eager", "median_step_ms": 12.0},
        {**step, "task": "flag.net.fast", "median_step_ms": 9.0},
    ]
    text = "\n".join(scripts["choices"].report(found))
    assert "| pool, both | library | 10 us | slices x 1.50 |" in text
    assert "| net | 10.00 | 1 | 1.20 |" in text
    assert "| flag.net.fast | 9.000 | 0.900 |" in text


def test_kernels_beside_their_limits(scripts):
    kernel = types.SimpleNamespace(category="convolution", phase="forward", result="bf16[8]", layer="Net/conv")
    event = scripts["kernels"].Event
    ran = [event("cudnn", "conv.1", 0, 2e5), event("cudnn", "conv.1", 4e5, 2e5), event("other", "", 8e5, 1e5)]
    table, figures = scripts["kernels"].table(ran, {"conv.1": (kernel, 0.001)}, 2)
    assert "convolution, forward" in table
    assert "limit   0.001" in table
    # Of 0.5 ms in two steps, 0.4 are those of the convolution.
    assert figures["ms_by_category"] == {"convolution, forward": 0.2, "not in the program": 0.05}
    assert (figures["kernels"], figures["busy_ms"], figures["span_ms"]) == (2, 0.25, 0.45)
    assert figures["limit_ms"] == 0.001


def test_limits_of_a_compiled_program(scripts):
    text = """HloModule step, is_scheduled=true

ENTRY %main (x: f32[1024,1024]) -> f32[1024,1024] {
  %x = f32[1024,1024]{1,0} parameter(0)
  ROOT %copy.1 = f32[1024,1024]{0,1} copy(%x)
}
"""
    ((kernel, ms),) = scripts["kernels"].limits(text, "NVIDIA H100 80GB HBM3").values()
    assert (kernel.name, kernel.bytes) == ("copy.1", 8 * 1024 * 1024)
    assert 8.4e6 / 3.35e12 < ms / 1e3 < 8.4e6 / 2e12


def test_nets_of_both_sides_have_equal_parameters(scripts):
    torch = pytest.importorskip("torch")
    import jax

    nets, torch_nets = importlib.import_module("nets"), importlib.import_module("torch_nets")
    from scarce_jax.synthetic import abstract_nets

    assert set(torch_nets.NETS) <= set(nets.NETS)
    for name, make in torch_nets.NETS.items():
        with torch.device("meta"):
            theirs = sum(parameter.numel() for parameter in make(False).parameters())
        *_, stage = nets.stage_of(name, False)
        ours = sum(x.size for net in abstract_nets(stage.nets).values() for x in jax.tree.leaves(net.params))
        assert ours == theirs, name
