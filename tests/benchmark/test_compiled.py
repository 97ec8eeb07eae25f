"""The script `benchmarks/compiled.py`: floors, comparison with the last results, and the table."""

import runpy
import subprocess
import sys
import types

import pytest

from scarce_jax.benchmark.hlo import Kernel
from tests import tiny

SCRIPTS = tiny.ROOT / "benchmarks"


@pytest.fixture(scope="module")
def script():
    path = list(sys.path)
    sys.path.insert(0, str(SCRIPTS))
    values = runpy.run_path(str(SCRIPTS / "compiled.py"))
    sys.path[:] = path
    return types.SimpleNamespace(**values)


def kernel(category, phase, layer, written, **values):
    return Kernel("k", category, phase, layer, values.pop("result", "bf16[1]"), 0, written, **values)


def test_the_floor_counts_convolutions_passes_shortcuts_and_parameters(script):
    program = [
        kernel("convolution", "forward", "Net/block/conv1", 100, flops=1),
        kernel("convolution", "forward", "Net/block/conv3", 10, flops=1),
        kernel("convolution", "forward", "Net/head", 1000, flops=1, result="(f32[1], u8[0])"),
        kernel("kernel gradient", "backward", "Net/block/conv1", 7, flops=1),
        kernel("reduction", "forward", "Net/block/bn1", 5000),
    ]
    plain = script.Step("")
    found = script.floor(plain, program, 3, lambda kernel: 0.5, 100.0)
    moved = 8 * 110 + 20 * 3
    assert found == {"floor_bytes": moved + 1117, "floor_ms": 1e3 * (4 * 0.5 + moved / 100)}
    blocks = plain._replace(shortcuts=True, passes=3, trained="Net/block")
    found = script.floor(blocks, program, 0, lambda kernel: 0.0, 1.0)
    assert found["floor_bytes"] == 3 * 110 + 3 * 10 + 1117
    assert script.floor(plain._replace(trained="Other"), program, 0, lambda kernel: 0, 1)["floor_bytes"] == 1117


def line(**values):
    counts = {
        "batch": 8,
        "images": 8,
        "kernels": 1000,
        "small_kernels": 600,
        "wide_windows": 0,
        "largest_window": [3, 3],
    }
    work = {"bytes": 20e9, "flops": 1e12, "bound_ms": 8.0, "images_per_second": 1000.0, "peak_bytes": 2e9}
    least = {"floor_bytes": 10e9, "floor_ms": 4.0}
    facts = {"net": "dsnet", "target": "h100", "git_revision": "0123456789", "triton_gemm": True}
    return {**facts, **counts, **work, **least, **values}


def test_a_line_is_compared_with_the_last_of_its_net(script):
    earlier = [line(bytes=1e9), line(), line(net="largefov", bytes=1.0), line(target="a100", bytes=1.0)]
    assert script.compared(line(bytes=20.6e9, kernels=900), earlier) == [
        "bytes of dsnet rose by 3.0%",
        "kernels of dsnet fell by 10.0%",
    ]
    (words,) = script.compared(line(kernels=500, triton_gemm=False), earlier)
    assert words == "kernels of dsnet fell by 50.0% (with other kernels of matrix products)"
    assert script.compared(line(), earlier) == script.compared(line(), []) == []


def test_windows_above_seven_are_marked(script):
    wide = line(largest_window=[43, 41], wide_windows=26)
    assert script.compared(wide, []) == ["dsnet: 26 convolutions with windows above 7 x 7, up to 43 x 41"]


def test_the_table_has_the_first_and_the_last_line_of_a_net_and_the_first_floor(script):
    lines = [line(), line(net="largefov"), line(bytes=7e9), line(bytes=12.3e9, floor_bytes=11e9, git_revision="ab")]
    rows = script.markdown(lines).splitlines()
    assert len(rows) == 2 + 3 and len({row.count("|") for row in rows}) == 1
    assert [row.split("|")[3].strip() for row in rows[2:]] == ["0123456", "ab", "0123456"]
    assert " 12.3 " in rows[3] and " 10.0 " in rows[3] and " 2,000 " in rows[3] and "DSNet" in rows[3]


def test_committed_results_are_those_of_the_last_commit(script):
    path = SCRIPTS / "results" / "crf.jsonl"
    done = subprocess.run(["git", "-C", tiny.ROOT, "rev-parse"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a checkout")
    assert len(script.committed(path)) > 0 and script.committed(path.with_name("none.jsonl")) == []


def test_steps_are_those_of_the_queue(script):
    assert script.STEPS.keys() == script.nets.NETS.keys()


@pytest.mark.parametrize("name", ["pspnet713", "detailer340", "dsnet", "largefov", "deconvnet", "deeplabv3plus"])
def test_every_step_is_a_stage_of_its_config(script, name):
    net = script.nets.NETS[name]
    config, stage = script.nets.config_of(name, tiny=False)
    values = getattr(config, stage)
    assert (config.dtype, values.batch, values.augment.crop) == ("bfloat16", net.batch, net.size)
