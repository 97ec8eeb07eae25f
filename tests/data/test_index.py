"""What is known of a prepared split without reading its records."""

import json
import pathlib

import numpy as np
import pytest

from scarce_jax.data.builders import prepare
from scarce_jax.data.index import Index, index_path
from scarce_jax.data.source import Reader, Rows
from scarce_jax.errors import InputError
from tests import tiny
from tests.data import folders


@pytest.fixture
def prepared(tmp_path):
    source = folders.write(tmp_path / "pets")
    return prepare("folder/pets", tmp_path / "data", source)


def reader(tmp_path) -> Reader:
    return Reader("folder/pets", "train", str(tmp_path / "data"))


def test_an_index_is_read_as_it_was_written(tmp_path):
    index = Index(
        ids=("a", "ü/b"),
        tags=np.array([[0, 1, 1], [0, 0, 0]], np.uint8),
        sizes=np.array([[3, 5], [4, 4]], np.int32),
        has={"fine": np.array([True, False]), "coarse": np.array([True, True]), "tags": np.array([True, False])},
    )
    index.write(tmp_path / "index.npz")
    again = Index.read(tmp_path / "index.npz")
    assert again.ids == index.ids
    for name in ("tags", "sizes"):
        np.testing.assert_array_equal(getattr(again, name), getattr(index, name))
    assert {field: has.tolist() for field, has in again.has.items()} == {
        field: has.tolist() for field, has in index.has.items()
    }
    assert index.lacking() == {"fine": 1, "tags": 1}


def test_the_index_says_what_the_records_hold(tmp_path, prepared):
    data = reader(tmp_path)
    assert len(data) > 3
    for i, example_id in enumerate(data.ids):
        example = data.read(i)
        assert example["id"] == example_id and data.index[example_id] == i
        assert example["image"].shape[:2] == tuple(data.sizes[i])
        for field in ("fine", "coarse", "tags"):
            assert (example[field] is not None) == data.has[field][i] == (example_id not in data.lacking[field])
        if example["tags"] is not None:
            np.testing.assert_array_equal(example["tags"], data.tags[i])


def test_opening_reads_no_record(tmp_path, prepared):
    for path in prepared.directory.glob("*.array_record*"):
        path.write_bytes(bytes(path.stat().st_size))
    data = reader(tmp_path)
    rows = Rows(data, range(len(data)))
    assert rows.canvas == tuple(data.sizes.max(axis=0)) and len(rows.ids) == len(data.tags) == len(data)
    with pytest.raises(InputError, match=r"train/0.*cannot be read.*prepare folder/pets --source DIR --again"):
        data.read(0)


def change_index(directory: pathlib.Path, change) -> None:
    """Changes the index of train, and enters its new size in metadata.json."""
    change(index_path(directory, "train"))
    files = json.loads((directory / "metadata.json").read_text())["files"]
    tiny.edit(directory / "metadata.json", files={name: (directory / name).stat().st_size for name in files})


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b"PK"), lambda path: np.savez(path, ids=["a"])])
def test_a_damaged_index_says_how_to_prepare_again(tmp_path, prepared, change):
    change_index(prepared.directory, change)
    with pytest.raises(InputError, match=r"index-train.npz.*prepare folder/pets --source DIR --again"):
        reader(tmp_path)


def test_a_dataset_without_an_index_says_how_to_prepare_again(tmp_path, prepared):
    index_path(prepared.directory, "train").unlink()
    with pytest.raises(InputError, match=r"index-train.npz: is missing.*prepare folder/pets --source DIR --again"):
        reader(tmp_path)


def test_metadata_without_a_field_says_how_to_prepare_again(tmp_path, prepared):
    tiny.edit(prepared.directory / "metadata.json", lacking=None)
    with pytest.raises(InputError, match=r"metadata.json: lacking: .*prepare folder/pets --source DIR --again"):
        reader(tmp_path)


def test_an_index_of_other_examples_is_refused(tmp_path, prepared):
    data = reader(tmp_path)
    fields = {"ids": data.ids, "tags": data.tags, "sizes": data.sizes, "has": data.has}
    change_index(prepared.directory, Index(**fields | {"ids": data.ids[::-1]}).write)
    with pytest.raises(InputError, match=r"the record is of .*--again"):
        reader(tmp_path).read(0)
    change_index(prepared.directory, Index(**fields | {"sizes": np.full_like(data.sizes, 2)}).write)
    with pytest.raises(InputError, match=r"expected 2x2, as in the index.*--again"):
        reader(tmp_path).read(0)["image"]
    change_index(prepared.directory, Index(**fields | {"tags": data.tags[:, :1]}).write)
    with pytest.raises(InputError, match=r"6 examples and 1 classes.*--again"):
        reader(tmp_path)
