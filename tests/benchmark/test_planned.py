"""Stages compiled for another device, what their programs cost, and how both are printed.

Here that device is this machine's CPU, since a test compiles nothing for a GPU.
"""

import dataclasses
import json
import pathlib

import jax
import pytest

from scarce_jax.benchmark import targets
from scarce_jax.benchmark.cost import cost, seconds
from scarce_jax.benchmark.hlo import Kernel, kernels
from scarce_jax.benchmark.largest import search
from scarce_jax.benchmark.planned import plan
from scarce_jax.benchmark.targets import fits, memory_sentence
from scarce_jax.cli.planned import largest_sentence, show
from scarce_jax.dry_run import dry_run
from scarce_jax.errors import InputError
from tests import tiny

PROGRAMS = pathlib.Path(__file__).with_name("programs")
H100 = targets.BY_NAME["h100"]


@pytest.fixture
def at_hand(monkeypatch):
    """Compiles for this machine in place of the target."""
    monkeypatch.setattr(targets, "devices", lambda gpu, count: jax.devices()[:count])
    monkeypatch.setattr(targets, "without_devices", lambda: None)


def kernel(**values):
    return Kernel(**{"name": "k", "category": "elementwise", "phase": "forward", "layer": "", "result": ""} | values)


def test_a_kernel_takes_as_long_as_its_bytes_or_its_products():
    moved = kernel(read=1_500_000_000, written=1_500_000_000, flops=1000)
    assert seconds(moved, H100) == pytest.approx(1e-3, rel=1e-3)
    for unit, tera in (("bfloat16", 790), ("tf32", 395), ("float32", 66.9 * 790 / 989.4)):
        product = kernel(read=8, written=8, flops=10**12, unit=unit)
        assert seconds(product, H100) == pytest.approx(1 / tera)


def test_the_cost_of_a_program_is_the_sum_over_its_kernels():
    program = [
        kernel(read=3_000_000, written=0, runs=10),
        kernel(category="convolution", read=0, written=3_000, flops=79_000_000_000, window=(3, 3), layer="Net/a"),
        kernel(category="kernel gradient", read=0, written=0, flops=79_000_000_000, window=(43, 41), phase="backward"),
    ]
    found = cost(program, 4, H100, 1)
    assert (found["kernels"], found["small_kernels"]) == (12, 2)
    assert (found["bytes"], found["flops"]) == (30_003_000, 158_000_000_000)
    assert found["bound_ms"] == pytest.approx(0.01 + 0.2, rel=1e-3)
    assert found["bytes_bound"] == pytest.approx(1 / 21, rel=1e-3)
    assert found["images_per_second"] == pytest.approx(4 / 0.21e-3, rel=1e-3)
    assert (found["largest_window"], found["wide_windows"], found["all_reduces"]) == ([43, 41], 1, None)
    assert [line["layer"] for line in found["costliest"]][0] in ("Net/a", "") and len(found["costliest"]) == 3
    parts = {line["category"]: line for line in found["categories"]}
    assert parts["elementwise"]["kernels"] == 10 and parts["elementwise"]["bytes"] == 30_000_000
    assert sum(line["ms"] for line in parts.values()) == pytest.approx(found["bound_ms"])


def test_all_reduces_are_no_kernels_of_the_bound():
    program = kernels((PROGRAMS / "all_reduces.txt").read_text())
    found = cost(program, 4, H100, 2)
    reduces = found["all_reduces"]
    assert (reduces["count"], reduces["bytes"], reduces["link"]) == (2, 2 * 9 * 64 * (32 + 64) + 4, "NVLink")
    assert found["kernels"] == len(program) - 2
    assert found["bytes"] == sum(one.bytes for one in program if not one.collective)
    # The loss of 1 kB is scheduled beside the gradients.
    assert 0 < reduces["all_reduce_ms"] - reduces["exposed_ms"] < 1e-3
    step = (found["bound_ms"] + reduces["exposed_ms"]) / 1e3
    assert found["images_per_second"] == pytest.approx(4 / step)
    assert [one["devices"] for one in reduces["projected"]] == [8, 64, 512]


def test_the_record_of_every_training_stage(at_hand, tmp_path):
    config = tiny.detailer_config(compare=True)
    record = plan(config, "h100", data_dir=tmp_path, batch=8, name="tiny")
    assert (record["benchmark"], record["target"], record["device"]) == ("target", "h100", "NVIDIA H100 80GB HBM3")
    assert (record["config"], record["dtype"], record["devices"]) == ("tiny", "bfloat16", 1)
    assert [stage["stage"] for stage in record["stages"]] == ["detailer", "classifier"]
    for stage in record["stages"]:
        assert (stage["batch"], stage["images"], tuple(stage["crop"])) == (8, 8, (32, 32))
        assert stage["peak_bytes"] > 8 * 32 * 32 * 3 and stage["fits"]["l4"] and stage["kernels"] > 0
    json.dumps(record, allow_nan=False)
    text = show(record)
    assert "tiny, " in text and "detailer: batch 8 at 32 x 32 takes 0.00" in text and "costliest kernels" in text


def test_auto_is_bfloat16_on_a_target(at_hand, tmp_path):
    config = tiny.supervised_config()
    for dtype, expected in (("auto", "bfloat16"), ("float32", "float32")):
        record = plan(dataclasses.replace(config, dtype=dtype), "l4", data_dir=tmp_path)
        assert record["dtype"] == expected


def test_a_dry_run_says_what_fits(at_hand, tmp_path):
    (stage,) = dry_run(tiny.supervised_config(), tmp_path, target="l4")["stages"]
    assert stage["memory"] == memory_sentence(8, (32, 32), stage["peak_bytes"], fits(stage["peak_bytes"]))
    assert "memory" not in dry_run(tiny.supervised_config(), tmp_path)["stages"][0]


def test_inferring_stages_and_stages_by_name(at_hand, tmp_path):
    config = tiny.detailer_config(compare=True)
    found = plan(config, "h100", mode="infer", data_dir=tmp_path)
    assert [stage["stage"] for stage in found["stages"]] == ["detail"] and found["stages"][0]["bytes"] > 0
    found = plan(config, "h100", stage="classifier", data_dir=tmp_path)
    assert [stage["stage"] for stage in found["stages"]] == ["classifier"]
    with pytest.raises(InputError, match="no stage 'detail' of mode train; expected one of detailer, classifier"):
        plan(config, "h100", stage="detail", data_dir=tmp_path)


def test_sizes_of_nothing_are_refused(tmp_path):
    for sizes in (dict(batch=0), dict(native=(64, 0))):
        with pytest.raises(InputError, match="expected at least 1"):
            plan(tiny.supervised_config(), "h100", data_dir=tmp_path, **sizes)


def test_several_gpus_share_a_batch(at_hand, tmp_path):
    config = tiny.supervised_config()
    found = plan(config, "h100x2", batch=4, data_dir=tmp_path)
    (stage,) = found["stages"]
    assert found["devices"] == 2 and stage["all_reduces"]["count"] > 0
    text = show(found)
    assert "efficiency at this batch per GPU: 8 GPUs" in text and "batch 4 at 32 x 32 on 2 GPUs takes" in text
    with pytest.raises(InputError, match="do not divide over 2 devices"):
        plan(config, "h100x2", batch=3, data_dir=tmp_path)


def test_batches_of_the_search_divide_into_groups_of_statistics(at_hand, monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.001")
    config = tiny.supervised_config()
    config = dataclasses.replace(config, segmenter=dataclasses.replace(config.segmenter, statistics_groups=4))
    (stage,) = plan(config, "l4", batch=4, largest_batch=True, data_dir=tmp_path)["stages"]
    assert all(int(batch) % 4 == 0 for batch in stage["largest_batch"]["peaks"])


def test_the_largest_batch_is_compiled_and_the_next_one_too():
    tried = []

    def peak(batch):
        tried.append(batch)
        return 1000 + 90 * batch + batch // 7

    found = search(peak, {16: peak(16)}, 2, 5000)
    assert found["batch"] == 44 and found["exact"] and peak(44) <= 5000 < peak(46)
    assert tried[:3] == [16, 8, 44] and set(found["peaks"]) == {"8", "16", "44", "46"}
    assert found["peaks"]["44"] == peak(44)
    sentence = largest_sentence(found)
    assert sentence.startswith("largest batch that fits: 44 (compiled 8: 0.000 GB")


def test_a_batch_that_is_too_large_is_lowered():
    found = search(lambda batch: 100 * batch, {64: 6400}, 1, 1050)
    assert (found["batch"], found["exact"]) == (10, True)


def test_where_nothing_fits_the_search_ends():
    found = search(lambda batch: 10_000 + batch, {4: 10_004}, 4, 500)
    assert found["batch"] is None and "no batch fits" in largest_sentence(found)


def test_a_search_that_ends_early_says_at_least():
    jumps = iter(range(1, 100))
    found = search(lambda batch: next(jumps), {1: 0}, 1, 1000)
    assert not found["exact"] and f"at least {found['batch']}" in largest_sentence(found)
    assert len(found["peaks"]) == 7
