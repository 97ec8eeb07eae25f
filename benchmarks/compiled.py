"""Compiles train steps at the papers' sizes for a GPU that is not at hand, and compares them with the last results.

    python benchmarks/compiled.py [NET ...] [--target h100] [--out FILE]
    python benchmarks/compiled.py --markdown

Needs the extra `plan`, and no GPU. A line has a stage's record of `scarce-jax benchmark --target`, with the floor of
its net: the least that it could move and compute. What is compared are the lines that are committed. --markdown prints
the table of the first and the last line of every net, and compiles nothing.

The floor counts every convolution, forward and backward, at its own bytes and products; for each result of a forward
convolution the passes over it that batch norm and ReLU need (8, or 3 without batch norm), and 3 more for a residual
block's shortcut; and 20 bytes for each trained parameter (float32 values, momentum and gradient). It is that of the
first line of a net, since a rewrite may change how its convolutions are compiled.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from common import ROOT, append, arguments

sys.path.insert(0, str(ROOT / "benchmarks" / "gpu"))
import nets  # noqa: E402

CONVOLUTIONS = ("convolution", "input gradient", "kernel gradient")
BYTES_PER_PARAMETER = 20
SHORTCUT = 3
NORMALIZED, PLAIN = 8, 3


class Step(NamedTuple):
    """What the table and the floor need to know of a net of `gpu/nets.py`.

    Attributes:
      title: for the table.
      passes: passes over each result of a forward convolution, in the floor.
      shortcuts: whether it has residual blocks.
      trained: part of the layer's path of what is trained; the rest has no backward pass.
    """

    title: str
    passes: int = NORMALIZED
    shortcuts: bool = False
    trained: str = ""


STEPS = {
    "pspnet340": Step("PSPNet-R101 340", shortcuts=True),
    "pspnet713": Step("PSPNet-R101 713", shortcuts=True),
    "detailer340": Step("Detailer-R101 340", shortcuts=True),
    "dsnet": Step("DSNet 512x1024"),
    "largefov": Step("LargeFOV 321", passes=PLAIN),
    "decoupled": Step("Decoupled 320", trained="SegmentationNet"),
    "deconvnet": Step("DeconvNet 320"),
    "deeplabv2": Step("DeepLab-v2 R101 512x1024", shortcuts=True),
    "deeplabv3plus": Step("DeepLab-v3+ 352", shortcuts=True),
}


def floor(step: Step, program: Sequence[Any], parameters: int, seconds: Callable[[Any], float], rate: float) -> dict:
    """The bytes and the ms of the floor.

    Args:
      program: kernels of the step.
      parameters: number of trained parameters.
      seconds: kernel -> its least seconds.
      rate: bytes per second.
    """
    products = [kernel for kernel in program if kernel.category in CONVOLUTIONS]
    forward = [k for k in products if (k.category, k.phase) == ("convolution", "forward") and step.trained in k.layer]
    # Results in float32 are logits, which have neither batch norm nor ReLU.
    forward = [kernel for kernel in forward if not kernel.result.startswith(("f32", "(f32"))]
    moved = step.passes * sum(kernel.written for kernel in forward) + BYTES_PER_PARAMETER * parameters
    if step.shortcuts:
        moved += SHORTCUT * sum(kernel.written for kernel in forward if "/conv3/" in f"{kernel.layer}/")
    return {
        "floor_bytes": moved + sum(kernel.bytes for kernel in products),
        "floor_ms": 1e3 * (sum(map(seconds, products)) + moved / rate),
    }


def compiled(name: str, target: str) -> dict[str, Any]:
    """The line of a net."""
    from scarce_jax import mesh as mesh_lib
    from scarce_jax.benchmark import cost, planned, targets
    from scarce_jax.dry_run import count_parameters
    from scarce_jax.provenance import git_revision, versions

    step = STEPS[name]
    gpu, count = targets.parse_target(target)
    _, info, recipe, stage = nets.stage_of(name, tiny=False)
    mesh = mesh_lib.make_mesh(targets.devices(gpu, count))
    programs: list[list[Any]] = []
    record = planned.describe(stage, recipe, info, mesh, gpu, keep=programs.append)
    parameters = sum(count_parameters(net)[1] for net in stage.nets.values())
    least = floor(step, programs[0], parameters, lambda kernel: cost.seconds(kernel, gpu), gpu.bytes_per_second)
    return {"net": name, "git_revision": git_revision(), "versions": versions(), "target": target, **record, **least}


def committed(path: Any) -> list[dict[str, Any]]:
    """The lines of the results file in the last commit."""
    name = path.resolve().relative_to(ROOT) if path.resolve().is_relative_to(ROOT) else None
    done = subprocess.run(["git", "-C", ROOT, "show", f"HEAD:{name}"], capture_output=True, text=True, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()]


def compared(line: dict[str, Any], earlier: Sequence[dict[str, Any]]) -> list[str]:
    """What changed since the last line of the same net and target, in words."""
    before = [old for old in earlier if (old["net"], old["target"]) == (line["net"], line["target"])]
    words = []
    for key, what in (("bytes", "bytes"), ("kernels", "kernels"), ("peak_bytes", "peak memory"), ("bound_ms", "bound")):
        change = line[key] / before[-1][key] - 1 if before else 0.0
        if abs(change) >= 0.005:
            words.append(f"{what} of {line['net']} {'rose' if change > 0 else 'fell'} by {abs(change):.1%}")
    if words and line["triton_gemm"] != before[-1]["triton_gemm"]:
        words[-1] += " (with other kernels of matrix products)"
    if line["wide_windows"]:
        widest = " x ".join(map(str, line["largest_window"]))
        words.append(f"{line['net']}: {line['wide_windows']} convolutions with windows above 7 x 7, up to {widest}")
    return words


COLUMNS = (
    "train step, bf16", "batch", "revision", "kernels", "below 3 MB", "GB", "TFLOP", "bound, ms", "floor, GB",
    "floor, ms", "images/s at the bound", "at the floor", "memory, GB", "windows above 7 x 7",
)  # fmt: skip


def row(line: dict[str, Any], least: dict[str, Any]) -> list[str]:
    """The cells of a line in the table, with the floor of another line."""
    return [
        STEPS[line["net"]].title,
        str(line["batch"]),
        str(line["git_revision"])[:7],
        f"{line['kernels']:,}",
        f"{line['small_kernels']:,}",
        f"{line['bytes'] / 1e9:.1f}",
        f"{line['flops'] / 1e12:.2f}",
        f"{line['bound_ms']:.1f}",
        f"{least['floor_bytes'] / 1e9:.1f}",
        f"{least['floor_ms']:.1f}",
        f"{line['images_per_second']:,.0f}",
        f"{1e3 * line['images'] / least['floor_ms']:,.0f}",
        f"{line['peak_bytes'] / 1e9:.1f}",
        f"{line['wide_windows']}"
        + (f" ({'x'.join(map(str, line['largest_window']))})" if line["wide_windows"] else ""),
    ]


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """A table of the first and the last line of every net."""
    rows = [COLUMNS, ["---"] * len(COLUMNS)]
    for name in STEPS:
        own = [line for line in lines if line["net"] == name]
        rows += [row(line, own[0]) for line in own[:1] + own[1:][-1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def main() -> None:
    parser = arguments(__doc__, "compiled.jsonl")
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"of {', '.join(STEPS)}; default all")
    parser.add_argument("--target", default="h100")
    parser.add_argument("--markdown", action="store_true", help="print the table of the results, and compile nothing")
    options = parser.parse_args()
    if options.markdown:
        print(markdown([json.loads(line) for line in options.out.read_text().splitlines()]))
        return
    import jax

    from scarce_jax.benchmark.targets import without_devices
    from scarce_jax.errors import InputError

    without_devices()
    earlier = committed(options.out)
    changes, failed = [], []
    for name in options.nets or STEPS:
        try:
            line = compiled(name, options.target)
        except (InputError, jax.errors.JaxRuntimeError) as error:
            failed.append(f"{name}: {str(error).splitlines()[0]}")
            continue
        append(options.out, line)
        changes += compared(line, earlier)
    print("\n".join(changes), file=sys.stderr)
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
