"""GPUs that are not at hand: names, limits, what fits; without the CUDA plugin, one message."""

import importlib.util
import types

import jax
import pytest

from scarce_jax.benchmark import roofline, scaling, targets
from scarce_jax.benchmark.targets import (
    BY_KIND,
    BY_NAME,
    GPUS,
    compile_for,
    devices,
    fits,
    memory_sentence,
    parse_target,
)
from scarce_jax.errors import InputError


def test_a_target_has_a_name_and_a_number():
    assert parse_target("h100") == (BY_NAME["h100"], 1)
    assert parse_target("H100x8") == (BY_NAME["h100"], 8) and parse_target("4090x2") == (BY_NAME["4090"], 2)
    assert parse_target("a100x64")[1] == 64


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("h10", ["--target h10", "did you mean h100?", "h100, h200, a100, l4, 4090"]),
        ("h100x0", ["--target h100x0: 0 GPUs; expected 1 to 4,096"]),
        ("h100x1000000", ["1,000,000 GPUs; expected 1 to 4,096"]),
        ("h100x12", ["12 GPUs", "hosts of 8"]),
    ],
)
def test_wrong_targets_are_refused(text, holds):
    with pytest.raises(InputError) as error:
        parse_target(text)
    assert all(part in str(error.value) for part in holds)


def test_every_gpu_has_limits_and_every_target_a_description():
    assert len(BY_KIND) == len(GPUS) and set(BY_NAME) == {"h100", "h200", "a100", "l4", "4090"}
    for gpu in GPUS:
        assert gpu.bfloat16 >= gpu.tf32 >= gpu.float32 > 0 and gpu.bandwidth > 0
    for gpu in BY_NAME.values():
        assert f"core_count: {gpu.cores}\n" in gpu.description and f'"{gpu.kind}"' in gpu.description
        assert f"device_memory_size: {gpu.memory}\n" in gpu.description and gpu.memory > 2**34
        assert "major: {} minor: {} ".format(*gpu.capability) in gpu.description


def test_measured_steps_are_compared_with_the_same_table():
    device = types.SimpleNamespace(device_kind="NVIDIA L4")
    found = roofline.reached({"flops": 6e12, "bytes": 30e9}, 1.0, device, "float32")
    assert found["share_of_peak"] == pytest.approx(0.1) and found["share_of_bandwidth"] == pytest.approx(0.1)


def test_what_fits_follows_from_the_memory_that_jax_takes(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    peak = 34_000_000_000
    found = fits(peak)
    assert found == {"h100": True, "h200": True, "a100": True, "l4": False, "4090": False}
    sentence = memory_sentence(16, (713, 713), peak, found)
    assert sentence == "batch 16 at 713 x 713 takes 34.0 GB: fits h100, h200, a100; not l4, 4090"
    assert not fits(64_000_000_000)["h100"]
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    assert fits(64_000_000_000)["h100"]
    for wrong in ("abc", "nan", "2"):
        monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", wrong)
        with pytest.raises(InputError, match=f"MEM_FRACTION is '{wrong}' in the environment; expected a number above"):
            fits(1)


def test_a_program_that_fits_all_or_none_says_so():
    assert memory_sentence(2, None, 2_500_000, fits(2_500_000)).endswith(
        "at native size takes 0.003 GB: fits h100, h200, a100, l4, 4090"
    )
    assert memory_sentence(2, (9, 8), 10**12, fits(10**12)).endswith("fits none of h100, h200, a100, l4, 4090")


@pytest.mark.parametrize("hidden", [("jax_plugins",), ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")])
def test_without_the_plugin_one_message_says_how_to_get_it(monkeypatch, hidden):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in hidden else find(name))
    with pytest.raises(InputError, match=r'pip install "scarce-jax\[plan\]"'):
        devices(BY_NAME["h100"], 1)


def test_products_without_settings_are_left_to_the_libraries():
    tried = []

    class Lowered:
        def __init__(self, message):
            self.message = message

        def compile(self, options):
            tried.append(options)
            if self.message and "xla_gpu_enable_triton_gemm" not in options:
                raise jax.errors.JaxRuntimeError(self.message)
            return "program"

    assert compile_for(Lowered(None)) == ("program", True)
    assert compile_for(Lowered("INTERNAL: No supported config found for HLO: %gemm_fusion_dot.25")) == (
        "program",
        False,
    )
    assert [options.get("xla_gpu_enable_triton_gemm", True) for options in tried] == [True, True, False]
    assert all(options["xla_gpu_autotune_level"] == 0 for options in tried)
    with pytest.raises(jax.errors.JaxRuntimeError, match="other"):
        compile_for(Lowered("INTERNAL: other"))


def test_an_all_reduce_moves_what_a_ring_moves():
    gpu, size = BY_NAME["h100"], 450_000_000
    latency = 4.4e-6 + 14 * 0.52e-6
    # 7/4 of the bytes over NVLink, 450 GB/s.
    assert scaling.all_reduce_seconds(size, gpu, 8) == pytest.approx(latency + 1.75e-3)
    # Between 8 hosts, 7/4 of an eighth of the bytes at 50 GB/s.
    expected = latency + 6 * 5e-6 + 1.75e-3 + 1.75 * size / 8 / 50e9
    assert scaling.all_reduce_seconds(size, gpu, 64) == pytest.approx(expected)
    assert scaling.all_reduce_seconds(size, gpu, 1) == 0
    pcie = scaling.all_reduce_seconds(0, BY_NAME["l4"], 2)
    assert pcie == pytest.approx(4.4e-6 + 2 * 1.0e-6)


def test_a_projection_counts_each_all_reduce_and_what_hides_it():
    gpu = BY_NAME["h100"]
    each = scaling.all_reduce_seconds(1000, gpu, 8)
    found = scaling.project([1000, 1000], [0.0, 1.0], 1e-3, gpu, 8)
    assert found["all_reduce_ms"] == pytest.approx(2e3 * each) and found["exposed_ms"] == pytest.approx(1e3 * each)
    assert found["efficiency"] == pytest.approx(1e-3 / (1e-3 + 2 * each))
    assert found["efficiency_overlapped"] == pytest.approx(1e-3 / (1e-3 + each))


def test_more_gpus_are_less_efficient():
    found = [scaling.project([10**8] * 3, [0.0] * 3, 0.03, BY_NAME["h100"], n) for n in scaling.PROJECTED]
    assert [one["devices"] for one in found] == [8, 64, 512]
    assert 1 > found[0]["efficiency"] > found[1]["efficiency"] > found[2]["efficiency"] > 0


def test_the_process_is_kept_from_occupying_a_gpu(monkeypatch):
    updated = {}
    monkeypatch.setattr(targets.jax.config, "update", updated.__setitem__)
    targets.without_devices()
    assert updated == {"jax_platforms": "cpu"}
