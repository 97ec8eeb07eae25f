"""An export of every format."""

from __future__ import annotations

import pytest

from tests.data.formats import exports


@pytest.fixture
def written(tmp_path):
    """Writes an export by name and returns its folder."""

    def write(name: str):
        root = tmp_path / "source"
        root.mkdir()
        exports.EXPORTS[name][1](root)
        return root

    return write


@pytest.fixture(params=exports.EXPORTS)
def export(request, written):
    """(folder, format) of every export."""
    return written(request.param), exports.EXPORTS[request.param][0]
