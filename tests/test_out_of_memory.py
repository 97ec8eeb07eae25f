"""Runs whose predictions do not fit a device: one message says what to lower, and nothing is trained again."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import scarce_jax
from scarce_jax.cli import main
from scarce_jax.data.budget import Budget
from scarce_jax.errors import InputError
from scarce_jax.mesh import make_mesh
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.report import report
from tests import hungry, tiny


def config(eval_batch, infer=False):
    return hungry.Config(
        dataset="scenes",
        budget=Budget(fine=8),
        infer=infer,
        segmenter=SegmenterStage(**tiny.stage(steps=2, eval_batch=eval_batch)),
        runtime=tiny.RUNTIME,
    )


def train(run, data, **changes):
    return scarce_jax.train(config(**changes), run, data_dir=data, mesh=make_mesh(jax.devices()[:2]))


@pytest.mark.parametrize(("infer", "what"), [(False, "measuring segmenter on scenes/val"), (True, "stage frequencies")])
def test_a_run_goes_on_with_a_smaller_batch_and_trains_nothing_again(tiny_data, tmp_path, infer, what):
    with pytest.raises(InputError) as raised:
        train(tmp_path, tiny_data, eval_batch=3, infer=infer)
    message = f"{what}: out of device memory with batch 3 at 32 x 32; lower --segmenter.eval-batch, "
    assert str(raised.value).startswith(message) and not (tmp_path / "summary.json").exists()
    done = tmp_path / "segmenter/DONE"
    before = done.read_bytes(), done.stat().st_mtime_ns
    summary = train(tmp_path, tiny_data, eval_batch=2, infer=infer)
    assert summary["results"]["segmenter"]["images"] == tiny.SIZES["val"]
    assert (done.read_bytes(), done.stat().st_mtime_ns) == before


@pytest.fixture(scope="module")
def too_large(tmp_path_factory, tiny_data):
    """A finished run whose config measures in batches that this machine does not hold, and its figures."""
    run = tmp_path_factory.mktemp("too_large")
    summary = train(run, tiny_data, eval_batch=2)
    config = json.loads((run / "config.json").read_text())["config"]
    config["segmenter"]["eval_batch"] = 3
    tiny.edit(run / "config.json", config=config)
    return run, summary["results"]["segmenter"]


@pytest.fixture
def pictures(tmp_path):
    """A folder of so many pictures that every device has three."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(2 * jax.device_count() + 1):
        drawn = np.random.default_rng(k).integers(0, 256, (40, 56, 3), np.uint8)
        Image.fromarray(drawn).save(folder / f"{k}.png")
    return folder


def refused(command, capsys):
    """The message of a command that memory runs out for."""
    capsys.readouterr()
    assert main([str(word) for word in command]) == 1
    output = capsys.readouterr()
    assert output.out == "" and "Traceback" not in output.err
    return output.err


def test_evaluate_and_predict_name_the_flag_and_fit_with_it(too_large, tiny_data, pictures, tmp_path, capsys):
    run, figures = too_large
    evaluate = ["evaluate", run, "--data-dir", tiny_data]
    expected = "measuring segmenter on scenes/val: out of device memory with batch 3 at 32 x 32; lower --batch\n"
    assert expected in refused(evaluate, capsys)
    predict = ["predict", run, pictures, "--out", tmp_path / "out"]
    expected = "predicting with result segmenter: out of device memory with batch 3 at 32 x 32; lower --batch\n"
    assert expected in refused(predict, capsys)
    assert not (tmp_path / "out").exists() and list(tmp_path.iterdir()) == [pictures]
    masks = []
    for batch in (1, 2):
        measured = scarce_jax.evaluate(run, batch=batch, data_dir=tiny_data)
        assert {key: measured[key] for key in ("miou", "per_class")} == {
            key: figures[key] for key in ("miou", "per_class")
        }
        assert main([str(word) for word in (*predict, "--batch", batch)]) == 0
        masks.append(np.asarray(Image.open(tmp_path / "out/0.png")))
    np.testing.assert_array_equal(*masks)
    assert "--batch 0: expected a whole number from 1" in refused([*predict, "--batch", 0], capsys)


def test_a_report_does_without_pictures_and_says_what_to_lower(too_large, tiny_data, tmp_path):
    run, _ = too_large
    path = tmp_path / "report.html"
    (reason,) = report([run], path, data_dir=tiny_data)["left_out"]
    assert "out of device memory with batch 3 at 32 x 32; lower --batch" in reason
    assert report([run], path, data_dir=tiny_data, batch=2)["left_out"] == []
