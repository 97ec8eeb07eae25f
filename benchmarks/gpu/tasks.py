"""What the queue runs, the most wanted first.

In the words of a task, {work} is the folder that is kept between calls, and {data} that of the prepared datasets.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import sys
from collections.abc import Iterable

import device
from nets import NETS

HERE = "benchmarks/gpu"
LIBRARY = ("scarce_jax/losses.py", "scarce_jax/optim.py", "scarce_jax/ops", "scarce_jax/models", "scarce_jax/methods",
           "scarce_jax/recipe", "scarce_jax/training", "scarce_jax/synthetic.py")  # fmt: skip
"""Files and folders that decide a train step."""

FLAGS = {
    "no_fusion_autotuner": "--xla_gpu_experimental_enable_fusion_autotuner=false",
    "no_triton_gemm": "--xla_gpu_enable_triton_gemm=false",
    "conv_fusion": "--xla_gpu_experimental_enable_conv_fusion=true",
    "convolution_graphs": "--xla_gpu_enable_command_buffer=+CONVOLUTION",
}
"""XLA flags that are compared with the defaults."""

NO_GRAPHS = "--xla_gpu_enable_command_buffer="
"""Without CUDA graphs a profile names the instruction of each kernel."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One process of the queue.

    Attributes:
      words: its command line, after the interpreter.
      limit: seconds with the GPU after which it is killed.
      worker: the worker that runs it, "jax" or "torch".
      sources: files and folders of the checkout whose content decides its result.
      flags: XLA_FLAGS of its process.
    """

    name: str
    words: tuple[str, ...]
    limit: float = 120.0
    worker: str = "jax"
    sources: tuple[str, ...] = ()
    flags: str = ""

    def code(self) -> str:
        """12 hex digits of the command and of the content of its sources."""
        digest = hashlib.sha256(json.dumps([self.words, self.flags]).encode())
        for path in sorted(files(self.sources)):
            digest.update(path.relative_to(device.ROOT).as_posix().encode() + path.read_bytes())
        return digest.hexdigest()[:12]


def files(sources: Iterable[str]) -> set[pathlib.Path]:
    """The files of the checkout that `sources` name, folders with all their Python files."""
    paths = [device.ROOT / source for source in sources]
    return {file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])}


def tasks(tiny: bool) -> list[Task]:
    """All tasks, in their order."""
    small = ["--tiny"] if tiny else []
    count = ["--steps", "2"] if tiny else []

    def step(name: str, net: str, *words: str, limit: float = 120.0, flags: str = "") -> Task:
        command = (f"{HERE}/step.py", net, "--name", name, "--out", "{work}", *words, *count, *small)
        config = f"configs/{NETS[net].config}"
        return Task(name, command, limit, "jax", (*LIBRARY, f"{HERE}/step.py", f"{HERE}/nets.py", config), flags)

    def theirs(net: str, mode: str, limit: float = 90.0) -> Task:
        sources = tuple(f"{HERE}/{file}.py" for file in ("torch_step", "torch_nets", "nets"))
        command = (f"{HERE}/torch_step.py", net, mode, *count, *small)
        return Task(f"torch.{net}.{mode}", command, limit, "torch", sources)

    def operators(group: str, limit: float) -> Task:
        sources = (*LIBRARY, "scarce_jax/evaluation/confusion.py", f"{HERE}/operators.py", f"{HERE}/forms.py")
        return Task(f"operators.{group}", (f"{HERE}/operators.py", group, *small), limit, "jax", sources)

    def command(name: str, *words: str, limit: float = 120.0) -> Task:
        return Task(name, (f"{HERE}/command.py", *words), limit, "jax", ("scarce_jax",))

    def benchmark(name: str, config: str, *words: str) -> Task:
        shrunk = shrink("segmenter") if tiny and "infer" not in words else []
        measured = ["--steps", "2" if tiny else "200", "--json"]
        return command(name, "benchmark", f"configs/{config}", *words, *shrunk, *measured)

    def training(name: str, config: str, stages: tuple[str, ...], *words: str, run: str = "") -> Task:
        """A training of at most six minutes. One that is killed goes on in a later call that has the same {work}."""
        dataset = "scenes" if tiny or "scenes" in config else "camvid"
        drawn = ["--prepare", "scenes", "{data}"] if dataset == "scenes" else []
        words = (*words, *(["--dataset", "scenes", *shrink(*stages)] if tiny else []))
        where = ["--data-dir", "{data}", "--workdir", f"{{work}}/runs/{run or name}"]
        return command(name, *drawn, "train", f"configs/{config}", *words, *where, "--json", limit=360.0)

    several = "--runtime.steps-per-dispatch"
    native = ("64", "96") if tiny else ("512", "1024")
    camvid = ("detailer", "classifier")
    fewer = [word for stage in camvid for word in (f"--{stage}.steps", "3000", f"--{stage}.eval-every", "3000")]
    ranked = [
        operators("ceilings", 20),
        step("step.dsnet", "dsnet"),
        step("step.pspnet340", "pspnet340", limit=150),
        step("step.largefov", "largefov"),
        step("profile.dsnet", "dsnet", "--profile", flags=NO_GRAPHS),
        step("step.decoupled", "decoupled"),
        step("step.deconvnet", "deconvnet", limit=150),
        step("step.deeplabv2", "deeplabv2", limit=150),
        step("step.detailer340", "detailer340", limit=150),
        operators("convolutions", 150),
        operators("layers", 60),
        operators("heads", 90),
        step("profile.pspnet340", "pspnet340", "--profile", limit=150, flags=NO_GRAPHS),
        # The same program as step.dsnet: with the cache of that task, its seconds are those of a second start.
        step("start.dsnet.again", "dsnet", limit=60),
        step("start.pspnet340.again", "pspnet340", limit=60),
        benchmark("dispatch.1", "auxiliary_camvid.py"),
        benchmark("dispatch.8", "auxiliary_camvid.py", several, "8"),
        benchmark("dispatch.20", "auxiliary_camvid.py", several, "20"),
        *(step(f"flag.dsnet.{name}", "dsnet", flags=flag) for name, flag in FLAGS.items()),
        step("flag.pspnet340.no_fusion_autotuner", "pspnet340", limit=150, flags=FLAGS["no_fusion_autotuner"]),
        step("deterministic.dsnet", "dsnet", flags="--xla_gpu_deterministic_ops=true"),
        step("step.pspnet713", "pspnet713", "--steps", "20", limit=200),
        *(step(f"profile.{net}", net, "--profile", limit=150, flags=NO_GRAPHS) for net in ("largefov", "decoupled")),
        operators("walk", 60),
        benchmark("inference.dsnet", "auxiliary_cityscapes.py", "--mode", "infer", "--native", *native),
        benchmark("inference.dsnet.batch_8", "auxiliary_cityscapes.py", "--mode", "infer", "--native", *native,
                  "--batch", "2" if tiny else "8"),
        command("input_pipeline", "benchmarks/input_pipeline.py", "--out", "{work}/input_pipeline.jsonl",
                *(["--images", "6"] if tiny else ["--full"])),
        training("train.scenes", "detailer_scenes.py", camvid, "--compare"),
        training("train.auxiliary_camvid", "auxiliary_camvid.py", AUXILIARY[:3], run="auxiliary_camvid"),
        *(training(f"train.detailer_camvid.{n}", "detailer_camvid.py", camvid, "--compare", "--budget.fine", n, *fewer)
          for n in ("25", "50", "100")),
        training("train.auxiliary_camvid.compare", "auxiliary_camvid.py", AUXILIARY, "--compare",
                 run="auxiliary_camvid"),
        # Last, since these may take minutes to compile.
        operators("direct", 150),
        theirs("dsnet", "eager"),
        theirs("dsnet", "compile"),
        theirs("pspnet340", "eager"),
        theirs("pspnet340", "compile"),
        theirs("largefov", "eager"),
        theirs("largefov", "compile"),
        theirs("dsnet", "cudagraphs"),
        *(theirs(net, mode) for net in ("decoupled", "deconvnet", "deeplabv2", "detailer340")
          for mode in ("eager", "compile")),
        theirs("pspnet713", "eager", 120),
        theirs("pspnet713", "compile", 120),
    ]  # fmt: skip
    # A busy CPU may take long to compile a net of 100 layers.
    return [dataclasses.replace(task, limit=10 * task.limit) for task in ranked] if tiny else ranked


AUXILIARY = ("segmenter", "auxiliary", "semi", "adversarial")
"""Training stages of the auxiliary method; the last one belongs to its comparison."""


def shrink(*stages: str) -> list[str]:
    """Flags that make training stages tiny."""
    flags = {"epochs": "None", "steps": "2", "batch": "2", "size": "32 32", "augment.crop": "32 32", "eval-every": "0",
             "eval-batch": "2"}  # fmt: skip
    words = [word for s in stages for name, value in flags.items() for word in (f"--{s}.{name}", *value.split())]
    return [*words, *(word for s in stages if s != "auxiliary" for word in (f"--{s}.net", "tiny"))]


def command_line(task: Task, work: pathlib.Path, data: pathlib.Path, python: str = sys.executable) -> list[str]:
    """The words of a task's process."""
    return [python, *(word.replace("{work}", str(work)).replace("{data}", str(data)) for word in task.words)]
