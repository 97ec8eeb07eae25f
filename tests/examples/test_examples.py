"""The scripts in examples/ run at a tiny size and with tiny nets, and make what they say."""

import json
import runpy
import sys

import numpy as np
import pytest

from scarce_jax.data.images import read_mask
from scarce_jax.models import detailer, pspnet
from scarce_jax.models.tiny import TinyConfig
from tests import tiny

EXAMPLES = tiny.ROOT / "examples"


def run(name, *arguments):
    """The globals of a script that ran with these arguments."""
    with pytest.MonkeyPatch.context() as patch, tiny.little_optimised():
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        # Compiling a ResNet takes longer than everything else.
        patch.setattr(pspnet, "PSPNetConfig", lambda **_: TinyConfig(width=4))
        patch.setattr(detailer, "DetailerConfig", lambda **_: TinyConfig(width=4))
        return runpy.run_path(str(EXAMPLES / name))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("own")
    run("own_folder.py", "--workdir", workdir, "--masks", 10, "--steps", 2, "--size", 64)
    return workdir


def test_own_folder_ends_with_overlays(own):
    masks = sorted(path.name for path in (own / "overlays").glob("*.png"))
    assert masks == sorted(f"{k}{kind}.png" for k in range(10, 14) for kind in ("", "_overlay"))
    assert read_mask(own / "overlays/10.png").shape == (128, 128)
    summary = json.loads((own / "run/summary.json").read_text())
    assert summary["results"]["segmenter"]["images"] == 2


def test_a_checkpoint_is_used_in_jax_code(own, tmp_path):
    photos = sorted((own / "more").glob("*.png"))
    made = run("use_checkpoint.py", own / "run", *photos, "--out", tmp_path / "net.mlir")
    images, shares = made["images"], made["probabilities"](made["images"])
    assert images.shape == (4, 64, 64, 3) and shares.shape == (4, 64, 64, 12)
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-5)
    assert float(np.abs(made["gradient"]).max()) > 0
    assert (tmp_path / "net.mlir").read_bytes().startswith(b"ML\xefR")  # MLIR bytecode.


def test_the_net_of_a_checkpoint_predicts_what_the_predictor_does(own):
    """Both resize to the size of the training; at that size there is nothing else between them."""
    photos = sorted((own / "more").glob("*.png"))
    made = run("use_checkpoint.py", own / "run", photos[0])
    small = np.asarray(made["images"])[0]
    np.testing.assert_allclose(made["probabilities"](small[None])[0], made["predictor"].probabilities(small), atol=1e-4)


def test_a_paper_table_has_a_row_for_every_number_of_masks(tiny_data, tmp_path, capsys):
    arguments = ["--data-dir", tiny_data, "--fine", 4, 8, "--seeds", 1, "--steps", 2, "--size", 64]
    run("paper_table.py", "--workdir", tmp_path / "table", *arguments)
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in rows[0]] == ["fine masks", "detailer", "coarse", "detailer_composite"]
    assert [row[0].strip() for row in rows[2:]] == ["4", "8"]
    assert all(0 <= float(cell.split("±")[0]) <= 1 for row in rows[2:] for cell in row[1:])
    assert (tmp_path / "table/curve.png").is_file()
