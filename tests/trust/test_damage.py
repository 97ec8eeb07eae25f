"""Damage to a run folder or a prepared dataset: the file is named, or nothing changes."""

import json
import logging
import random

import numpy as np
import pytest

from scarce_jax.data.arrays import read_arrays, write_arrays
from scarce_jax.data.builders import load_prepared
from scarce_jax.data.files import read_checked_json, seal, unseal, write_checked_json
from scarce_jax.data.records import Records, load_means
from scarce_jax.data.source import Reader
from scarce_jax.errors import InputError
from scarce_jax.report.files import read_run
from scarce_jax.run_folder import choose_result, open_run
from scarce_jax.training.folder import check_files, read_done, read_facts
from scarce_jax.training.log import complete_lines
from tests import tiny
from tests.trust.conftest import train

FLIPS = 12

CURVES = {"segmenter", "auxiliary", "semi"}
MEANS = ("right", "wrong")


def opened(run):
    session, info, config = open_run(run, mesh=tiny.mesh())
    return info, config, session.manifest, read_facts(run)


def nets(run):
    return check_files(run, "semi", read_done(run, "semi"))


def records(run):
    found = Records(run / "pseudo_labels" / "records")
    return [(name, {key: value.tobytes() for key, value in found.read(name).items()}) for name in found.ids]


def means(run):
    return {name: value.tobytes() for name, value in load_means(run, "statistics", MEANS).items()}


def examples(data):
    prepared = load_prepared("scenes", data)
    reader = Reader("scenes", "val", str(data))
    rows = [reader.read(i) for i in range(len(reader))]
    pixels = [[row[key].tobytes() for key in ("image", "fine", "coarse")] for row in rows]
    return prepared.info, prepared.occurs, prepared.coarse, reader.ids, reader.tags.tobytes(), pixels


OF_RUN = {
    "config.json": opened,
    "manifest.json": opened,
    "semi/stage.json": opened,
    "semi/DONE": opened,
    "summary.json": lambda run: read_run(run)["results"],
    "statistics/mean.npz": means,
    "pseudo_labels/records/part-00000.arrayrecord": records,
    "semi/nets/segmenter/state/manifest.ocdbt": nets,
    "semi/nets/segmenter/_CHECKPOINT_METADATA": nets,
}
OF_DATA = ("metadata.json", "index-val.npz", "scenes-val.array_record-00000-of-00001")


def check_flips(path, read, folder):
    good, before, rng = path.read_bytes(), read(folder), random.Random(path.name)
    for bit in (rng.randrange(8 * len(good)) for _ in range(FLIPS)):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert read(folder) == before, f"silent change by bit {bit}"
        except InputError as error:
            assert str(path) in str(error), bit
    path.write_bytes(good)


@pytest.mark.parametrize("name", OF_RUN)
def test_a_flipped_bit_of_a_run_is_named_or_harmless(run, name):
    check_flips(run / name, OF_RUN[name], run)


@pytest.mark.parametrize("name", OF_DATA)
def test_a_flipped_bit_of_a_dataset_is_named_or_harmless(data, name):
    check_flips(data / "scenes" / "1.0.0" / name, examples, data)


def _values(log):
    """The values of the lines of a log, None of one that is no JSON."""
    values = []
    for line in bytes(log).splitlines():
        try:
            values.append(json.loads(line))
        except ValueError:
            values.append(None)
    return values


def test_a_flipped_bit_of_the_log_costs_its_line_with_a_warning(run, caplog):
    path = run / "metrics.jsonl"
    good, rng = path.read_bytes(), random.Random(0)
    before = [entry for _, entry in complete_lines(path)]
    assert {entry["stage"] for entry in before} == CURVES
    logging.getLogger("scarce_jax").propagate = True
    for bit in (rng.randrange(8 * len(good)) for _ in range(FLIPS)):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        caplog.clear()
        after = [entry for _, entry in complete_lines(path)]
        if _values(damaged) == _values(good):  # Another last digit of a float may be the same float.
            assert after == before
            continue
        assert all(entry in before for entry in after) and len(before) - len(after) in (1, 2)
        line = 1 + good[: bit // 8].count(b"\n")
        assert f"{path}: damaged or cut off, and left out: line {line}" in caplog.text
        assert read_run(run)["finished"]


def test_a_key_that_is_missing_or_renamed_is_named(run):
    tiny.edit(run / "summary.json", results=None)
    with pytest.raises(InputError, match=r"summary\.json: results: Field required; run the train command again"):
        read_run(run)
    tiny.edit(run / "semi/DONE", seconds="long")
    with pytest.raises(InputError, match=r"semi/DONE: seconds: .*number.*--redo semi"):
        open_run(run)
    for key in ("classes", "dataset", "command", "config"):
        facts = json.loads((run / "config.json").read_text())
        tiny.edit(run / "config.json", **{key: None})
        with pytest.raises(InputError, match=rf"config\.json: {key}: .*restore it"):
            open_run(run)
        tiny.edit(run / "config.json", **{key: facts[key]})


@pytest.mark.parametrize(
    ("key", "value"), [("palette", [[999, 0, 0]]), ("native_ids", [-1]), ("native_ids", [70_000]), ("void_ids", "abc")]
)
def test_a_value_that_no_dataset_has_is_named(run, key, value):
    tiny.edit(run / "config.json", **{key: value})
    with pytest.raises(InputError, match=rf"config\.json: {key}"):
        read_facts(run)


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "3", "", '{"format": 2}', "\xff"])
def test_what_is_no_content_is_named(run, content):
    (run / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"config\.json: "):
        open_run(run)


def test_config_json_must_describe_the_finished_stages(run):
    """Edited with the right checksum, and every other file as it was."""
    facts = json.loads((run / "config.json").read_text())
    config = facts["config"]
    for edited, message in (
        ({**config, "seed": 7}, r"seed: 0 -> 7"),
        ({**config, "segmenter": {**config["segmenter"], "size": [34, 34]}}, r"source.*size: \[32, 32\] -> \[34, 34\]"),
        ({**config, "sead": 7}, r"config field sead: "),
        ({**config, "semi": {**config["semi"], "treshold": 0.3}}, r"config field semi\.treshold: "),
    ):
        tiny.edit(run / "config.json", config=edited)
        with pytest.raises(InputError, match=rf"(?s){run}/config\.json: .*{message}"):
            open_run(run)
    tiny.edit(run / "config.json", config=config, steps={**facts["steps"], "semi": 9})
    with pytest.raises(InputError, match=r"(?s)config\.json: is not what stage semi was trained with.*steps: 2 -> 9"):
        open_run(run)
    tiny.edit(run / "config.json", steps=facts["steps"], dataset={"name": "scenes", "versions": {}})
    with pytest.raises(InputError, match=r"config\.json: has no version of dataset 'scenes'"):
        open_run(run)


def test_a_run_of_another_version_is_compared_with_a_warning(run, caplog):
    logging.getLogger("scarce_jax").propagate = True
    facts = json.loads((run / "config.json").read_text())
    tiny.edit(
        run / "config.json",
        config={**facts["config"], "seed": 7},
        versions={**facts["versions"], "scarce-jax": "0.0.9"},
    )
    open_run(run)
    assert "was trained with scarce-jax 0.0.9, and is another one in this version" in caplog.text


def test_done_must_be_that_of_the_stage(run):
    tiny.edit(run / "semi/DONE", fingerprint="0" * 64)
    with pytest.raises(InputError, match=r"semi/DONE: its fingerprint is not that of .*semi/stage\.json"):
        open_run(run)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


def unlink(path):
    path.unlink()


NET = "semi/nets/segmenter/state/manifest.ocdbt"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (NET, unlink),
        (NET, cut),
        (NET, flip),
        ("statistics/mean.npz", unlink),
        ("statistics/mean.npz", flip),
        ("pseudo_labels/records/part-00000.arrayrecord", unlink),
        ("pseudo_labels/records/part-00000.arrayrecord", cut),
        ("semi/DONE", flip),
        ("semi/stage.json", unlink),
        ("semi/stage.json", flip),
    ],
)
def test_training_names_what_a_finished_stage_has_lost(run, tiny_data, name, change):
    change(run / name)
    stage = name.partition("/")[0]
    with pytest.raises(InputError, match=rf"{run / name}: .*--redo {stage}"):
        train(run, data_dir=tiny_data)


def test_results_name_what_their_stages_have_lost(run):
    unlink(run / NET)
    session, _, _ = open_run(run)
    with pytest.raises(InputError, match=rf"{run / NET}: is missing.*--redo semi"):
        choose_result(session, "semi")
    choose_result(session, "labelled_only")


def test_training_repairs_what_it_can_derive(run, finished, tiny_data, caplog):
    logging.getLogger("scarce_jax").propagate = True
    for name in ("config.json", "manifest.json", "summary.json", "metrics.jsonl"):
        flip(run / name)
    with tiny.little_optimised():
        train(run, data_dir=tiny_data)
    for name in ("config.json", "summary.json"):
        assert f"{run / name}: " in caplog.text
    assert (run / "manifest.json").read_bytes() == (finished / "manifest.json").read_bytes()
    before, after = (read_run(folder)["results"] for folder in (finished, run))
    assert before == after


def test_checked_json_is_read_as_it_was_written(tmp_path):
    value = {"b": [1, 2.5, None], "a": {"ü": "\ud800", "x": 1e300}, "t": (1, 2)}
    write_checked_json(tmp_path / "x.json", value)
    assert read_checked_json(tmp_path / "x.json", dict) == {**value, "t": [1, 2]}
    for wrong in ({"a": 1}, {**seal({"a": 1}), "a": 2}, {**seal({"a": 1}), "b": 1}, [1], None):
        with pytest.raises(ValueError, match="checksum|expected an object"):
            unseal(wrong)


def test_arrays_are_read_as_they_were_written(tmp_path):
    arrays = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3), "c": np.array(["x", "ü"]), "d": np.array(3)}
    write_arrays(tmp_path / "x.npz", arrays)
    again = read_arrays(tmp_path / "x.npz")
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].dtype == array.dtype
    np.savez(tmp_path / "y.npz", **arrays)
    with pytest.raises(ValueError, match="checksum"):
        read_arrays(tmp_path / "y.npz")
    with pytest.raises(ValueError, match="Object arrays"):
        write_arrays(tmp_path / "z.npz", {"a": np.array([object()])})
    assert not (tmp_path / "z.npz").exists()
