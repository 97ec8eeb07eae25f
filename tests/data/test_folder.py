"""The dataset `folder`: images of which few have masks, from their files to what a stage reads."""

import dataclasses
import json
import logging
import os
import pathlib
import shutil
import unicodedata

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from scarce_jax.data.budget import Budget
from scarce_jax.data.builders import dataset_dir, is_prepared, load_info, load_prepared, prepare
from scarce_jax.data.builders.formats import read_classes
from scarce_jax.data.datasets import default_palette
from scarce_jax.data.source import Reader
from scarce_jax.errors import InputError
from scarce_jax.methods import detailer
from scarce_jax.recipe import Artifact, Infer, Recipe, Source
from scarce_jax.training.inputs import Inputs
from scarce_jax.training.run import draw
from tests import tiny
from tests.data import folders


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
    """train and val with images 0 to 5 each; 0 and 2 have fine masks, 0 and 1 coarse ones."""
    return folders.write(tmp_path / "pets")


def prepared(source, tmp_path, name="folder/pets", **options):
    return prepare(name, tmp_path / "data", source, **options)


def reading(source_dir, tmp_path, split="train"):
    prepared(source_dir, tmp_path)
    return Reader("folder/pets", split, str(tmp_path / "data"))


def test_examples_have_what_their_files_give(source, tmp_path):
    reader = reading(source, tmp_path)
    assert reader.ids == tuple(f"train/{k}" for k in range(6))
    assert reader.lacking["fine"] == reader.lacking["tags"] == {f"train/{k}" for k in (1, 3, 4, 5)}
    assert reader.lacking["coarse"] == {f"train/{k}" for k in (2, 3, 4, 5)}
    for k in range(6):
        example = reader.read(k)
        np.testing.assert_array_equal(example["image"], folders.image(k))
        if k in (0, 2):
            fine = folders.mask(k)
            np.testing.assert_array_equal(example["fine"], np.where(fine == 9, 255, fine))
            assert example["tags"].tolist() == [0, 1, 0]
        else:
            assert example["fine"] is None and example["tags"] is None
        if k in (0, 1):
            np.testing.assert_array_equal(example["coarse"], folders.coarse(k))
        else:
            assert example["coarse"] is None
    # What is stored keeps the schema.
    directory = dataset_dir("folder/pets", tmp_path / "data")
    stored = tfds.builder_from_directory(directory).as_data_source("train")[3]
    assert stored["fine"].shape == stored["coarse"].shape == (*folders.SIZE, 1)
    assert (stored["fine"] == 255).all() and (stored["coarse"] == 255).all() and not stored["tags"].any()


def test_the_summary_tells_what_there_is_and_which_class_is_empty(source, tmp_path):
    found = prepared(source, tmp_path)
    text = str(found).splitlines()
    assert "              train: 2 with a fine mask, 2 with a coarse mask, 2 with a list of tags" in text
    assert text[-4].split() == ["train", "val"]
    assert text[-2].split() == ["cat", "2", "45.5%", "2", "45.5%"]  # 320 of 704 labelled pixels
    assert text[-1].split() == ["dog", "none", "none"]
    assert found.coarse_from == "of the source" and found.info.name == "folder/pets"
    assert found.info.having("train", "fine") == 2 and found.info.having("val", "coarse") == 2
    assert found == load_prepared("folder/pets", tmp_path / "data")
    assert found.info == load_info("folder/pets", tmp_path / "data")


def test_coarse_masks_are_simulated_only_where_there_is_no_folder_of_them(tmp_path):
    reader = reading(folders.write(tmp_path / "without", coarsely=None), tmp_path)
    assert reader.lacking["coarse"] == reader.lacking["fine"]
    given = reader.read(0)["coarse"]
    fine = folders.mask(0)
    assert ((given == 255) | (given == fine)).mean() > 0.9 and (given != 255).any()
    other = prepared(folders.write(tmp_path / "empty", coarsely=()), tmp_path, "folder/empty")
    assert (
        other.info.having("train", "coarse") == 0
        and "simulated" in load_prepared("folder/pets", tmp_path / "data").coarse_from
    )


def test_tags_come_from_the_lists_first(source, tmp_path):
    (source / "train/tags.csv").write_text("id,classes\n0,dog; cat\n\n3,background;dog\n4,\n")
    (source / "tags.csv").write_text("\ufefftrain/5,dog\nval/1,cat\n")
    found = prepared(source, tmp_path)
    assert found.tags_from == "tags.csv, else the fine masks"
    train, val = (Reader("folder/pets", split, str(tmp_path / "data")) for split in ("train", "val"))
    assert train.lacking["tags"] == {"train/1"} and val.lacking["tags"] == {"val/3", "val/4", "val/5"}
    expected = [[0, 1, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 1]]
    assert train.tags.tolist() == expected and val.tags[1].tolist() == [0, 1, 0]


def test_subfolders_are_part_of_the_name_and_what_is_hidden_is_left_out(source, tmp_path):
    for kind in ("images", "masks"):
        (source / "val" / kind / "b").mkdir()
        (source / "val" / kind / "0.png").rename(source / "val" / kind / "b/0.png")
        (source / "val" / kind / ".DS_Store").write_text("")
    (source / "val/coarse/0.png").unlink()
    (source / "notes").mkdir()
    reader = reading(source, tmp_path, "val")
    assert reader.ids[-1] == "val/b/0" and "val/b/0" not in reader.lacking["fine"]


def test_names_match_however_their_accents_are_stored(source, tmp_path):
    composed, split = (unicodedata.normalize(form, "Bäume") for form in ("NFC", "NFD"))
    (source / "train/images/0.png").rename(source / f"train/images/{composed}.png")
    (source / "train/masks/0.png").rename(source / f"train/masks/{split}.png")
    (source / "train/coarse/0.png").unlink()
    (source / "train/tags.csv").write_text(f"{split},dog\n", encoding="utf-8")
    reader = reading(source, tmp_path)
    name = f"train/{composed}"
    assert name not in reader.lacking["fine"] and reader.read(reader.index[name])["tags"].tolist() == [0, 0, 1]


def test_palette_masks_and_other_splits_are_read(source, tmp_path):
    picture = Image.open(source / "train/masks/0.png")
    picture.load()
    picture = Image.fromarray(np.asarray(picture)).convert("P")
    picture.putpalette([7, 7, 7] * 256)
    picture.save(source / "train/masks/0.png")
    (source / "val").rename(source / "holdout_2")
    found = prepared(source, tmp_path)
    assert found.info.splits == {"train": 6, "holdout_2": 6}
    fine = Reader("folder/pets", "train", str(tmp_path / "data")).read(0)["fine"]
    np.testing.assert_array_equal(fine, np.where(folders.mask(0) == 9, 255, folders.mask(0)))


def test_what_spreadsheets_and_editors_write_is_read(source, tmp_path):
    """Excel separates by semicolons where the comma is the decimal sign, and editors put a byte-order mark first."""
    classes = source / "classes.json"
    classes.write_text("\ufeff" + classes.read_text(), encoding="utf-8")
    (source / "train/tags.csv").write_text("\ufeffid;classes\n0.png;dog;cat\n3.JPG;dog\n", encoding="utf-8")
    reader = reading(source, tmp_path)
    assert reader.tags[0].tolist() == [0, 1, 1] and reader.tags[3].tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", ["labels", "annotations", "GT", "SegmentationClass"])
def test_masks_in_a_folder_with_a_usual_name_are_read(source, tmp_path, name):
    for split in ("train", "val"):
        (source / split / "masks").rename(source / split / name)
    assert prepared(source, tmp_path).info.having("train", "fine") == 2


# What is wrong, and what the message must name.


def _stray_mask(root):
    (root / "train/masks/0.png").rename(root / "train/masks/0_mask.png")
    return ["train/masks/0_mask.png", "no image", "1 of 2 masks", "rename it to the name of its image"]


def _two_images_of_one_stem(root):
    Image.fromarray(folders.image(0)).save(root / "train/images/0.jpg")
    return ["0.jpg", "0.png", "equal stems"]


def _no_image_file(root):
    (root / "train/images/0.heic").write_text("x")
    return ["0.heic", "not an image file", "magick mogrify -format jpg FILE"]


def _unknown_id(root):
    Image.fromarray(np.full(folders.SIZE, 7, np.uint8)).save(root / "val/masks/2.png")
    return ["val/masks/2.png", "val/2", "id 7", "0..2, 9, 255"]


def _palettes_that_differ(root):
    for number in (0, 2):
        picture = Image.fromarray(folders.mask(number)).convert("P")
        picture.putpalette([0, 0, 0, *[50 * number] * 30])
        picture.save(root / f"train/masks/{number}.png")
    return ["train/masks/2.png", "id 1 is the colour (100, 100, 100)", "train/masks/0.png it is (0, 0, 0)"]


def _coarse_of_another_size(root):
    Image.fromarray(np.full((24, 31), 255, np.uint8)).save(root / "val/coarse/1.png")
    return ["val/coarse/1.png", "31x24", "32x24"]


def _no_splits(root):
    for split in ("train", "val"):
        (root / split).rename(root / f"{split}.d")
        (root / f"{split}.d" / "images").rename(root / f"{split}.d" / "photos")
        for kind in ("masks", "coarse"):
            (root / f"{split}.d" / kind).rename(root / f"{split}.d" / f"x{kind}")
    return [str(root), "of no known format", "train.d/photos (6 .png)", "folder: classes.json and SPLIT/images"]


def _masks_alone(root):
    (root / "val/images").rename(root / "val/photos")
    return [str(root / "val"), "has masks and no folder images"]


def _split_with_a_dash(root):
    (root / "val").rename(root / "my-val")
    return ["'my-val' cannot name a split"]


def _split_called_all(root):
    (root / "val").rename(root / "all")
    return ["'all' cannot name a split", "and not all"]


def _no_classes(root):
    (root / "classes.json").unlink()
    return [str(root), "no file lists the classes", "classes.json"]


def _masks_of_an_unknown_name(root):
    (root / "train/masks").rename(root / "train/drawn")
    return [str(root / "train/drawn"), "2 files are named as images (0, 2)", "rename the folder to masks"]


def _two_folders_of_masks(root):
    (root / "train/masks").rename(root / "train/labels")
    shutil.copytree(root / "train/labels", root / "train/gt")
    return [str(root / "train"), "gt and labels may be the masks"]


def _polygons_in_text_files(root):
    shutil.rmtree(root / "train/masks")
    (root / "train/labels").mkdir()
    (root / "train/labels/0.txt").write_text("0 0.1 0.2 0.3 0.4 0.5 0.6")
    return [str(root / "train/labels"), "holds no image (.txt files)", "in another format"]


def _tags_of_no_image(root):
    (root / "train/tags.csv").write_text("id,x\n0,cat\n77,cat\n")
    return ["train/tags.csv, line 3", "'77'"]


def _tags_of_no_class(root):
    (root / "train/tags.csv").write_text("0,kat\n")
    return ["train/tags.csv, line 1", "'kat'", "did you mean cat?"]


def _tags_twice(root):
    (root / "train/tags.csv").write_text("0,cat\n0,dog\n")
    return ["train/tags.csv, line 2", "twice"]


def _tags_in_both_lists(root):
    (root / "train/tags.csv").write_text("0,cat\n")
    (root / "tags.csv").write_text("train/0,cat\n")
    return [str(root / "tags.csv"), "'train/0'", "train/tags.csv"]


def _tags_of_two_splits(root):
    (root / "tags.csv").write_text("0,cat\n")
    return [f"{root / 'tags.csv'}, line 1", "'train/0' or 'val/0'"]


@pytest.mark.parametrize(
    "damage",
    [
        _stray_mask, _two_images_of_one_stem, _no_image_file, _unknown_id, _palettes_that_differ,
        _coarse_of_another_size, _no_splits, _masks_alone, _masks_of_an_unknown_name, _two_folders_of_masks,
        _polygons_in_text_files, _split_with_a_dash, _split_called_all, _no_classes,
        _tags_of_no_image, _tags_of_no_class, _tags_twice, _tags_in_both_lists, _tags_of_two_splits,
    ],
)  # fmt: skip
def test_a_wrong_source_is_named_and_nothing_is_left(source, tmp_path, damage):
    parts = damage(source)
    with pytest.raises(InputError) as caught:
        prepared(source, tmp_path)
    for part in parts:
        assert part in str(caught.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "not a readable JSON file"),
        ('["a"]', "found a list"),
        ('{"classes": "a"}', "expected a list of names"),
        ('{"classes": ["a", "a"]}', "2 classes, 1 different"),
        (json.dumps({"classes": [f"c{k}" for k in range(256)]}), "expected 1 to 255"),
        ('{"classes": ["a"], "ignore_label": 3}', "unknown field 'ignore_label'; did you mean ignore?"),
        ('{"classes": ["a", "b"], "palette": [[0, 0, 0]]}', "1 colours, expected 2"),
        ('{"classes": ["a"], "palette": [[0, 0, 256]]}', "not a list of RGB triples"),
        ('{"classes": ["a"], "background": "b"}', "background is 'b'"),
        ('{"classes": ["a"], "background": 1}', "background is 1"),
        ('{"classes": ["a"], "background": true}', "background is True"),
        ('{"classes": ["a", "b"], "ignore": [9, 1]}', "ignore has 1, which is the id of class 'b'"),
        ('{"classes": ["a"], "ignore": "void"}', "ignore is 'void'"),
        ('{"classes": ["background", "a"], "ignore": 0}', "ignore has 0, which is the id of class 'background'"),
        ('{"classes": ["a", "b"], "ignore": [0, 2]}', "ignore has 2, which is the id of class 'b'"),
        ('{"ids": {"x": "a"}}', "ids has the key 'x'"),
        ('{"ids": ["a"]}', "ids is ['a']"),
        ('{"classes": ["a"], "ids": {"1": "b"}}', "ids says 1 is 'b', which is no class"),
        ('{"classes": ["a", "b"], "ids": {"1": "b"}}', "ids has no id for 'a'"),
        ('{"ids": {"1": "b"}, "ignore": 1}', "ignore has 1, which is the id of class 'b' by ids"),
    ],
)
def test_a_wrong_list_of_classes_is_named(tmp_path, content, part):
    path = tmp_path / "classes.json"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_classes(path)
    assert str(path) in str(caught.value) and part in str(caught.value)


def test_a_missing_list_of_classes_is_called_missing(tmp_path):
    with pytest.raises(InputError, match="classes.json: no such file; expected"):
        read_classes(tmp_path / "classes.json")


def test_classes_may_leave_out_all_but_their_names(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text('{"classes": ["a", "b"]}')
    found = read_classes(path)
    assert (found.background, found.indices) == (None, {0: 0, 1: 1})
    assert found.palette == ((128, 0, 0), (0, 128, 0))
    path.write_text('{"classes": ["a", "b"], "background": 1, "palette": [[1, 2, 3], [4, 5, 6]], "ignore": [7, 300]}')
    found = read_classes(path)
    assert (found.background, found.palette) == (1, ((1, 2, 3), (4, 5, 6)))
    assert found.indices == {0: 0, 1: 1, 7: 255, 300: 255}
    for key, index in (("", 1), (', "background": null', None), (', "background": "a"', 0)):
        path.write_text(f'{{"classes": ["a", "Background"]{key}}}')
        assert read_classes(path).background == index
    path.write_text('{"classes": ["a", "b", "c"], "background": "b"}')
    assert read_classes(path).palette == ((128, 0, 0), (0, 0, 0), (0, 128, 0))
    colours = default_palette(255)
    assert len(set(colours)) == 255 and (0, 0, 0) not in colours and max(map(max, colours)) <= 255


def test_further_void_ids_are_kept_for_the_coarse_masks_of_predict(source, tmp_path):
    path = source / "classes.json"
    version = prepared(source, tmp_path).version
    path.write_text(json.dumps({**json.loads(path.read_text()), "ignore": [9, 250]}))
    found = prepared(source, tmp_path, again=True)
    assert found.info.void_ids == (9, 250) and load_info("folder/pets", tmp_path / "data").indices[250] == 255
    # What is stored is the same, so runs on it go on.
    assert found.version == version


@pytest.mark.parametrize("name", ["folder", "folder/", "folder/My Pets", "folder/a/b", "folder/..", "camvid/x"])
def test_names_are_checked(tmp_path, name):
    with pytest.raises(InputError, match=r"folder/NAME"):
        is_prepared(name, tmp_path)


def test_several_folders_stand_side_by_side_and_a_missing_one_names_its_command(source, tmp_path):
    one, two = (prepared(source, tmp_path, f"folder/{name}") for name in ("one", "two"))
    assert one.directory == dataset_dir("folder/one", tmp_path / "data") != two.directory
    with pytest.raises(
        InputError, match=r"folder/three is not prepared.*run: scarce-jax prepare folder/three --source"
    ):
        load_info("folder/three", tmp_path / "data")


# Preparing again.


def test_again_replaces_the_dataset_when_the_new_one_is_complete(source, tmp_path):
    first = prepared(source, tmp_path)
    Image.fromarray(folders.mask(3)).save(source / "train/masks/3.png")
    assert prepared(None, tmp_path) == first
    second = prepared(source, tmp_path, again=True)
    assert second.info.having("train", "fine") == 3 and second.directory == first.directory
    # Another content is another version, so that no stage trained on the old one counts as done.
    assert second.version != first.version and first.version.startswith("1.0.0+")
    assert Reader("folder/pets", "train", str(tmp_path / "data")).version == second.version
    assert prepared(source, tmp_path, again=True) == second
    (source / "train/masks/0.png").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be decoded"):
        prepared(source, tmp_path, again=True)
    with pytest.raises(InputError, match="needs --source"):
        prepared(None, tmp_path, again=True)
    assert load_prepared("folder/pets", tmp_path / "data") == second
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["folder"]
    assert [p.name for p in second.directory.parent.iterdir()] == ["1.0.0"]


def test_a_replacement_that_was_killed_is_undone_or_completed(source, tmp_path):
    found = prepared(source, tmp_path)
    root, old = tmp_path / "data", found.directory.with_name("replaced.1.0.0")
    # Killed while it built, and between the two renames.
    (root / ".folder-pets.abc/folder").mkdir(parents=True)
    found.directory.rename(old)
    assert not is_prepared("folder/pets", root)
    assert prepare("folder/pets", root) == found
    assert not old.exists() and os.listdir(root) == ["folder"]
    # Killed before the old one was removed.
    old.mkdir()
    prepared(source, tmp_path, again=True)
    assert os.listdir(found.directory.parent) == ["1.0.0"]


# What a budget and a stage make of it.


def manifest_of(source, tmp_path, budget, recipe=None):
    prepared(source, tmp_path)
    recipe = recipe or Recipe(stages=(), results={})
    inputs = Inputs(str(tmp_path / "data"), tmp_path, None, recipe)
    measured = [reads("val")]
    inputs.manifest = draw(budget, "folder/pets", "train", measured, inputs)
    return inputs


def reads(split="train", **changes):
    given = {"labels": ("fine",), "batch": 1, "transform": lambda row, key, consts: row, **changes}
    return Source(dataset="folder/pets", split=split, **given)


def test_roles_hold_only_what_has_them(source, tmp_path):
    # Equal stems in train and val are different images, so this is no leakage.
    roles = manifest_of(source, tmp_path, Budget()).manifest.roles
    assert set(roles["fine"]) == {"train/0", "train/2"} == set(roles["tags"])
    assert set(roles["coarse"]) == {"train/0", "train/1"}
    assert set(roles["unlabelled"]) == {f"train/{k}" for k in (1, 3, 4, 5)}
    assert len(manifest_of(source, tmp_path, Budget(fine=0.5)).manifest.roles["fine"]) == 1
    with pytest.raises(InputError, match="asks for 3 images with a fine mask, folder/pets/train has 2"):
        manifest_of(source, tmp_path, Budget(fine=3))


@pytest.mark.parametrize("line", ["2", "train/2", "2.png", "train/images/2.png masks/2.png", "images/2.png"])
def test_a_list_may_name_images_in_every_way(source, tmp_path, line):
    (tmp_path / "list.txt").write_text(f"{line}\n")
    budget = Budget(fine=str(tmp_path / "list.txt"))
    assert manifest_of(source, tmp_path, budget).manifest.roles["fine"] == ("train/2",)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("3", "'train/3' has no fine mask"),
        ("val/images/2.png", "'val/2' is measured by an evaluation"),
        ("77", "no example '77'"),
    ],
)
def test_a_list_names_what_cannot_be_used(source, tmp_path, line, part):
    (tmp_path / "list.txt").write_text(f"0\n{line}\n")
    with pytest.raises(InputError, match=f"line 2: .*{part}"):
        manifest_of(source, tmp_path, Budget(fine=str(tmp_path / "list.txt")))


def test_a_source_reads_what_has_its_fields_and_says_what_it_left_out(source, tmp_path, caplog):
    inputs = manifest_of(source, tmp_path, Budget())
    with caplog.at_level(logging.WARNING, "scarce_jax"):
        assert inputs.ids(reads("val")) == inputs.ids(reads("val")) == ("val/0", "val/2")
        assert inputs.ids(reads("val", fields=("coarse",))) == ("val/0",)
        assert inputs.ids(reads("val", having=("coarse",))) == ("val/0",)
        assert inputs.ids(reads(ids="fine")) == inputs.manifest.roles["fine"]
        assert inputs.ids(reads("val", labels=())) == tuple(f"val/{k}" for k in range(6))
        assert set(inputs.ids(reads(ids="all", labels=("fine", "coarse")))) == {f"train/{k}" for k in range(3)}
    messages = [record.message for record in caplog.records if record.name == "scarce_jax"]
    assert messages[0] == "folder/pets/val: 4 of 6 images (all) are left out because they lack: fine mask"
    assert "folder/pets/val: 5 of 6 images (all) are left out because they lack: coarse mask, fine mask" in messages
    assert len(messages) == len(set(messages)) == 3
    # Preferred label first, example by example.
    rows = inputs.open(reads(ids="all", labels=("coarse", "fine")))
    by_id = dict(zip(rows.ids, (rows.example(k)["label"] for k in range(3)), strict=True))
    np.testing.assert_array_equal(by_id["train/1"], folders.coarse(1))
    assert (by_id["train/0"] == 255).any() and by_id["train/2"].max() == 255 and (by_id["train/2"] == 0).any()


def test_detailer_and_classifier_are_compared_on_the_same_images(source, tmp_path):
    inputs = manifest_of(source, tmp_path, Budget())
    config = dataclasses.replace(tiny.detailer_config(compare=True, student=True), dataset="folder/pets")
    inputs.recipe = recipe = detailer.recipe(config, inputs.reader("folder/pets", "train").info)
    trained = [inputs.ids(recipe.stage(name).sources["labelled"]) for name in ("detailer", "classifier")]
    assert trained == [("train/0",)] * 2
    assert len(recipe.results) == 7
    assert {inputs.ids(result.source) for result in recipe.results.values()} == {("val/0",)}
    # They are measured so, and ask for no coarse mask in use.
    assert "coarse" not in recipe.results["classifier"].source.fields


def test_records_are_read_for_the_images_that_a_pass_covers(source, tmp_path):
    detail = Infer(name="detail", nets={}, predict=None, source=reads(ids="coarse", labels=()))
    inputs = manifest_of(source, tmp_path, Budget(fine=1), Recipe(stages=(detail,), results={}))
    given = inputs.ids(reads(ids="unlabelled", labels=(Artifact(stage="detail", name="mask"),)))
    # The same images as a student that is given the coarse masks themselves.
    assert set(given) == set(inputs.ids(reads(ids="unlabelled", labels=("coarse",)))) >= {"train/1"}


def test_a_role_that_nothing_fills_is_named(tmp_path):
    inputs = manifest_of(folders.write(tmp_path / "bare", fine=(), coarsely=()), tmp_path, Budget())
    assert inputs.manifest.roles["fine"] == ()
    with pytest.raises(InputError, match="folder/pets/train: none of its 6 images has a fine mask.*--again"):
        inputs.ids(reads(ids="fine"))
    with pytest.raises(InputError, match="none of its 6 images has a coarse mask"):
        inputs.ids(reads(ids="coarse", labels=()))
    with pytest.raises(InputError, match=r"folder/pets/val: none of its 6 images \(all\) has .*they lack: fine mask"):
        inputs.ids(reads("val"))
