"""What one command accepts, all accept, with the same pixels: over folders drawn from a seed."""

import os

import pytest

from tests.data import made_folders

FOLDERS = int(os.environ.get("SCARCE_JAX_FOLDERS", "60"))
"""Number of folders; set it to 1000 to try them all."""


@pytest.mark.parametrize("part", range(6))
def test_all_commands_read_a_folder_alike(tmp_path, part):
    counts = made_folders.compare_all(range(part, FOLDERS, 6), tmp_path)
    assert counts["accepted"] >= FOLDERS / 6 / 4 and counts["refused"] >= FOLDERS / 6 / 8
