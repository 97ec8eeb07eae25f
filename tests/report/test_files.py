"""What a report reads from run folders, and how it groups runs."""

import numpy as np
import pytest

from scarce_jax.errors import InputError
from scarce_jax.report import report
from scarce_jax.report.compare import compare
from scarce_jax.report.files import POINTS, read_run
from scarce_jax.report.gallery import choose
from scarce_jax.report.measure import score
from scarce_jax.training.log import as_line


def test_a_finished_run_is_read_whole(run_folder):
    run = read_run(run_folder())
    assert run["config_name"] == "some_config"
    # Coarse masks, which the budget has too, are read by no stage.
    assert run["budget"] == {"fine": 1, "tags": 2, "unlabelled": 1}
    assert run["settings"]["optim.lr"] == 0.1 and run["results"]["main"]["miou"] == 0.5
    first, second = run["stages"]
    assert first["done"] and second["done"] and first["seconds"] == 75.0
    # The first interval, which holds the compilation, does not count.
    assert first["images_per_second"] == pytest.approx((50 + 70) / 2)
    assert run["curves"]["first"]["net/loss"] == [[20, 40, 60], [5.0, 2.5, 1.66667]]
    assert run["curves"]["first"]["eval val miou"] == [[60], [0.4]]


def test_an_unfinished_run_says_how_far_it_came(run_folder):
    run = read_run(run_folder(unfinished=True))
    first, second = run["stages"]
    assert first["done"] and not second["done"] and (second["at"], second["steps"], second["seconds"]) == (40, 60, None)
    assert run["results"] == {} and not run["finished"]


def test_a_long_curve_is_thinned_and_keeps_its_end(run_folder):
    folder = run_folder()
    lines = [{"stage": "first", "step": k, "kind": "train", "net/loss": float(k)} for k in range(1, 4 * POINTS + 2)]
    (folder / "metrics.jsonl").write_text("".join(map(as_line, lines)))
    steps, values = read_run(folder)["curves"]["first"]["net/loss"]
    assert len(steps) <= POINTS and steps[-1] == 4 * POINTS + 1 == values[-1]
    assert {b - a for a, b in zip(steps, steps[1:], strict=False)} == {5}


def test_runs_that_differ_by_their_seed_are_averaged(run_folder):
    runs = [read_run(run_folder(f"run{seed}", seed, miou)) for seed, miou in enumerate((0.5, 0.6, 0.7))]
    runs.append(read_run(run_folder("other", 0, 0.9, optim={"lr": 0.2})))
    runs.append(read_run(run_folder("same", 3, 0.2, runtime={"workers": 9}, optim={"lr": 0.1, "eval_batch": 7})))
    found = compare(runs)
    assert [group["runs"] for group in found["groups"]] == [[0, 1, 2, 4], [3]]
    assert [group["name"] for group in found["groups"]] == ["some_config", "some_config (2)"]
    first = found["groups"][0]
    assert first["seeds"] == [0, 1, 2, 3]
    assert first["results"]["main"]["miou"] == pytest.approx([0.5, 0.25, 4])
    assert "per_class.never seen" not in first["results"]["main"]
    assert found["differences"] == {"optim.lr": [0.1, 0.2]}


def test_images_are_best_worst_and_evenly_between():
    mious = [0.5, None, 0.9, 0.1, 0.7, 0.3]
    assert choose(mious, 3) == [2, 0, 3]
    assert choose(mious, 2) == [2, 3]
    assert choose(mious, 1) == [2]
    assert choose(mious, 0) == []
    assert choose(mious, 99) == [2, 4, 0, 5, 3]


def test_wrong_input_is_refused_before_anything_is_read(run_folder, tmp_path):
    folder = run_folder()
    for match, arguments in (
        ("no run given", ([],)),
        ("not a run folder", ([tmp_path / "none"],)),
        ("are the same run", ([folder, folder / "." / "../run"],)),
        ("there is no folder", ([folder], tmp_path / "none" / "report.html")),
        ("is a folder", ([folder], tmp_path)),
        ("does not end in .html", ([folder], tmp_path / "photo.png")),
    ):
        with pytest.raises(InputError, match=match):
            report(*arguments)
    with pytest.raises(InputError, match="--images -1: expected 0 or more"):
        report([folder], images=-1)
    assert not (folder / "report.html").exists()


def test_images_are_scored_by_their_number_whatever_the_order():
    # Images of one size share a batch, so predictions of a dataset of many sizes come in another order.
    right, wrong = np.zeros((6, 5), np.uint8), np.ones((6, 5), np.uint8)
    half = np.repeat([[0, 1]], 4, 0).astype(np.uint8)
    predictions = [(2, right, wrong), (0, half, half), (3, right, right)]
    counts, mious = score(predictions, 4, ("a", "b"))
    assert mious == [1.0, None, 0.0, 1.0]
    np.testing.assert_array_equal(counts, [[4 + 30, 30, 0], [0, 4, 0]])
