"""A run folder written by hand, with names that a careless page would take for markup."""

import base64

import numpy as np
import pytest

from scarce_jax.data.budget import Manifest
from scarce_jax.data.files import write_checked_json
from scarce_jax.data.images import encode_png
from scarce_jax.report.compare import compare
from scarce_jax.report.files import read_run
from scarce_jax.training.fingerprint import fingerprint
from scarce_jax.training.folder import FORMAT, write_done
from scarce_jax.training.log import as_line
from tests.report.names import CLASSES, EVIL, PALETTE


@pytest.fixture
def run_folder(tmp_path):
    """Makes the folder of a run with this seed and mIoU; `unfinished` leaves its second stage at step 40 of 60."""

    def make(name="run", seed=0, miou=0.5, unfinished=False, **settings):
        folder = tmp_path / name
        config = {
            "seed": seed, "dataset": "scenes", "compare": False, "runtime": {"workers": 1},
            "paper": {"main": 0.61, "table_1": {"fine": [10, 25], "main": [0.44, 0.51]}}, "optim": {"lr": 0.1},
            **settings,
        }  # fmt: skip
        facts = {
            "format": FORMAT, "method": "detailer", "config": config, "versions": {"jax": "0.10"}, "git_revision": None,
            "command": ["scarce-jax", "train", "configs/some_config.py", "--note", EVIL], "classes": CLASSES,
            "dataset": {"name": "scenes", "versions": {"scenes": "1.0.0"}}, "palette": PALETTE, "background": 0,
            "native_ids": None, "steps": {"first": 60, "second": 60}, "devices": ["cpu", "cpu"],
        }  # fmt: skip
        write_checked_json(folder / "config.json", facts)
        roles = {"fine": ("a",), "coarse": ("a", "b"), "tags": ("a", "b"), "unlabelled": ("b",)}
        Manifest(dataset="scenes", version="1.0.0", split="train", roles=roles).write(folder / "manifest.json")
        lines = []
        for stage, last in (("first", 60), ("second", 40 if unfinished else 60)):
            for step in range(20, last + 1, 20):
                rate = {"images_per_second": 1.0 if step == 20 else 10.0 + step, "data_wait": 0.1}
                values = {"net/loss": 100.0 / step, "net/grad_norm": float("nan"), **rate}
                lines.append({"stage": stage, "step": step, "kind": "train", **values})
            lines.append({"stage": stage, "step": last, "kind": "eval", "eval": "val", "miou": 0.4})
        (folder / "metrics.jsonl").write_text("".join(map(as_line, lines)) + '{"stage": "fir')
        second = {"fine": "1", "tags": "2", "unlabelled": "3"}
        stages, descriptions = [], {"first": {"roles": {"fine": "1"}}, "second": {"roles": second}}
        for stage in ("first",) if unfinished else ("first", "second"):
            read = {"labelled": {"dataset": "scenes", "split": "train", "ids": "fine", "images": 1, "labels": ["fine"]}}
            stages.append(
                {"name": stage, "kind": "train", "seconds": 75.0, "steps": 60, "compile_seconds": 1.5, "read": read}
            )
            write_done(folder / stage, {**stages[-1], "fingerprint": fingerprint(descriptions[stage])})
        for stage, description in descriptions.items():
            write_checked_json(folder / stage / "stage.json", description)
        per_class = dict(zip(CLASSES, [0.9, miou, None], strict=True))
        figures = {"images": 2, "miou": miou, "mean_accuracy": 0.6, "pixel_accuracy": 0.9, "split": "val"}
        results = {"main": {**figures, "per_class": per_class, "miou_strong": 0.3}}
        tables = {EVIL: {"columns": ["threshold", "share"], "rows": [[0.5, 0.25], [0.9, None]]}}
        if not unfinished:
            summary = {"seconds": 200.0, "stages": stages, "results": results, "tables": tables}
            write_checked_json(folder / "summary.json", summary)
        return folder

    return make


@pytest.fixture
def content(run_folder):
    """What the page is made of: two runs that differ in their seed, measured, with one picture."""
    runs = []
    for seed in range(2):
        counts = [[90, 5, 0, 5], [40, 60, 0, 0], [0, 0, 0, 0]]
        figures = {"miou": 0.5, "mean_accuracy": 0.75, "pixel_accuracy": 0.75, "confusion": counts}
        measured = {"result": "main", "split": "val", "images": 2, **figures}
        run = read_run(run_folder(f"run{seed}", seed, 0.5 + 0.1 * seed))
        runs.append({**run, "name": f"{EVIL} {seed}", "measured": measured})
    data = base64.b64encode(encode_png(np.full((60, 80, 3), 128, np.uint8))).decode()
    uri = f"data:image/png;base64,{data}"
    layers = [{"kind": "truth", "classes": [0, 1], "mask": uri}, {"kind": "coarse", "classes": [1], "mask": uri}]
    predicted = {"kind": "prediction", "classes": [0], "mask": uri, "result": "main", "miou": 0.5}
    layers += [{**predicted, "run": number} for number in range(2)]
    layers += [{"kind": "map", "classes": [0], "label": "background", "mask": uri, "result": "main", "run": 1}]
    trusted = {"mask": uri, "result": "trusted", "run": 1}
    layers += [{"kind": "confidence", "classes": [], **trusted}]
    layers += [{"kind": "prediction", "classes": [0], "note": "82% of the pixels", **trusted}]
    shown = {"id": EVIL, "rank": 1, "of": 2, "width": 80, "height": 60, "image": uri, "layers": layers}
    gallery = {
        "dataset": "scenes",
        "split": "val",
        "classes": CLASSES,
        "palette": PALETTE,
        "runs": [0, 1],
        "pictures": [shown],
    }
    return {"runs": runs, **compare(runs), "galleries": [gallery], "left_out": [EVIL]}
