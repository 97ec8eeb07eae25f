"""Every test runs on the CPU, with eight devices made of it."""

import os
import shutil
import subprocess
import sys
import tempfile

import pytest

# Programs of tests run for moments and compile for seconds: their loops are written by XLA's older, quicker emitters,
# each in one piece of code.
QUICK = "--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"


def _known(flag: str) -> bool:
    """Whether the installed XLA has the flag; it ends a process that sets one which it has not."""
    command = [sys.executable, "-c", "from jaxlib import xla_client; xla_client.make_cpu_client()"]
    return subprocess.run(command, env={**os.environ, "XLA_FLAGS": flag}, capture_output=True).returncode == 0


# Before anything imports JAX; in the environment, so that processes which tests start have the same.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "PYTEST_XDIST_WORKER" not in os.environ:
    flags = ["--xla_force_host_platform_device_count=8", *filter(_known, QUICK)]
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip()
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

_cache = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Processes that tests start compile nothing that was compiled before.
    _cache = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="scarce_jax_tests_")


def pytest_unconfigure():
    if _cache:
        shutil.rmtree(_cache, ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A data folder with a prepared `scenes` of few images."""
    from scarce_jax.data.builders import prepare
    from scarce_jax.data.builders.scenes import Scenes
    from tests import tiny

    folder = tmp_path_factory.mktemp("tiny_data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scenes, "SIZES", tiny.SIZES)
        prepare("scenes", folder)
    return folder
