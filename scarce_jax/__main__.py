"""`python -m scarce_jax`."""

import os
import pathlib
import sys

from scarce_jax.cli import main

if __name__ == "__main__":
    # Python puts the current folder first on the path, where a module in it would hide any other; and it may be a
    # stranger's. A checkout stays, because this package is found there.
    if sys.path[0] == os.getcwd() and pathlib.Path(__file__).parents[1] != pathlib.Path.cwd():
        del sys.path[0]
    sys.exit(main())
