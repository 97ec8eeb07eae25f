"""Lists of classes as tools write them."""

from __future__ import annotations

import json

import pytest

from scarce_jax.data.builders.formats import Options, read_class_file
from scarce_jax.data.builders.formats.find_classes import class_file
from scarce_jax.errors import InputError
from tests.data.formats import exports

NAMES = ("background", "cat", "dog")
LISTS = {
    "names.txt": "background\ncat\n\n# a comment\ndog\n",
    "labels.txt": "\ufeff__ignore__\nbackground\ncat\ndog",
    "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\n"
    "dog:51,221,255:ear,tail:sit\n",
    "empty_colours.txt": "background:::\ncat:::\ndog:::\n",
    "_classes.csv": "Pixel Value, Class\n0, background\n1, cat\n2, dog\n",
    "tabs.tsv": "id\tname\n0\tbackground\n1\tcat\n2\tdog\n",
    "numbered.txt": "0: background\n1: cat\n2: dog\n",
    "list.json": json.dumps(NAMES),
    "classes.json": json.dumps({"classes": NAMES, "background": 0}),
    "meta.json": json.dumps({"classes": [{"title": "cat"}, {"title": "dog"}], "tags": []}),
    "coco.json": json.dumps({"categories": [{"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}]}),
}


@pytest.mark.parametrize("name", LISTS)
def test_comments_and_headings_are_no_classes(tmp_path, name):
    (tmp_path / name).write_text(LISTS[name], encoding="utf-8")
    found = read_class_file(tmp_path / name)
    assert found.classes == NAMES and found.background == 0
    assert found.plain and found.indices == {0: 0, 1: 1, 2: 2}
    voc = {(0, 0, 0): 0, (128, 0, 0): 1, (0, 128, 0): 2}
    colours = {"labelmap.txt": dict(zip(exports.COLOURS, range(3), strict=True)), "empty_colours.txt": voc}
    assert found.colours == colours.get(name)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "lists no class"),
        ("# nothing\n", "lists no class"),
        ("cat\ncat\n", "2 classes, 1 different"),
        ("cat:1,2,3::\ndog:1,2\npig:4,5,6::\n", "line 2: 'dog:1,2' is unlike the others"),
        ("cat:1,2,3::\ndog:1,2,3::\n", "the colour (1, 2, 3) is that of 'cat' and of 'dog'"),
        ("cat:1,2,300::\n", "the colour (1, 2, 300)"),
        ("cat:1,2,3::\ndog:::\n", "class 'dog' has the colour None"),
        ("id,name\n0,cat\n0,dog\n", "the id 0 is there twice"),
        ("cat, small\ndog\n", "line 1: 'cat, small' is no class name, but a row of a table"),
        ("Idx\tRatio\tName\n1\t0.2\twall\n", "line 1"),
    ],
)
def test_what_is_no_list_is_named(tmp_path, text, part):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_class_file(path)
    assert str(path) in str(caught.value) and part in str(caught.value)


@pytest.mark.parametrize(
    "content", [{"categories": [{"id": 1}]}, {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, 3]
)
def test_what_is_no_json_list_is_named(tmp_path, content):
    path = exports.dump(tmp_path / "list.json", content)
    with pytest.raises(InputError, match="list.json"):
        read_class_file(path)


def test_two_lists_must_agree(tmp_path):
    for name in ("labelmap.txt", "_classes.csv"):
        (tmp_path / name).write_text(LISTS[name])
    assert class_file(tmp_path, Options()) == tmp_path / "labelmap.txt"
    (tmp_path / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, dog\n2, cat\n")
    with pytest.raises(InputError, match=r"labelmap.txt and .*_classes.csv: list different classes; .*--classes"):
        class_file(tmp_path, Options())
    (tmp_path / "classes.json").write_text(LISTS["classes.json"])
    assert class_file(tmp_path, Options()) == tmp_path / "classes.json"
    assert class_file(tmp_path, Options(classes=tmp_path / "_classes.csv")) == tmp_path / "_classes.csv"
