"""Results do not depend on the number of devices, and every device has its share of the work."""

import dataclasses

import jax
import numpy as np
import pytest

from scarce_jax import mesh as mesh_lib
from scarce_jax import run_folder, runs
from scarce_jax.evaluation import batching
from scarce_jax.evaluation.evaluate import MaskRows
from scarce_jax.recipe import Views
from scarce_jax.training import state as state_lib
from scarce_jax.training.batches import TrainInput
from scarce_jax.training.step import make_step, step_keys
from tests import tiny

COUNTS = (1, 2, 8)
CONFIG = tiny.supervised_config(steps=20)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_data):
    """The same config trained on 1, 2 and 8 devices."""
    folder = tmp_path_factory.mktemp("devices")
    for count in COUNTS:
        summary = runs.train(CONFIG, folder / str(count), data_dir=tiny_data, mesh=tiny.mesh(count))
        assert summary["devices"] == count
    return folder


def test_twenty_steps_give_equal_parameters(folders):
    one, *others = (tiny.stored(folders / str(count)) for count in COUNTS)
    for other in others:
        assert one.keys() == other.keys()
        for name, array in one.items():
            # Absolute: the sums over the batch are in another order.
            np.testing.assert_allclose(other[name], array, rtol=0, atol=1e-5, err_msg=name)


def test_every_image_counts_once_on_any_number_of_devices(folders, tiny_data):
    figures = [runs.evaluate(folders / "8", data_dir=tiny_data, mesh=tiny.mesh(count)) for count in COUNTS]
    assert [x["devices"] for x in figures] == list(COUNTS) and {x["images"] for x in figures} == {7}
    matrix = np.array(figures[0]["confusion"])
    assert (matrix.sum(0) > 0).sum() >= 3  # Not the background alone is predicted.
    for other in figures[1:]:
        np.testing.assert_array_equal(other["confusion"], matrix)
        assert other["miou_at_size"] == figures[0]["miou_at_size"]
    # 7 is divided neither by the batch of 2 nor by 8 devices: the fine masks tell how many pixels there are.
    session, _, _ = run_folder.open_run(folders / "8", tiny_data)
    rows = session.inputs.open(session.recipe.results["segmenter"].source)
    assert matrix.sum() == sum((rows.example(k)["label"] != 255).sum() for k in range(7))


def test_results_that_differ_in_their_nets_alone_are_measured_by_one_program(folders, tiny_data):
    session, _, _ = run_folder.open_run(folders / "1", tiny_data)
    item = session.recipe.results["segmenter"]
    measurement = session.measurement(item)
    assert session.measurement(dataclasses.replace(item, name="other", nets={}, groups={"some": (1,)})) is measurement
    source = dataclasses.replace(item.source, take=3)
    for change in ({"source": source}, {"views": Views(flip=True)}, {"predict": lambda *args: item.predict(*args)}):
        assert session.measurement(dataclasses.replace(item, **change)) is not measurement
    assert session.measure(dataclasses.replace(item, source=source), session.nets(item))["images"] == 3


@pytest.mark.parametrize("count", COUNTS)
def test_the_compiled_programs_split_their_rows_over_all_devices(folders, tiny_data, count):
    session, _, _ = run_folder.open_run(folders / "1", tiny_data, tiny.mesh(count))
    item = session.recipe.results["segmenter"]
    measurement, nets = session.measurement(item), session.nets(item)
    images = MaskRows(session.inputs.open(item.source), composite=False)
    batches = batching.full_batches(images.__getitem__, images.groups(), batch=2, mesh=session.mesh, threads=1)
    for number, (canvas, _, rows) in enumerate(batches):
        scaled = {name: array for name, array in rows.items() if "/" in name}
        compiled = measurement.scorer.compiled.lower(nets, scaled, {}).compile()
        assert_split(compiled.input_shardings[0][1], scaled, 2 * count, count, read={"0/image"})
        scores = measurement.scorer(nets, rows, {})
        first_row = mesh_lib.replicate(session.mesh, np.int32(0))
        counted = measurement.counter.lower(scores, rows, first_row, canvas=canvas, at_size=True).compile()
        assert_split(counted.input_shardings[0][0], scores, 2 * count, count)
        assert_split(counted.input_shardings[0][1], rows, 2 * count, count, read={"truth", "label", "counts"})
        assert int(np.asarray(rows["counts"]).sum()) == min(7 - 2 * count * number, 2 * count)
        assert all(s.is_fully_replicated for s in jax.tree.leaves(compiled.input_shardings[0][0]))

    stage = session.recipe.stage("segmenter")
    source = stage.sources["labelled"]
    inputs = {"labelled": TrainInput(source, session.inputs.open(source), 0, "x", session.mesh, 1, resident=False)}
    state = state_lib.init_state(stage.nets, 20, 0, "segmenter", {}, session.mesh)
    draws = {"labelled": next(inputs["labelled"].batches(0, 1))}
    keys = step_keys(inputs, 0, "segmenter", session.mesh)
    compiled = make_step(stage, 20, inputs, session.mesh).lower(state, draws, keys, {}).compile()
    shardings = compiled.input_shardings[0]
    assert_split(shardings[1], draws, 8, count)
    assert all(s.is_fully_replicated for s in jax.tree.leaves((shardings[0], compiled.output_shardings)))


def assert_split(shardings, arrays, rows, count, read=None):
    """Every array lies, and is expected by the program, in equal and different parts on all devices.

    Args:
      read: where a program does not read all arrays, and so says nothing of the others, some that it does.
    """
    expected = jax.tree.flatten_with_path(shardings)[0]
    placed = dict(jax.tree.flatten_with_path(arrays)[0])
    assert len(expected) == len(placed) if read is None else read <= {path[-1].key for path, _ in expected}
    for path, sharding in expected:
        array = placed[path]
        assert sharding.is_equivalent_to(array.sharding, array.ndim)
        assert len(sharding.device_set) == count and sharding.is_fully_replicated == (count == 1)
        assert array.shape[0] == rows
        shards = array.addressable_shards
        assert len({s.device for s in shards}) == count
        assert sorted(s.index[0].indices(rows)[0] for s in shards) == list(range(0, rows, rows // count))
