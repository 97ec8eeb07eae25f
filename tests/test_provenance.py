"""What a run records of the library that made it."""

import subprocess

import pytest

from scarce_jax.provenance import git_revision, versions
from tests import tiny


@pytest.mark.skipif(not (tiny.ROOT / ".git").exists(), reason="not a checkout")
def test_the_revision_is_that_of_the_checkout():
    command = ["git", "-C", str(tiny.ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert git_revision() in (head, f"{head}-dirty")


def test_every_library_that_may_change_a_result_has_a_version():
    assert "not installed" not in versions().values()
