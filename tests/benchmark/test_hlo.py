"""The kernels of compiled GPU programs: those of `programs/`, which `make_programs.py` compiled."""

import pathlib

import pytest

from scarce_jax.benchmark.hlo import kernels
from scarce_jax.benchmark.hlo_text import layer, parse, size

PROGRAMS = pathlib.Path(__file__).with_name("programs")
IMAGES, FEATURES = 4 * 24 * 24 * 32 * 2, 4 * 24 * 24 * 64 * 2
FIRST, SECOND = 3 * 3 * 32 * 64 * 2, 3 * 3 * 64 * 64 * 2
"""Bytes in bfloat16 of the images, of either layer's result, and of the two kernels."""


def program(name):
    return kernels((PROGRAMS / f"{name}.txt").read_text())


def work(kernel):
    return kernel.read, kernel.written, kernel.flops


@pytest.fixture(scope="module")
def convolutions():
    return [kernel for kernel in program("convolutions") if kernel.flops]


def test_every_instruction_with_work_is_one_kernel():
    found = program("convolutions")
    computations, entry = parse((PROGRAMS / "convolutions.txt").read_text())
    called = {line.name for line in computations[entry] if line.opcode in ("fusion", "custom-call")}
    assert {kernel.name for kernel in found} == called and len(found) == len(called) == 17


def test_a_convolution_reads_its_input_and_kernel_and_writes_its_result(convolutions):
    # 2 operations for each of the 3 x 3 x channels products of a value of the result.
    places = 4 * 24 * 24 * 64
    first, second, *_ = convolutions
    assert (first.category, first.phase, first.layer) == ("convolution", "forward", "Net/first")
    assert work(first) == (IMAGES + FIRST, FEATURES, 2 * places * 9 * 32)
    assert second.layer == "Net/second" and work(second) == (FEATURES + SECOND, FEATURES, 2 * places * 9 * 64)
    assert first.window == second.window == (3, 3) and first.unit == "bfloat16"


def test_gradients_cost_what_their_convolution_costs(convolutions):
    gradients = {(kernel.category, kernel.layer): kernel for kernel in convolutions if kernel.phase == "backward"}
    assert set(gradients) == {
        ("input gradient", "Net/second"),
        ("kernel gradient", "Net/second"),
        ("kernel gradient", "Net/first"),
    }
    for (_, name), kernel in gradients.items():
        (forward,) = [one for one in convolutions if one.phase == "forward" and one.layer == name]
        assert kernel.flops == forward.flops
    assert work(gradients["kernel gradient", "Net/first"])[:2] == (IMAGES + FEATURES, FIRST)
    assert work(gradients["input gradient", "Net/second"])[:2] == (FEATURES + SECOND, FEATURES)


def test_a_kernel_gradient_with_a_window_of_the_images_size_is_recognised(convolutions):
    windows = {(kernel.category, kernel.layer): kernel.window for kernel in convolutions}
    assert windows["kernel gradient", "Net/second"] == (24, 24)
    assert windows["kernel gradient", "Net/first"] == windows["input gradient", "Net/second"] == (3, 3)


def test_a_fused_kernel_reads_of_an_array_what_it_slices():
    (kernel,) = program("slices")
    row, number = 32 * 2, 4
    assert work(kernel) == (2 * 4096 * 32 * 2 + row + number, 4096 * 32 * 2, 0)


def test_a_fused_kernel_reads_no_more_of_an_array_that_it_converts():
    found = program("converted_slices")
    assert sum(kernel.read for kernel in found) == 4 * (1024 + 2048)
    assert sum(kernel.written for kernel in found) == 2 * (1024 + 2048)


def test_the_kernels_of_a_loop_run_once_a_trip_and_update_in_place():
    matrix = 256 * 256 * 2
    inside = [kernel for kernel in program("loop") if kernel.runs > 1]
    assert {kernel.runs for kernel in inside} == {5}
    (product,) = [kernel for kernel in inside if kernel.flops]
    assert product.flops == 2 * 256**3 and product.read == 2 * matrix
    (kept,) = [kernel for kernel in inside if kernel.name.startswith("fusion-start")]
    # The result is [5, 256, 256], of which a trip writes one part.
    assert (kept.read, kept.written) == (matrix + 4, matrix)


def test_the_costlier_branch_counts():
    found = program("branches")
    assert sum(kernel.flops for kernel in found) == 2 * 256**3


@pytest.mark.parametrize("name", ["products", "library_products"])
def test_products_count_at_the_unit_that_computes_them(name):
    found = {kernel.unit: kernel for kernel in program(name) if kernel.flops}
    assert set(found) == {"bfloat16", "tf32", "float32"}
    assert found["bfloat16"].flops == 2 * 1024 * 512 * 2048
    assert found["tf32"].flops == found["float32"].flops == 2 * 512**3
    assert found["bfloat16"].written == 1024 * 2048 * 2, "scratch memory is no result"
    assert {kernel.category for kernel in found.values()} == {"matrix product"}


def test_all_reduces_and_what_may_run_beside_them():
    found = program("all_reduces")
    gradients, loss = (kernel for kernel in found if kernel.collective)
    assert gradients.read == FIRST + SECOND and loss.read == 4
    assert gradients.beside == 1 and found[found.index(gradients) + 1].layer == "Net/loss"
    # The images are split over two GPUs.
    assert found[1].flops == 2 * 2 * 24 * 24 * 64 * 9 * 32


def test_sizes_of_types():
    assert size("f32[]") == 4 and size("pred[3,5]{1,0}") == 15 and size("bf16[0]{0}") == 0
    assert size("(bf16[2,3]{1,0}, /*index=1*/(s8[7]{0}, f64[2]{0}))") == 12 + 7 + 16


@pytest.mark.parametrize(
    ("op_name", "expected"),
    [
        ("jit(step)/jvp(DSNet)/backbone/stem/conv/conv_general_dilated", "DSNet/backbone/stem/conv"),
        ("jit(step)/transpose(jvp(DSNet))/backbone/stem/jit(relu)/select_n", "DSNet/backbone/stem"),
        ("jit(step)/jvp(Net)/initial/(left/bn/mul:right/bn/mul)", "Net/initial"),
        ("jit(step)/jvp(Net)/bn/mul;jit(step)/jvp(Net)/bn/add", "Net/bn"),
        ("jit(step)/while/body/closed_call/checkpoint/jvp(Net)/bhwc,cf->bhwf/dot_general", "Net"),
        ("jit(step)/add", ""),
        ("", ""),
    ],
)
def test_the_layer_of_an_instruction(op_name, expected):
    assert layer(op_name) == expected
