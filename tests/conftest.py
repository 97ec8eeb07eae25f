"""Every test runs on the CPU, with eight devices made of it."""

import os
import shutil
import tempfile

# Before anything imports JAX; in the environment, so that processes which tests start have the same.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
)

_cache = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Processes that tests start compile nothing that was compiled before.
    _cache = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="scarce_jax_tests_")


def pytest_unconfigure():
    if _cache:
        shutil.rmtree(_cache, ignore_errors=True)
