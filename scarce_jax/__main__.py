"""`python -m scarce_jax`."""

import os
import sys

if __name__ == "__main__":
    # Python puts the current folder first on the path, where a module in it would hide any other; and it may be a
    # stranger's, so nothing that is not loaded yet is imported before. A checkout stays, because this package is found
    # there.
    if sys.path[0] == os.getcwd() and os.path.dirname(os.path.dirname(os.path.abspath(__file__))) != os.getcwd():
        del sys.path[0]
    from scarce_jax.cli import main

    sys.exit(main())
