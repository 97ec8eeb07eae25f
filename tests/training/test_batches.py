"""A source's batches: a pure function of the step, resident or streaming, on any number of devices and processes."""

import dataclasses
import itertools
import pathlib
import time
import types

import jax
import numpy as np
import pytest

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.budget import Manifest
from scarce_jax.data.datasets import SCENES
from scarce_jax.data.records import write_part
from scarce_jax.data.source import stream
from scarce_jax.errors import InputError
from scarce_jax.ops.augment import Augment, augment
from scarce_jax.recipe import Artifact, Confident, Infer, MostConfident, Part, Read, Recipe, Source
from scarce_jax.training.batches import TrainInput, fits, make_batch, next_batches
from scarce_jax.training.inputs import Inputs

CROP = Augment(crop=(24, 24), scale=(0.5, 2.0), rotate=20.0, brightness=0.2)


def rare_first(tags):
    """Draws per epoch: an example with seaweed counts three times, every fourth half."""
    weights = np.where(tags[:, 1] > 0, 3.0, 1.0)
    weights[::4] = 0.5
    return weights


def source(**changes):
    given = {
        "dataset": "scenes",
        "split": "train",
        "fields": ("coarse", "tags"),
        "labels": ("fine",),
        "batch": 8,
        "size": (32, 32),
        "transform": lambda row, key, consts: augment(row, key, CROP),
    }
    return Source(**{**given, **changes})


@pytest.fixture(scope="module")
def inputs(tiny_data):
    ids = tuple(f"train_{k:04d}" for k in range(12))
    roles = {"fine": ids[:5], "coarse": ids, "tags": ids, "unlabelled": ids[5:]}
    manifest = Manifest(dataset="scenes", version="1.0.0", split="train", roles=roles)
    return Inputs(str(tiny_data), pathlib.Path("nowhere"), manifest, Recipe(stages=(), results={}))


def batches(inputs, given, devices, resident, steps, start=0):
    """What the step gets, for steps start, start + 1, ..."""
    mesh = mesh_lib.make_mesh(jax.devices()[:devices])
    made = TrainInput(given, inputs.open(given), 3, "stage/source", mesh, 2, resident)
    assert made.resident == resident
    program = jax.jit(lambda draw, key: make_batch(mesh, given.transform, draw, key, {}))
    found = []
    for step, draw in zip(range(start, steps), made.batches(start, steps), strict=True):
        key = jax.device_put(jax.random.fold_in(made.key, step), mesh_lib.replicated(mesh))
        batch = program(draw, key)
        assert all(len(x.sharding.device_set) == devices for x in batch.values())
        assert {s.data.shape[0] for s in batch["image"].addressable_shards} == {given.batch // devices}
        found.append(jax.device_get(batch))
    return found


def assert_equal(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys() == {"image", "label", "coarse", "tags"}
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("weight", [None, rare_first])
def test_resident_and_streaming_give_the_same_bits_from_any_step(inputs, weight):
    given = source(weight=weight)
    resident = batches(inputs, given, 2, True, 4)
    assert_equal(resident, batches(inputs, given, 2, False, 4))
    assert_equal(resident[2:], batches(inputs, given, 2, False, 4, start=2))
    assert_equal(resident[3:], batches(inputs, given, 2, True, 4, start=3))
    assert resident[0]["image"].shape == (8, 24, 24, 3) and resident[0]["label"].dtype == np.uint8
    assert (resident[0]["image"] != resident[1]["image"]).any()


def test_batches_of_any_dispatches_are_those_of_single_steps(inputs, monkeypatch):
    given, mesh = source(), mesh_lib.make_mesh(jax.devices()[:2])
    made = TrainInput(given, inputs.open(given), 3, "stage/source", mesh, 2, True)
    singly = [jax.device_get(draw) for draw in made.batches(0, 14)]
    # The order of five steps lies on the devices at a time, so that dispatches begin and end anywhere in it.
    monkeypatch.setattr("scarce_jax.training.batches.STEPS_PLACED", 5)
    sizes = [3, 1, 1, 3, 3, 1]
    starts = [2 + sum(sizes[:k]) for k in range(len(sizes))]
    for draw, first, count in zip(made.batches(2, 14, zip(starts, sizes, strict=True)), starts, sizes, strict=True):
        expected = singly[first] if count == 1 else jax.tree.map(lambda *x: np.stack(x), *singly[first : first + count])
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(draw), expected)
        rows = draw["decoded"]["image"].addressable_shards
        assert {s.data.shape[int(count > 1)] for s in rows} == {given.batch // 2}
    assert first + count == 14


@pytest.mark.parametrize("resident", [True, False])
def test_only_a_source_that_is_not_resident_is_waited_for(resident):
    def slow():
        for number in range(2):
            time.sleep(0.01)
            yield {"row": number}

    read, seconds = next_batches({"a": slow()}, {"a": types.SimpleNamespace(resident=resident)})
    assert read == {"a": {"row": 0}} and (seconds == 0 if resident else seconds >= 0.01)


def test_one_and_eight_devices_see_the_same_crops(inputs):
    one, eight = (batches(inputs, source(), n, True, 3) for n in (1, 8))
    for a, b in zip(one, eight, strict=True):
        for name in ("label", "coarse", "tags"):
            np.testing.assert_array_equal(a[name], b[name])
        # Programs for one row and for eight are not rounded alike.
        np.testing.assert_allclose(a["image"], b["image"], rtol=0, atol=1e-5)
    # Every row has a crop of its own.
    assert len({image.tobytes() for image in one[0]["image"]}) == 8


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_out_the_same_batches(processes):
    def read(process, start):
        found = stream(lambda p: {"x": np.int32(p)}, 40, 8, shard=(process, processes), start=start, threads=2)
        return [batch["x"] for batch in found]

    for start in (0, 3):
        shares = [read(process, start) for process in range(processes)]
        whole = [np.concatenate(parts) for parts in zip(*shares, strict=True)]
        np.testing.assert_array_equal(whole, np.arange(40).reshape(5, 8)[start:])


def test_ids_come_from_the_budget_and_what_is_not_there_is_refused(inputs):
    assert inputs.ids(source(ids="unlabelled", labels=("coarse",), take=2)) == ("train_0005", "train_0006")
    with pytest.raises(InputError, match=r"none of its 7 images \(unlabelled\) has all fields.*fine mask"):
        inputs.ids(source(ids="unlabelled", labels=("fine",)))
    assert len(inputs.ids(source())) == 12
    with pytest.raises(InputError, match="scenes/train: 5 fine images, expected the 9 that a stage takes"):
        inputs.ids(source(ids="fine", take=9))
    with pytest.raises(InputError, match="scenes/train: no fine images, .*check the budget"):
        inputs.ids(source(ids="fine", take=0))
    with pytest.raises(InputError, match="no split 'test'; it was prepared with train, val: choose one"):
        inputs.ids(source(split="test"))


def test_the_two_parts_of_a_source_are_disjoint_and_exhaustive(inputs):
    whole = inputs.ids(source(ids="tags"))
    drawn = set()
    for seed in range(4):
        rest, held = (
            inputs.ids(source(ids="tags", part=Part(share=0.3, seed=seed, held_out=held))) for held in (False, True)
        )
        assert not set(rest) & set(held) and sorted((*rest, *held)) == sorted(whole)
        # The order stays that of the whole.
        assert list(held) == [name for name in whole if name in held]
        drawn.add(held)
    assert len(drawn) > 1
    # Weights are those of the part alone, and `take` counts in it.
    seen = []

    def weight(tags):
        seen.append(tags)
        return np.ones(len(tags))

    given = source(ids="tags", part=Part(share=0.3, seed=0, held_out=False), weight=weight)
    kept, reader = inputs.ids(given), inputs.reader("scenes", "train")
    TrainInput(given, inputs.open(given), 3, "stage/source", mesh_lib.make_mesh(jax.devices()[:1]), 1, False)
    np.testing.assert_array_equal(seen[0], reader.tags[[reader.index[name] for name in kept]])
    assert inputs.ids(dataclasses.replace(given, take=3)) == kept[:3]


def test_a_part_depends_on_the_id_and_the_seed_alone():
    ids = tuple(f"image {k}" for k in range(20_000))
    held, rest = (Part(share=0.15, seed=1, held_out=held) for held in (True, False))
    members = set(held.of(ids, "here"))
    assert set(held.of(ids[::-1][:5000], "here")) == members & set(ids[-5000:])
    assert set(rest.of(ids, "here")) == set(ids) - members
    # Within four standard deviations of the share.
    assert abs(len(members) - 3000) < 4 * (20_000 * 0.15 * 0.85) ** 0.5
    # The seeds are independent: of these members, the share.
    other = set(Part(share=0.15, seed=2, held_out=True).of(ids, "here"))
    assert abs(len(members & other) - 450) < 4 * (3000 * 0.15 * 0.85) ** 0.5
    # A larger share holds out more, and the same.
    assert members < set(Part(share=0.2, seed=1, held_out=True).of(ids, "here"))
    # The same on every host and in every version: these ids of the first forty.
    assert [k for k in range(40) if ids[k] in held] == [1, 26, 32]


def test_a_part_without_images_is_refused_and_named(inputs):
    part = Part(share=1e-6, seed=0, held_out=True)
    with pytest.raises(InputError, match="scenes/train: held_out is 1e-06, which holds out none of 12 images; "):
        inputs.ids(source(ids="tags", part=part))
    with pytest.raises(InputError, match="holds out all of 12 images; .* lower it"):
        inputs.ids(source(ids="tags", part=Part(share=1 - 1e-9, seed=0, held_out=False)))
    assert source(ids="tags", part=part).ids_in_words == "tags, the held-out part of 1e-06"
    rest = source(ids="tags", part=Part(share=0.15, seed=0, held_out=False))
    assert rest.ids_in_words == "tags, without the held-out part of 0.15"


def test_records_are_read_as_a_recipe_says(tiny_data, tmp_path):
    """Labels where they are confident, and a field of another shape for every example."""
    ids = tuple(f"train_{k:04d}" for k in range(3))
    entries = []
    for k, name in enumerate(ids):
        confidence = np.full((256, 256), 254, np.uint8)
        confidence[: 10 + k] = 127
        label = np.full((256, 256), k, np.uint8)
        entries.append((name, {"label": label, "confidence": confidence, "boxes": np.zeros((k, 4), np.float32)}))
    (tmp_path / "pseudo/records").mkdir(parents=True)
    write_part(tmp_path / "pseudo/records", 0, entries)
    infer = Infer(name="pseudo", nets={}, predict=None, source=source(ids="tags", fields=(), labels=()))
    manifest = Manifest(dataset="scenes", version="1.0.0", split="train", roles={"tags": ids})
    inputs = Inputs(str(tiny_data), tmp_path, manifest, Recipe(stages=(infer,), results={}))
    label, boxes = Artifact(stage="pseudo", name="label"), Artifact(stage="pseudo", name="boxes")
    # Of each class 243 to 246 of 256 rows are surer than the others.
    for read, ignored in (
        (Confident(threshold=0.0), 0),
        (Confident(threshold=0.5), 10),
        (Confident(threshold=1.0), 256),
        (MostConfident(share=0.9), 10),
        (MostConfident(share=0.99), 0),
    ):
        trusted = Read(artifact=label, read=read)
        rows = inputs.open(source(ids=label, fields=(boxes,), labels=(trusted,), size=None))
        assert rows.ids == ids
        for k, (_, arrays) in enumerate(entries):
            row = rows[k]
            expected = arrays["label"].copy()
            expected[: ignored + k if 0 < ignored < 256 else ignored] = 255
            np.testing.assert_array_equal(row["label"], expected)
            assert row["boxes"].shape == (k, 4)


def test_a_source_is_resident_where_it_fits_and_is_not_mostly_padding(inputs, monkeypatch):
    mesh = mesh_lib.make_mesh(jax.devices()[:2])
    rows = inputs.open(source())
    needed = 12 * 32 * 32 * (3 + 2 + 1) * 2
    for limit, expected in ((needed, True), (needed // 3, False)):
        monkeypatch.setattr("scarce_jax.training.batches.CPU_RESIDENT_BYTES", limit)
        assert fits(rows, mesh) == expected
    monkeypatch.setattr("scarce_jax.training.batches.CPU_RESIDENT_BYTES", 1 << 40)
    native = inputs.open(source(size=None))
    assert native.canvas == (256, 256) and fits(native, mesh)
    native.canvas = (256, 800)
    assert not fits(native, mesh)


def test_rows_of_a_canvas_are_filled_beyond_the_image(inputs):
    rows = inputs.open(source(size=None, fields=()))
    rows.canvas = (260, 300)
    row = rows[3]
    assert row["image"].shape == (260, 300, 3) and (row["height"], row["width"]) == (256, 256)
    assert not row["image"][256:].any() and (row["label"][:, 256:] == 255).all()
    with pytest.raises(KeyError):
        row["coarse"]
    assert list(itertools.islice(rows.ids, 2)) == ["train_0000", "train_0001"]
    assert len(SCENES.classes) == rows.reader.tags.shape[1]
