"""The pages as a site, where the tools that build it are installed: pip install sphinx myst-parser furo."""

import subprocess
import sys

import pytest

from tests.tiny import ROOT

for tool in ("sphinx", "myst_parser", "furo"):
    pytest.importorskip(tool)


def test_the_site_builds_without_a_warning(tmp_path):
    argv = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", ROOT / "docs", tmp_path]
    found = subprocess.run(argv, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    page = (tmp_path / "performance.html").read_text()
    # Links to files of the repository are text, and their targets are not copied.
    assert "benchmarks/results/gpu" in page and "../benchmarks" not in page
    assert not (tmp_path / "_downloads").exists()
