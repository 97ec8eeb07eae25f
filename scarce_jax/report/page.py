"""The HTML file: the template filled with styles, scripts and data."""

from __future__ import annotations

import html
import importlib.resources
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from scarce_jax.data.files import discard_asides, write_atomically

SCRIPTS = ("elements.js", "charts.js", "gallery.js", "report.js")
"""In the order of their dependencies."""


def write_page(path: pathlib.Path, content: Mapping[str, Any]) -> int:
    """Writes the file atomically, and returns its size in bytes."""
    text = page(content)
    discard_asides(path)
    with write_atomically(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return os.path.getsize(path)


def page(content: Mapping[str, Any]) -> str:
    """The text of the page.

    Args:
      content: the values that `report.js` reads: "runs", "groups", "differences", "galleries" and "left_out".
    """
    files = importlib.resources.files(__package__)
    names = ", ".join(run["name"] for run in content["runs"])
    parts = {
        "title": html.escape(f"{names} - scarce_jax report"),
        "style": (files / "report.css").read_text(encoding="utf-8"),
        "script": "\n".join((files / name).read_text(encoding="utf-8") for name in SCRIPTS),
        "data": _embedded(content),
    }
    template = (files / "template.html").read_text(encoding="utf-8")
    # A single pass, so that data that looks like a placeholder is not replaced.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)


def _embedded(value: Any) -> str:
    """JSON that cannot end its script element for an HTML parser; NaN and infinity become null."""
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
