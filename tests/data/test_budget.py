import dataclasses
import json

import numpy as np
import pytest

from scarce_jax.data.budget import Budget, Manifest, draw_manifest
from scarce_jax.errors import InputError

CLASSES = ("sky", "road", "car", "tree", "person")
IDS = tuple(f"frame_{k}" for k in range(60))


def tags_of(n: int, seed: int = 0) -> np.ndarray:
    """Random labels, later classes rarer, every class in some image and no image without a label."""
    rng = np.random.default_rng(seed)
    tags = (rng.random((n, len(CLASSES))) < [0.8, 0.6, 0.4, 0.3, 0.15]).astype(np.uint8)
    tags[np.arange(n), np.arange(n) % len(CLASSES)] = 1
    return tags


def draw(budget: Budget, ids=IDS, tags=None, **changes) -> Manifest:
    given = {"classes": CLASSES, "dataset": "toy", "version": "1.0.0", "split": "train", **changes}
    return draw_manifest(budget, ids, tags_of(len(ids)) if tags is None else tags, **given)


@pytest.mark.parametrize("rule", ["random", "stride"])
@pytest.mark.parametrize("seed", [0, 1])
def test_sizes_are_nested_and_roles_partition_the_split(rule, seed):
    before = ()
    for n in (0, 1, 10, 25, 59, 60):
        roles = draw(Budget(fine=n, draw=rule, seed=seed)).roles
        assert len(roles["fine"]) == n
        assert roles["fine"][: len(before)] == before
        assert set(roles["coarse"]) == set(roles["tags"]) == set(IDS)
        assert set(roles["fine"]) | set(roles["unlabelled"]) == set(IDS)
        assert not set(roles["fine"]) & set(roles["unlabelled"])
        assert roles["coarse"][:n] == roles["fine"]
        before = roles["fine"]


def test_seeds_differ_and_order_of_ids_does_not_matter():
    tags = tags_of(60)
    shuffle = np.random.default_rng(1).permutation(60)
    for rule in ("random", "stride"):
        first = draw(Budget(fine=10, draw=rule), tags=tags)
        again = draw(Budget(fine=10, draw=rule), ids=[IDS[i] for i in shuffle], tags=tags[shuffle])
        assert first == again and first.hash == again.hash
        other = draw(Budget(fine=10, draw=rule, seed=1), tags=tags)
        assert set(other.roles["fine"]) != set(first.roles["fine"])


def test_random_draw_is_fixed_for_ever():
    # Another order would silently change the subset that a published figure was measured with. These are the
    # first of the ids sorted by `printf '0:ID' | sha256sum`.
    expected = ("frame_26", "frame_28", "frame_41", "frame_9", "frame_55")
    assert draw(Budget(fine=5)).roles["fine"] == expected


@pytest.mark.parametrize("total", [1, 2, 7, 60, 367])
@pytest.mark.parametrize("seed", [0, 3])
def test_every_stride_budget_is_spread_evenly_over_the_frames(total, seed):
    ids = [f"frame_{k}" for k in range(total)]
    tags = tags_of(total)
    for n in [n for n in (1, 2, 5, 10, 25, 100, total) if n <= total]:
        fine = draw(Budget(fine=n, draw="stride", seed=seed), ids=ids, tags=tags).roles["fine"]
        # By frame number, so that frame_9 has to come before frame_10.
        positions = sorted(int(i.split("_")[1]) for i in fine)
        gaps = np.diff([*positions, positions[0] + total])
        assert gaps.max() < 2 * total / n + 1 and gaps.min() >= 1
    assert positions == list(range(total))


def test_fractions_all_and_zero():
    assert len(draw(Budget(fine=0.25)).roles["fine"]) == 15
    assert len(draw(Budget(fine=1 / 8)).roles["fine"]) == 8  # 7.5, rounded to even
    assert set(draw(Budget()).roles["fine"]) == set(IDS)
    assert draw(Budget()).roles["unlabelled"] == ()
    with pytest.raises(InputError, match=r"0\.001.*60 images.*gives none"):
        draw(Budget(fine=0.001))


def test_more_than_there_are():
    with pytest.raises(InputError, match="61.*60"):
        draw(Budget(fine=61))


@pytest.mark.parametrize("rule", ["random", "stride"])
def test_per_class_gives_every_class_its_images_with_few(rule):
    tags = tags_of(60)
    row = dict(zip(IDS, tags, strict=True))
    before = ()
    for k in (1, 2, 5):
        fine = draw(Budget(per_class=k, draw=rule), tags=tags).roles["fine"]
        counts = sum(row[i].astype(int) for i in fine)
        assert (counts >= k).all()
        assert len(fine) < k * len(CLASSES)
        assert fine[: len(before)] == before
        before = fine
    rarest = int(tags.sum(axis=0).min())
    with pytest.raises(InputError, match=rf"{rarest + 1} images.*person \({rarest}\)"):
        draw(Budget(per_class=rarest + 1), tags=tags)


def test_per_class_begins_with_the_rarest_class():
    # Every image shows the sky, one also a person: that one is enough for both.
    tags = np.zeros((60, 5), np.uint8)
    tags[:, 0] = tags[17, 4] = 1
    roles = draw(Budget(per_class=1), tags=tags[:, [0, 4]], classes=("sky", "person")).roles
    assert roles["fine"] == (IDS[17],)


def test_per_class_leaves_out_background():
    tags = tags_of(60)
    tags[:, 0] = 0
    assert draw(Budget(per_class=2), tags=tags, background=0).roles["fine"]
    with pytest.raises(InputError, match=r"sky \(0\)"):
        draw(Budget(per_class=2), tags=tags)


def test_strong_categories_decide_who_may_have_masks():
    tags = tags_of(60)
    tags[7] = 0
    strong = {"sky", "road", "car"}
    expected = {
        i
        for i, row in zip(IDS, tags, strict=True)
        if row.any() and {c for c, there in zip(CLASSES, row, strict=True) if there} <= strong
    }
    assert 5 < len(expected) < 50
    whole = draw(Budget(strong_categories=tuple(strong)), tags=tags)
    assert set(whole.roles["fine"]) == expected
    some = draw(Budget(strong_categories=tuple(strong), fine=5), tags=tags)
    assert some.roles["fine"] == whole.roles["fine"][:5]
    assert set(some.roles["tags"]) == set(IDS)
    by_class = draw(Budget(strong_categories=tuple(strong), per_class=2), tags=tags).roles["fine"]
    assert set(by_class) <= expected
    many = len(expected) + 1
    with pytest.raises(InputError, match=f"{many} images whose labels are all strong.*{many - 1}"):
        draw(Budget(strong_categories=tuple(strong), fine=many), tags=tags)
    with pytest.raises(InputError, match="no class 'raod'; did you mean road[?]"):
        draw(Budget(strong_categories=("raod",)), tags=tags)


@pytest.mark.parametrize(
    ("ids", "line"),
    [
        (["a b", "c"], "a b"),
        (["aachen_000000_000019"], "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png gtFine/x"),
        (["2007_000032"], "/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png"),
        (["0001TP_006690"], "/SegNet/CamVid/train/0001TP_006690.png /SegNet/CamVid/trainannot/x.png"),
        (["city/frame.1"], "root/city/frame.1.png"),
        (["frame.1"], "frame.1"),
    ],
)
def test_published_lists_fit(tmp_path, ids, line):
    path = tmp_path / "list.txt"
    path.write_text(f"# the published subset\n\n{line}\n{line}\n")
    ids = [*ids, "other"]
    manifest = draw(Budget(fine=str(path)), ids=ids, tags=tags_of(len(ids)))
    assert manifest.roles["fine"] == (ids[0],)
    assert set(manifest.roles["unlabelled"]) == set(ids[1:])


def test_a_list_keeps_its_order_and_is_checked(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("frame_9\nframe_3\n")
    assert draw(Budget(fine=str(path))).roles["fine"] == ("frame_9", "frame_3")
    path.write_text("frame_9\nframe3\n")
    with pytest.raises(InputError, match=r"list\.txt, line 2.*'frame3'.*did you mean frame_3[0-9]?[?]"):
        draw(Budget(fine=str(path)))
    path.write_text("frame_9\nval_1\n")
    with pytest.raises(InputError, match="line 2.*'val_1' is measured by an evaluation"):
        draw(Budget(fine=str(path)), forbidden_ids={"val_1"})
    path.write_text("\n")
    with pytest.raises(InputError, match="no ids"):
        draw(Budget(fine=str(path)))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a readable text file"):
        draw(Budget(fine=str(path)))
    with pytest.raises(InputError, match="'al'.*'all'"):
        draw(Budget(fine="al"))


def test_a_listed_image_may_not_show_a_weak_class(tmp_path):
    tags = tags_of(60)
    weak = int(np.flatnonzero(tags[:, 4])[0])
    path = tmp_path / "list.txt"
    path.write_text(f"{IDS[weak]}\n")
    with pytest.raises(InputError, match=f"'{IDS[weak]}' shows .*person"):
        draw(Budget(fine=str(path), strong_categories=CLASSES[:4]), tags=tags)


def test_training_on_what_is_measured_is_refused():
    assert draw(Budget(fine=3), forbidden_ids={"val_1", "val_2"}).roles["fine"]
    with pytest.raises(InputError, match=r"1 of 60.*frame_7\)"):
        draw(Budget(fine=60), forbidden_ids={"val_1", "frame_7"})


def test_repeated_ids_are_refused():
    with pytest.raises(InputError, match="occur twice"):
        draw(Budget(), ids=["a", "b", "a"])


def test_tags_must_fit_the_ids():
    with pytest.raises(ValueError, match=r"\(3, 5\).*60 examples x 5"):
        draw(Budget(), tags=tags_of(3))


def test_manifest_survives_the_disk_and_its_hash_covers_everything(tmp_path):
    manifest = draw(Budget(fine=10))
    path = tmp_path / "manifest.json"
    manifest.write(path)
    assert Manifest.read(path) == manifest
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]
    hashes = {manifest.hash}
    for other in (
        draw(Budget(fine=11)),
        draw(Budget(fine=10, seed=1)),
        draw(Budget(fine=10), dataset="toy2"),
        draw(Budget(fine=10), version="1.0.1"),
        draw(Budget(fine=10), split="trainval"),
    ):
        hashes.add(other.hash)
    assert len(hashes) == 6


def test_a_manifest_tells_how_many_masks_each_class_got_outside_its_hash(tmp_path):
    path = tmp_path / "manifest.json"
    manifest = draw(Budget(per_class=2), background=1)
    tags = dict(zip(IDS, tags_of(60), strict=True))
    counts = sum(tags[i].astype(int) for i in manifest.roles["fine"])
    assert manifest.fine_per_class == {name: counts[k] for k, name in enumerate(CLASSES) if name != "road"}
    assert min(manifest.fine_per_class.values()) == 2
    manifest.write(path)
    assert Manifest.read(path) == manifest
    assert dataclasses.replace(manifest, fine_per_class={}).hash == manifest.hash
    assert set(draw(Budget(fine=0)).fine_per_class.values()) == {0}


def test_a_damaged_manifest_is_named(tmp_path):
    path = tmp_path / "manifest.json"
    draw(Budget(fine=10)).write(path)
    good = path.read_text()
    content = json.loads(good)
    content["roles"]["fine"].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"manifest\.json.*hash"):
        Manifest.read(path)
    for bad in (
        good[: len(good) // 2],
        "[]",
        "{}",
        good.replace('"roles"', '"x"'),
        good.replace('"roles": {', '"roles": 3, "x": {'),
    ):
        path.write_text(bad)
        with pytest.raises(InputError, match=r"manifest\.json: damaged"):
            Manifest.read(path)
    with pytest.raises(InputError, match=r"none\.json.*cannot be read"):
        Manifest.read(tmp_path / "none.json")
