"""A dataset that is prepared already is compared with its source."""

import os
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from scarce_jax.data.builders import findings, listing, load_prepared, prepare
from scarce_jax.data.builders.formats import Options
from scarce_jax.data.builders.listing import LISTING, changes, list_source, write_listing
from scarce_jax.errors import InputError
from tests.data import folders

NAME = "folder/pets"


@pytest.fixture
def source(tmp_path):
    return folders.write(tmp_path / "pets")


def mend(source):
    """Masks 0 and 2 of train, with another animal and files of the same size as before if possible."""
    for k in (0, 2):
        Image.fromarray(folders.mask(k + 1)).save(source / "train" / "masks" / f"{k}.png")


def test_equal_files_are_no_change(source, tmp_path):
    first = prepare(NAME, tmp_path / "data", source)
    assert prepare(NAME, tmp_path / "data", source) == first
    # A copy has other times; hidden files are in no listing.
    shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(tmp_path / "copy" / "classes.json", (1, 1))
    (tmp_path / "copy" / ".DS_Store").write_text("x")
    assert prepare(NAME, tmp_path / "data", tmp_path / "copy") == first
    assert prepare(NAME, tmp_path / "data") == first


def test_changed_new_and_missing_files_are_named_and_nothing_is_touched(source, tmp_path):
    first = prepare(NAME, tmp_path / "data", source)
    mend(source)
    shutil.copy(source / "train" / "masks" / "0.png", source / "val" / "masks" / "1.png")
    (source / "val" / "coarse" / "1.png").unlink()
    with pytest.raises(InputError) as caught:
        prepare(NAME, tmp_path / "data", source)
    message = str(caught.value)
    assert "2 changed (train/masks/0.png, train/masks/2.png); 1 new (val/masks/1.png); 1 missing (val/coarse" in message
    command = f"scarce-jax prepare {NAME} --source {source} --again --data-dir {tmp_path / 'data'}"
    assert message.endswith(command)
    assert load_prepared(NAME, tmp_path / "data") == first
    second = prepare(NAME, tmp_path / "data", source, again=True)
    assert second.version != first.version
    assert prepare(NAME, tmp_path / "data", source) == second


@pytest.mark.parametrize("place", [0, 12, -12])
def test_a_damaged_listing_is_named(source, tmp_path, place):
    path = prepare(NAME, tmp_path / "data", source).directory / LISTING
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path}: damaged .*--again"):
        prepare(NAME, tmp_path / "data", source)


def test_another_source_is_a_change(source, tmp_path):
    prepare(NAME, tmp_path / "data", source)
    other = folders.write(tmp_path / "other", images=3)
    with pytest.raises(InputError, match="differ from those in .*other: 6 missing"):
        prepare(NAME, tmp_path / "data", other)
    with pytest.raises(InputError, match="--source .*: missing, expected a folder"):
        prepare(NAME, tmp_path / "data", tmp_path / "nowhere")
    with pytest.raises(InputError, match="is generated and has no source"):
        prepare("scenes", tmp_path / "data", other)


def test_the_second_of_two_at_once_is_told_that_its_source_is_another(source, tmp_path):
    other = folders.write(tmp_path / "other", images=3)
    outcomes = []

    def run(folder):
        try:
            outcomes.append(prepare(NAME, tmp_path / "data", folder))
        except InputError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run, args=(folder,)) for folder in (source, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (refused,) = (outcome for outcome in outcomes if isinstance(outcome, InputError))
    assert "was prepared before, from files that differ" in str(refused)


def test_sizes_times_and_contents_decide(tmp_path, monkeypatch):
    source, kept = tmp_path / "source", tmp_path / "kept"
    for folder in (source / "a", kept):
        folder.mkdir(parents=True)
    (source / "a" / "large").write_bytes(b"x" * 100)
    (source / "a" / "small").write_bytes(b"x")
    (source / "a" / "loop").symlink_to(source)
    monkeypatch.setattr(listing, "HASHED", 50)
    write_listing(list_source(source), kept)
    assert changes(source, kept) == ""
    for name in ("large", "small"):
        os.utime(source / "a" / name, (1, 1))
    assert changes(source, kept) == "1 changed (a/large)"  # too large for a hash
    (source / "a" / "small").write_bytes(b"y")
    assert changes(source, kept) == "2 changed (a/large, a/small)"
    (kept / LISTING).unlink()
    assert changes(source, kept) == ""


def write_masks(source, **values):
    for split, value in values.items():
        for k in (0, 2):
            Image.fromarray(np.full(folders.SIZE, value, np.uint8)).save(source / split / "masks" / f"{k}.png")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"train": 2}, []),
        ({}, ["dog: no pixel in any mask"]),
        ({"train": 1, "val": 1}, ["the masks show cat alone; 255 is void"]),
        ({"train": 9}, ["train: no mask has a labelled pixel; all are void (255)", "dog: no pixel in any mask"]),
    ],
)
def test_prepare_says_what_the_counts_tell(source, tmp_path, values, expected):
    write_masks(source, **values)
    found = findings.findings(prepare(NAME, tmp_path / "data", source))
    assert len(found) == len(expected)
    assert all(line.startswith(part) for line, part in zip(found, expected, strict=True))


def test_other_flags_and_files_beside_the_source_are_a_change(source, tmp_path):
    names = tmp_path / "names.json"
    (source / "classes.json").rename(names)
    prepared = lambda **flags: prepare(NAME, tmp_path / "data", source, options=Options(classes=names, **flags))
    assert prepared() == prepared()
    with pytest.raises(InputError, match=r"or by other flags: 1 new \(--format folder\).* --again .*--format folder"):
        prepared(format="folder")
    with pytest.raises(InputError, match=r"2 missing \(--classes .*names.json"):
        prepare(NAME, tmp_path / "data", source)
    names.write_text(names.read_text().replace("dog", "wolf"))
    with pytest.raises(InputError, match=r"1 changed \(.*names.json\)"):
        prepared()
