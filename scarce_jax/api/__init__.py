"""Everything the command line does, as function calls."""

from scarce_jax.api.configs import default_workdir, from_json, resolve, to_json, use_compilation_cache
from scarce_jax.api.dry_run import dry_run
from scarce_jax.api.evaluate import choose_result, evaluate, load, open_run
from scarce_jax.api.train import train

__all__ = [
    "choose_result",
    "default_workdir",
    "dry_run",
    "evaluate",
    "from_json",
    "load",
    "open_run",
    "resolve",
    "to_json",
    "train",
    "use_compilation_cache",
]
