"""Records what a result was made with: the versions of the libraries, and the revision of this one."""

from __future__ import annotations

import importlib.metadata
import pathlib
import subprocess
import sys
from typing import Any

from scarce_jax import __version__

VERSIONED = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
    "scipy",
    "scikit-image",
    "opencv-python-headless",
)


def versions() -> dict[str, str]:
    """The versions of Python and of every library that may change a result; "not installed" where missing."""
    library_versions = {"python": sys.version.split()[0], "scarce-jax": __version__}
    for name in VERSIONED:
        try:
            library_versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            library_versions[name] = "not installed"
    return library_versions


def environment() -> dict[str, Any]:
    """Git revision, versions, kind of the devices and their number, for records of measurements."""
    import jax

    devices = jax.devices()
    kind = devices[0].device_kind
    return {"git_revision": git_revision(), "versions": versions(), "device": kind, "devices": len(devices)}


def git_revision() -> str | None:
    """The git revision of the library, with "-dirty" after changes; None outside a checkout."""
    root = pathlib.Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    described = subprocess.run(command, capture_output=True, text=True, check=False)
    return described.stdout.strip() or None
