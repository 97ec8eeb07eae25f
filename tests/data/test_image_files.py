"""Listing the images of a folder: names, links, litter, and what is not read."""

import os
import pathlib
import unicodedata

import pytest

from scarce_jax.data.image_files import FileError, list_images, scan_images, walk
from scarce_jax.errors import InputError


def files(folder: pathlib.Path, *names: str) -> pathlib.Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def test_stems_are_paths_without_the_suffix_in_order(tmp_path):
    names = ["b/two words.png", "b.JPG", "a.tiff", "IMG.jpg.png", "b/c/写真.webp", "x.y.gif"]
    found = list_images(files(tmp_path, *names))
    assert list(found) == ["IMG.jpg", "a", "b/c/写真", "b/two words", "b", "x.y"]
    assert found["b"] == tmp_path / "b.JPG"
    assert list(list_images(tmp_path, nested=False)) == ["IMG.jpg", "a", "b", "x.y"]
    assert list_images(tmp_path / "none/at/all") == list_images(tmp_path / "a.tiff") == {}


def test_litter_and_texts_are_left_out(tmp_path):
    litter = ["Thumbs.db", "desktop.ini", ".DS_Store", "._a.png", ".hidden/b.png", "Icon\r", "__MACOSX/c.png"]
    litter += ["@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "README", "notes.TXT", "a.json", "a.xml", "a.aux.xml", "a.tfw"]
    assert list(list_images(files(tmp_path, "a.png", *litter))) == ["a"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("IMG_1.HEIC", "magick mogrify -format jpg FILE"),
        ("a.avif", "magick mogrify -format png FILE"),
        ("a.NEF", "darktable-cli"),
        ("a.npy", "PIL.Image.fromarray"),
        ("scan.nii.gz", "PIL.Image.fromarray"),
        ("a.mp4", "move it out"),
        ("no_suffix", "move it out"),
    ],
)
def test_what_is_not_read_is_named_with_the_way_out(tmp_path, name, advice):
    files(tmp_path, "a.png", f"b/{name}")
    with pytest.raises(InputError, match=rf"b/{name}: not an image file.*expected files ending in \.png.*{advice}"):
        list_images(tmp_path)
    images, (fault,) = scan_images(tmp_path)
    assert list(images) == ["a"] and (fault.kind, fault.path) == ("not-an-image", tmp_path / "b" / name)


def test_links_are_followed_and_circles_end(tmp_path):
    files(tmp_path, "store/a.png", "store/deep/b.png", "folder/c.png")
    folder = tmp_path / "folder"
    (folder / "link.png").symlink_to("../store/a.png")
    (folder / "linked").symlink_to(tmp_path / "store")
    (folder / "twice").symlink_to(tmp_path / "store/deep")
    (folder / "circle").symlink_to(folder)
    (folder / "parent").symlink_to(tmp_path)
    (tmp_path / "store/deep/up").symlink_to(tmp_path / "store")
    assert list(list_images(folder)) == ["c", "link", "linked/a", "linked/deep/b", "twice/b", "twice/up/a"]


def test_a_walk_follows_links_but_not_those_above(tmp_path):
    root = files(tmp_path / "root", "b.txt", "a.png", "deep/c.png", "left/d.png").absolute()
    files(tmp_path / "other", "e.png")
    for name, target in (("circle", root), ("up", tmp_path), ("linked", tmp_path / "other")):
        (root / "deep" / name).symlink_to(target)
    found = dict(walk(root, lambda name: name == "left"))
    assert found == {".": ["a.png", "b.txt"], "deep": ["c.png"], "deep/linked": ["e.png"]}
    assert list(walk(tmp_path / "none/at/all", lambda name: False)) == []


@pytest.mark.parametrize("name", ["gone.png", "itself.png"])
def test_a_link_to_nothing_is_named(tmp_path, name):
    (tmp_path / "itself.png").symlink_to("itself.png")
    (tmp_path / "gone.png").symlink_to("nothing")
    faults = {fault.path.name: str(fault) for fault in scan_images(tmp_path)[1]}
    assert f"{name}: a link to " in faults[name] and "restore the file" in faults[name]


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(FileError, match="no regular file"):
        list_images(tmp_path)


def test_names_match_after_composition(tmp_path):
    composed, split = (unicodedata.normalize(form, "Bäume") for form in ("NFC", "NFD"))
    assert composed != split
    assert list(list_images(files(tmp_path / "one", f"{split}/{split}.png"))) == [f"{composed}/{composed}"]
    with pytest.raises(FileError, match=r"equal stems, beside .* \(accents are stored in two ways\)"):
        list_images(files(tmp_path / "two", f"{split}.png", f"{composed}.png"))


def test_equal_stems_and_unprintable_names_are_named(tmp_path):
    with pytest.raises(FileError, match=r"a\.png: equal stems, beside a\.jpg, expected one file per example"):
        list_images(files(tmp_path / "equal", "a.jpg", "a.png"))
    for name, shown in ((b"a\nb.png", r"a\\nb\.png"), (b"\xff.png", r"\\udcff\.png")):
        folder = tmp_path / "odd"
        folder.mkdir(exist_ok=True)
        pathlib.Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"x")
        with pytest.raises(FileError, match=rf"odd/{shown}: its name has bytes") as caught:
            list_images(folder)
        assert str(caught.value).isprintable()
        (folder / os.fsdecode(name)).unlink()
