import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from scarce_jax.data.builders import prepare
from scarce_jax.data.builders.scenes import ColouredScenes, Scenes, draw, shapes
from scarce_jax.data.builders.scenes.compose import CRUMB, KINDS, draw_scene
from scarce_jax.data.coarse import CoarseMeter, example_rng, simulate_coarse
from scarce_jax.data.datasets import COLOURED_SCENES, KNOWN, SCENES


@pytest.fixture(scope="module")
def pictures():
    return [draw_scene("train", index, version="1.0.0") for index in range(48)]


def test_classes_are_the_kinds_with_background_first():
    assert SCENES.classes == ("background", *KINDS)
    assert SCENES.background == 0
    assert len(set(SCENES.palette)) == len(SCENES.classes)
    assert KNOWN["scenes"] is SCENES


def test_a_picture_depends_on_split_number_and_version_alone():
    image, fine = draw_scene("train", 3, version="1.0.0", size=64)
    np.random.seed(5)
    again = draw_scene("train", 3, version="1.0.0", size=64)
    np.testing.assert_array_equal(image, again[0])
    np.testing.assert_array_equal(fine, again[1])
    for split, index, version in (("val", 3, "1.0.0"), ("train", 4, "1.0.0"), ("train", 3, "1.0.1")):
        assert (draw_scene(split, index, version=version, size=64)[0] != image).any()


def test_pictures_and_masks_have_the_schema(pictures):
    for image, fine in pictures:
        assert image.shape == (256, 256, 3) and image.dtype == np.uint8
        assert fine.shape == (256, 256) and fine.dtype == np.uint8
        assert set(np.unique(fine)) <= {*range(len(SCENES.classes)), 255}
        assert image.std() > 10


def test_every_class_appears_unevenly_often_and_several_in_a_picture(pictures):
    present = np.array([[(fine == k).any() for k in range(len(SCENES.classes))] for _, fine in pictures])
    assert present.any(0).all()
    assert 2.5 < present[:, 1:].sum(1).mean() < 5
    pixels = np.bincount(np.concatenate([fine.ravel() for _, fine in pictures]), minlength=256)[: len(SCENES.classes)]
    assert 0.6 < pixels[0] / pixels.sum() < 0.92
    assert pixels[1:].max() > 3 * pixels[1:].min()


def test_no_object_is_left_as_a_crumb(pictures):
    for _, fine in pictures:
        counts = np.bincount(fine.ravel(), minlength=256)[1 : len(SCENES.classes)]
        assert (counts[counts > 0] >= CRUMB).all()


def test_colour_does_not_tell_the_class(pictures):
    means = np.array([
        np.concatenate([image[fine == k] for image, fine in pictures]).mean(0) for k in range(1, len(SCENES.classes))
    ])  # fmt: skip
    spread = np.concatenate([image[(fine > 0) & (fine < 255)] for image, fine in pictures]).std(0)
    assert (np.abs(means - means.mean(0)) < 1.1 * spread).all()


def nearest_mean_accuracy(pictures):
    """Share of objects whose hue is nearest to that of their own class's other objects."""
    hues, kinds = [], []
    for image, fine in pictures:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 0]
        for k in set(np.unique(fine)) - {0, 255}:
            hues.append(np.exp(2j * np.pi * hsv[fine == k] / 180).mean())
            kinds.append(k)
    hues, kinds = np.array(hues), np.array(kinds)
    means = np.array([hues[kinds == k].mean() for k in range(1, len(SCENES.classes))])
    return (np.abs(hues[:, None] - means).argmin(1) + 1 == kinds).mean()


def test_colour_tells_the_class_in_the_coloured_variant_alone(pictures):
    coloured = [draw_scene("train", index, version="1.0.0", **ColouredScenes.DRAWN) for index in range(48)]
    assert all(image.shape == (128, 128, 3) for image, _ in coloured)
    assert nearest_mean_accuracy(coloured) > 0.5 > 0.3 > nearest_mean_accuracy(pictures)


def test_prepared_coloured_scenes_lie_beside_the_others(tmp_path, monkeypatch):
    for builder in (Scenes, ColouredScenes):
        monkeypatch.setattr(builder, "SIZES", {"train": 2})
    prepared = [prepare(name, tmp_path) for name in ("scenes", "scenes/coloured")]
    assert [str(p.directory.relative_to(tmp_path)) for p in prepared] == ["scenes/1.0.0", "scenes/coloured/1.0.0"]
    assert prepared[1].info.classes == KNOWN["scenes/coloured"].classes == COLOURED_SCENES.classes
    first = [tfds.builder_from_directory(p.directory).as_data_source("train")[0]["image"].shape for p in prepared]
    assert first == [(256, 256, 3), (128, 128, 3)]


def test_texture_alone_tells_the_fish_apart():
    fish = [KINDS[f"{texture} fish"] for texture in ("striped", "spotted", "checked")]
    assert {kind.draw for kind in fish} == {shapes.fish}
    assert [kind.texture for kind in fish] == ["striped", "spotted", "checked"]
    assert all(kind.texture is None for name, kind in KINDS.items() if "fish" not in name.split())


@pytest.mark.parametrize("name", ["octopus", "crab", "jellyfish", "kelp", "coral", "starfish"])
def test_outlines_are_articulated(name):
    solidity = []
    for seed in range(8):
        silhouette = KINDS[name].draw(np.random.default_rng(seed))
        opacity = draw.rasterise(silhouette, draw.pose(80, 80, 100), 160)
        inside = np.argwhere(opacity > 127)
        solidity.append(len(inside) / cv2.contourArea(cv2.convexHull(inside.astype(np.int32))))
    assert 0.1 < np.mean(solidity) < 0.72


@pytest.mark.parametrize("texture", draw.TEXTURES)
def test_textures_mix_two_colours(texture):
    v, u = np.mgrid[0:8:64j, 0:8:64j].astype(np.float32)
    share = draw.texture(np.random.default_rng(0), texture, u, v)
    assert share.min() >= -1e-6 and share.max() <= 1 + 1e-6
    assert share.std() > (0.05 if texture == "plain" else 0.2)


def test_unknown_texture_is_refused():
    with pytest.raises(ValueError, match="'tartan' is none of plain"):
        draw.texture(np.random.default_rng(0), "tartan", np.zeros(1), np.zeros(1))


def test_simulated_coarse_masks_are_right_but_leave_much_to_detail(pictures):
    meter = CoarseMeter(len(SCENES.classes))
    for index, (_, fine) in enumerate(pictures):
        rng = example_rng("scenes", f"train_{index:04d}")
        coarse = simulate_coarse(fine, rng=rng, settings=Scenes.COARSE)
        meter.add(fine, coarse)
    quality = meter.quality()
    assert quality.precision >= 0.97
    assert 0.40 <= quality.miou <= 0.55


def test_prepared_scenes_read_back(tmp_path, monkeypatch, pictures):
    monkeypatch.setattr(Scenes, "SIZES", {"train": 3, "val": 2})
    prepared = prepare("scenes", tmp_path)
    assert prepared.info.splits == {"train": 3, "val": 2}
    assert prepared.info.background == 0
    examples = tfds.builder_from_directory(prepared.directory).as_data_source("train")
    assert [e["id"] for e in examples] == [b"train_0000", b"train_0001", b"train_0002"]
    for example, (image, fine) in zip(examples, pictures, strict=False):
        np.testing.assert_array_equal(example["fine"][..., 0], fine)
        assert np.abs(example["image"].astype(int) - image).mean() < 4  # JPEG
        expected = [int(k > 0 and (fine == k).any()) for k in range(len(SCENES.classes))]
        np.testing.assert_array_equal(example["tags"], expected)
