"""`python -m scarce_jax`."""

import sys

from scarce_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
