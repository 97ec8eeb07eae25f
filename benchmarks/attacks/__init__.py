"""The attacks of `robustness.py`. This process imports JAX but never starts a backend, so that it may fork."""

from __future__ import annotations

import os

import common  # noqa: F401  puts this checkout on the path

# Before JAX and NumPy are imported. Programs run for moments, so they are compiled quickly, and once for all processes.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# A thread of OpenBLAS would not live on in a child.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
# Worker processes import this checkout too.
os.environ["PYTHONPATH"] = os.pathsep.join([str(common.ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
