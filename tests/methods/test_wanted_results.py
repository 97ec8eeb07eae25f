"""`results`: what is trained for some results of a method, and students at a budget of all images."""

import dataclasses

import pytest

from scarce_jax import methods, runs
from scarce_jax.data.budget import Budget
from scarce_jax.data.datasets import SCENES
from scarce_jax.errors import InputError
from scarce_jax.training.state import check_origins
from tests import tiny

DETAILER = tiny.detailer_config(student=True)
AUXILIARY = tiny.auxiliary_config()


def stages(config, *results):
    return [stage.name for stage in methods.recipe_of(dataclasses.replace(config, results=results), SCENES).stages]


def test_a_result_trains_what_it_needs_and_nothing_else():
    assert stages(DETAILER) == ["detailer", "detail"]
    assert stages(DETAILER, "detailer") == ["detailer"] and stages(DETAILER, "coarse") == []
    # Those of the comparison need no --compare.
    assert stages(DETAILER, "classifier_composite", "detailer") == ["detailer", "classifier"]
    assert stages(DETAILER, "student_detailed") == ["detailer", "detail", "student_detailed"]
    assert stages(DETAILER, "student_coarse") == ["student_coarse"]
    # `frequencies` is read by the auxiliary net; a table may be wanted alone.
    assert stages(AUXILIARY, "selection") == ["frequencies", "segmenter", "statistics", "auxiliary", "selection"]
    assert stages(AUXILIARY, "labelled_only") == ["segmenter"]
    # `all_labels` is as long as `semi`, which is there only if its images have to be counted for that.
    assert stages(AUXILIARY, "all_labels") == ["all_labels"]
    epochs = tiny.replaced(AUXILIARY, "semi", steps=None, epochs=2.0)
    assert "semi" in stages(epochs, "all_labels") and "semi" not in stages(epochs, "adversarial")


def test_the_stages_are_those_of_the_whole_recipe():
    whole = methods.recipe_of(dataclasses.replace(AUXILIARY, compare=True), SCENES)
    part = methods.recipe_of(dataclasses.replace(AUXILIARY, results=("semi", "selection")), SCENES)
    assert list(part.results) == ["semi"] and list(part.tables) == ["selection", "selection_classes"]
    assert all(whole.stage(stage.name) == stage for stage in part.stages)


def test_maps_of_nets_that_no_result_needs_are_left_out():
    for config, result, kept in (
        (tiny.decoupled_config(), "classifier", []),
        (tiny.decoupled_config(), "decoupled", ["class_maps", "bridging", "saliency"]),
        (tiny.transfer_config(), "all_labels", []),
        (tiny.transfer_config(), "lnet", ["lnet_map"]),
    ):
        recipe = methods.recipe_of(dataclasses.replace(config, results=(result,)), SCENES)
        check_origins(recipe)
        assert list(recipe.maps) == kept


def test_a_run_of_tables_alone_says_that_it_has_no_result(tiny_data, tmp_path):
    config = tiny.replaced(dataclasses.replace(AUXILIARY, results=("selection",)), "segmenter", steps=1)
    config = tiny.replaced(config, "auxiliary", steps=1)
    found = runs.train(config, tmp_path / "run", data_dir=tiny_data, mesh=tiny.mesh())
    assert found["results"] == {} and list(found["tables"]) == ["selection", "selection_classes"]
    with pytest.raises(InputError, match="run: has no result; train one with --results NAME"):
        runs.load(tmp_path / "run", mesh=tiny.mesh())


def test_an_unknown_result_is_refused():
    with pytest.raises(InputError, match="--results student_detail: .*did you mean student_detailed.*it has detailer"):
        stages(DETAILER, "student_detail")


def test_students_at_a_budget_of_all_images_are_refused_before_anything_is_trained(tiny_data, tmp_path):
    # As for the last row of the paper's table 1, where all images have fine masks.
    config = dataclasses.replace(DETAILER, budget=Budget(fine="all"), compare=True)
    with pytest.raises(InputError, match="student_detailed: scenes/train: 0 unlabelled images, expected the 4"):
        runs.train(config, tmp_path / "run", data_dir=tiny_data, mesh=tiny.mesh())
    assert not list(tmp_path.glob("run/*/*"))
    # What the table shows is possible.
    of_table = dataclasses.replace(config, results=("detailer", "classifier"))
    of_table = tiny.replaced(tiny.replaced(of_table, "detailer", steps=1), "classifier", steps=1)
    found = runs.train(of_table, tmp_path / "run", data_dir=tiny_data, mesh=tiny.mesh())
    assert list(found["results"]) == ["detailer", "classifier"]
    assert [stage["name"] for stage in found["stages"]] == ["detailer", "classifier"]
    assert found["stages"][0]["read"]["labelled"]["images"] == 12
