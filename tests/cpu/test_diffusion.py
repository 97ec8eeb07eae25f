import dataclasses
import functools

import numpy as np
import pytest

from scarce_jax.cpu.diffusion import (
    BACKGROUND,
    FREE,
    Diffusion,
    Status,
    affinities,
    at_pixels,
    decide,
    find_seeds,
    random_walker,
)
from scarce_jax.cpu.workers import Workers
from scarce_jax.errors import InputError

DIFFUSION = Diffusion(segments=60)


def chain(count):
    return np.stack([np.arange(count - 1), np.arange(1, count)], -1)


def test_the_middle_of_a_chain_is_in_doubt():
    probabilities = random_walker(chain(3), np.ones(2), np.array([1, FREE, 0]), 2)
    np.testing.assert_allclose(probabilities, [[0, 1], [0.5, 0.5], [1, 0]])


def test_without_other_seeds_one_label_takes_all():
    probabilities = random_walker(chain(3), np.ones(2), np.array([1, FREE, FREE]), 2)
    np.testing.assert_allclose(probabilities[:, 1], [1, 1, 1])


@pytest.mark.parametrize("weak", range(5))
def test_the_boundary_goes_to_the_weakest_edge(weak):
    weights = np.ones(5)
    weights[weak] = 0.01
    probabilities = random_walker(chain(6), weights, np.array([1, *[FREE] * 4, 0]), 2)
    assert decide(probabilities, 0.5).tolist() == [1] * (weak + 1) + [0] * (5 - weak)


def test_a_chain_divides_by_resistance():
    # Between the ends lie resistances of 1, 2 and 4.
    probabilities = random_walker(chain(4), 1 / np.array([1.0, 2, 4]), np.array([1, FREE, FREE, 0]), 2)
    np.testing.assert_allclose(probabilities[:, 1], [1, 6 / 7, 4 / 7, 0])


def test_three_labels_meet_at_a_star():
    star = np.array([[0, 1], [0, 2], [0, 3]])
    probabilities = random_walker(star, np.array([1.0, 2, 5]), np.array([FREE, 0, 1, 2]), 3)
    np.testing.assert_allclose(probabilities[0], [1 / 8, 2 / 8, 5 / 8])


def test_many_labels_equal_the_minimiser_of_the_energy():
    rng = np.random.default_rng(0)
    count, labels = 30, 4
    edges = np.unique(np.sort(np.concatenate([chain(count), rng.integers(0, count, (60, 2))]), axis=1), axis=0)
    edges = edges[edges[:, 0] != edges[:, 1]]
    weights = np.exp(-6 * rng.random(len(edges)))
    seeds = np.full(count, FREE)
    seeds[rng.permutation(count)[:8]] = np.arange(8) % labels
    probabilities = random_walker(edges, weights, seeds, labels)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    for label in range(labels):
        # Least squares over the free nodes of sqrt(w) (q_i - q_j), with the seeds on the right-hand side.
        held = np.where(seeds == label, 1.0, 0.0)
        rows = np.zeros((len(edges), count))
        rows[np.arange(len(edges)), edges[:, 0]] = np.sqrt(weights)
        rows[np.arange(len(edges)), edges[:, 1]] = -np.sqrt(weights)
        free = seeds == FREE
        q = held.copy()
        q[free] = np.linalg.lstsq(rows[:, free], -rows[:, ~free] @ held[~free], rcond=None)[0]
        np.testing.assert_allclose(probabilities[:, label], q, atol=1e-10)


def test_only_ratios_of_weights_matter_however_small():
    seeds = np.array([1, FREE, FREE, 0])
    weights = np.array([1.0, 3, 2])
    expected = random_walker(chain(4), weights, seeds, 2)
    np.testing.assert_allclose(random_walker(chain(4), 1e-12 * weights, seeds, 2), expected)


def test_all_nodes_held_or_a_part_without_seeds():
    assert random_walker(chain(2), np.ones(1), np.array([0, 1]), 2).tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match="2 of 4 nodes have no path to a seed"):
        random_walker(np.array([[0, 1], [2, 3]]), np.ones(2), np.array([0, FREE, FREE, FREE]), 2)


def test_affinity_falls_with_the_plain_distance():
    features = np.array([[0.0, 0, 0, 0], [0.3, 0, 0, 0.4], [500, 0, 0, 0]])
    weights = affinities(features, np.array([[0, 1], [0, 0], [1, 2]]), 0.1)
    np.testing.assert_allclose(weights[:2], [np.exp(-0.5 / 0.2), 1])
    # Floating point has no such small number, and the graph must stay connected.
    assert weights[2] > 0


def test_decisions():
    probabilities = np.array([[1.0, 0, 0], [0.5, 0.3, 0.2], [0.51, 0.49, 0], [0.1, 0.44, 0.46]])
    # The last: no class has half, and the background least of all.
    assert decide(probabilities, 0.5).tolist() == [BACKGROUND, 1, BACKGROUND, 2]
    assert decide(probabilities, 0.9).tolist() == [BACKGROUND, BACKGROUND, BACKGROUND, 2]


def find(strength, objectness=None, border=None):
    border = np.ones(len(strength), bool) if border is None else np.array(border)
    objectness = None if objectness is None else np.array(objectness)
    seeds, status = find_seeds(np.array(strength), objectness, border, Diffusion())
    return seeds.tolist(), status


def test_seeds_of_both_kinds():
    strength = [[0.9], [0.6], [0.59], [0.2], [0.19], [0.1]]
    assert find(strength) == ([1, 1, FREE, FREE, 0, 0], Status.SOLVED)
    assert find([[0.9, 0.0], [0.0, 0.9], [0.1, 0.4], [0.1, 0.1]])[0] == [1, 2, FREE, 0]
    assert find(strength, [0, 0, 0, 0, 0.2, 0.1]) == ([1, 1, FREE, FREE, FREE, 0], Status.SOLVED)


def test_every_class_keeps_its_strongest_superpixel():
    # Too small to reach the threshold; and claimed more strongly by another class that has more.
    assert find([[0.3], [0.1]])[0] == [1, 0]
    assert find([[0.9, 0.7], [0.95, 0.1], [0.0, 0.0]])[0] == [2, 1, 0]
    assert find([[0.7, 0.8], [0.65, 0.1], [0.0, 0.0]])[0] == [2, 1, 0]
    assert find([[0.7, 0.7], [0.0, 0.0]])[0] == [1, 0]


def test_images_without_some_seeds():
    inner = [False, True, False, False]
    assert find([[0.9], [0.4], [0.4], [0.4]], border=inner) == ([1, 0, FREE, FREE], Status.BORDER_BACKGROUND)
    assert find([[0.4], [0.9], [0.4], [0.4]], border=inner) == ([FREE, 1, FREE, FREE], Status.NO_BACKGROUND)
    assert find([[0.0], [0.0]]) == ([0, 0], Status.NO_FOREGROUND)


def test_maps_lie_on_the_image_in_two_ways():
    maps, image = np.float32([[[0], [4], [8]]]), np.zeros((2, 5, 3))
    for align_corners, expected in ((True, [0, 2, 4, 6, 8]), (False, [0, 1.6, 4, 6.4, 8])):
        resized = at_pixels(maps, image, align_corners=align_corners)
        np.testing.assert_allclose(resized[..., 0], [expected] * 2, atol=1e-6)
    same = np.random.default_rng(0).random((2, 5, 3), np.float32)
    for align_corners in (True, False):
        np.testing.assert_allclose(at_pixels(same, image, align_corners=align_corners), same, atol=1e-6)


def scene(classes=3, background=0):
    """A bright box (class 2) on a dark ground; its class map, at a sixth of the size, peaks in its middle."""
    rng = np.random.default_rng(0)
    truth = np.zeros((66, 60), np.uint8)
    truth[18:54, 12:42] = 2
    image = np.where(truth[..., None] == 2, [220, 180, 60], [40, 70, 90]) + rng.integers(-6, 6, (66, 60, 3))
    cam = np.zeros((11, 10, classes), np.float16)
    cam[3:9, 2:7, 1] = 1.5
    cam[5:7, 4, 1] = 4
    cam[..., 0] = 7
    objectness = np.full((11, 10), 0.1, np.float32)
    objectness[3:9, 2:7] = 0.9
    tags = np.uint8([0, 0, 1, 0])
    return {"image": image.astype(np.uint8), "cam": cam, "objectness": objectness, "tags": tags}, truth


def diffusion(**changes):
    return dataclasses.replace(DIFFUSION, **changes)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_an_object_is_filled_to_its_outline_whatever_absent_classes_say():
    fields, truth = scene()
    result = DIFFUSION("a", fields)
    assert result["status"] == Status.SOLVED
    assert result["status"].dtype == result["label"].dtype == np.uint8
    assert set(np.unique(result["label"])) == {0, 2}
    assert iou(result["label"] == 2, truth == 2) > 0.9
    assert (result["label"] == truth).mean() > 0.95


def test_maps_below_zero_count_as_zero():
    fields, _ = scene()
    fields["cam"][fields["cam"] < 4] = 0
    expected = DIFFUSION("a", fields)
    fields["cam"][fields["cam"] == 0] = -50
    result = DIFFUSION("a", fields)
    assert result["status"] == expected["status"] == Status.SOLVED
    assert result["label"].tobytes() == expected["label"].tobytes()


def test_each_field_lies_on_its_nets_grid():
    rng = np.random.default_rng(0)
    image, tags = rng.integers(90, 130, (60, 60, 3)).astype(np.uint8), np.uint8([0, 1, 1])
    cam, objectness = rng.random((4, 4, 2), np.float32), rng.random((4, 4), np.float32)

    def labels(cam, objectness):
        fields = {"image": image, "tags": tags, "cam": cam, "objectness": objectness}
        return diffusion(decision=0.9)("a", fields)["label"]

    def sampled(cam_corners, objectness_corners):
        maps = at_pixels(cam, image, align_corners=cam_corners)
        return maps, at_pixels(objectness[..., None], image, align_corners=objectness_corners)[..., 0]

    label = labels(cam, objectness)
    assert label.tobytes() == labels(*sampled(False, True)).tobytes()
    assert (label != labels(*sampled(True, True))).any()
    assert (label != labels(*sampled(False, False))).any()


def test_padding_of_the_image_plays_no_part():
    fields, _ = scene()
    height, width = fields["image"].shape[:2]
    at = functools.partial(at_pixels, image=fields["image"])
    fields["cam"] = at(fields["cam"], align_corners=False)
    fields["objectness"] = at(fields["objectness"][..., None], align_corners=True)[..., 0]
    expected = DIFFUSION("a", fields)
    padded = {"tags": fields["tags"], "height": np.int32(height), "width": np.int32(width)}
    for name, value in (("image", 255), ("cam", 99), ("objectness", 1)):
        rest = [(0, 14), (0, 5), (0, 0)][: fields[name].ndim]
        padded[name] = np.pad(fields[name], rest, constant_values=value)
    result = DIFFUSION("a", padded)
    assert result["status"] == expected["status"] == Status.SOLVED
    assert result["label"].shape == (height, width)
    assert result["label"].tobytes() == expected["label"].tobytes()
    assert result["objectness"].shape == (height, width)
    assert abs(result["objectness"].astype(int) - expected["objectness"]).max() <= 1


def test_without_objectness_colour_alone_leads():
    fields, truth = scene()
    without = DIFFUSION("a", {**fields, "objectness": None})
    del fields["objectness"]
    absent = DIFFUSION("a", fields)
    assert without["status"] == absent["status"] == Status.SOLVED
    assert without["label"].tobytes() == absent["label"].tobytes()
    assert iou(absent["label"] == 2, truth == 2) > 0.9


def test_objectness_tells_what_colour_does_not():
    fields, truth = scene()
    fields["image"] = np.full_like(fields["image"], 120)
    result = DIFFUSION("a", fields)
    assert iou(result["label"] == 2, truth == 2) > 0.7


def test_the_l_net_may_choose_among_a_maps_peaks():
    fields, truth = scene()
    fields["cam"][5:7, 4, 1] = 3
    fields["cam"][9:, 8:, 1] = 4  # In the corner, where nothing is.
    overlaps = [iou(diffusion(seed_objectness=share)("a", fields)["label"] == 2, truth == 2) for share in (0.0, 0.9)]
    assert overlaps[0] < 0.6 and overlaps[1] > 0.8


def test_two_classes_share_an_image():
    fields, truth = scene()
    fields["image"][:, 30:42][truth[:, 30:42] == 2] = [60, 200, 80]
    truth[:, 30:42][truth[:, 30:42] == 2] = 3
    fields["tags"] = np.uint8([0, 0, 1, 1])
    fields["cam"][:, :, 1:] = 0
    fields["cam"][5:7, 3, 1] = fields["cam"][5:7, 6, 2] = 1
    result = DIFFUSION("a", fields)
    assert all(iou(result["label"] == k, truth == k) > 0.8 for k in (0, 2, 3))


@pytest.mark.parametrize("background", [None, 0, 3])
def test_columns_map_to_class_ids(background):
    fields, truth = scene()
    column = {None: 2, 0: 1, 3: 2}[background]
    cam = np.zeros((11, 10, 4 if background is None else 3), np.float32)
    cam[..., column] = fields["cam"][..., 1]
    result = diffusion(background=background)("a", {**fields, "cam": cam})
    ground = 255 if background is None else background
    assert set(np.unique(result["label"])) == {ground, 2}
    assert iou(result["label"] == 2, truth == 2) > 0.9


def test_images_that_cannot_be_solved_have_a_fixed_result():
    fields, _ = scene()

    def result(changes, **others):
        label, status, kept = diffusion(**others)("a", {**fields, **changes}).values()
        assert label.shape == (66, 60)
        np.testing.assert_array_equal(kept, np.rint(255 * np.asarray({**fields, **changes}["objectness"])))
        return np.unique(label).tolist(), Status(int(status))

    # The background's own tag does not count.
    assert result({"tags": np.uint8([1, 0, 0, 0])}) == ([0], Status.NO_TAGS)
    assert result({"tags": np.zeros(4, np.uint8)}) == ([0], Status.NO_TAGS)
    assert result({"cam": -fields["cam"]}) == ([255], Status.NO_FOREGROUND)
    assert result({}, segments=1) == ([255], Status.ONE_SUPERPIXEL)
    assert result({"cam": np.ones((11, 10, 3))}) == ([2], Status.NO_BACKGROUND)
    assert result({"objectness": np.full((1, 1), 0.5)}) == ([0, 2], Status.BORDER_BACKGROUND)


def test_a_region_unlike_all_others_is_decided_too():
    fields, truth = scene()
    # Free, and its affinities to what surrounds it are 0 in floating point.
    fields["image"][42:54, 18:30] = 255
    result = diffusion(sigma2=1e-4)("a", {**fields, "objectness": None})
    assert result["status"] == Status.SOLVED
    assert iou(result["label"] == 2, truth == 2) > 0.7


def test_worker_processes_give_the_same_bytes():
    fields, _ = scene()
    rng = np.random.default_rng(1)
    examples = [(str(k), {**fields, "image": rng.permuted(fields["image"], axis=k % 2)}) for k in range(4)]
    results = []
    for workers in (0, 2):
        with Workers(workers) as pool:
            results.append(list(pool.map_ordered(DIFFUSION, examples, 4)))
    here, there = results
    for (name, fields), (other_name, other_fields) in zip(here, there, strict=True):
        assert name == other_name
        assert all(fields[key].tobytes() == other_fields[key].tobytes() for key in ("label", "status"))


def test_bad_input_is_named():
    fields, _ = scene()
    with pytest.raises(InputError, match="^a: field objectness is not finite"):
        DIFFUSION("a", {**fields, "objectness": np.full((2, 2), np.nan)})
    with pytest.raises(InputError, match="^a: field cam is not finite"):
        DIFFUSION("a", {**fields, "cam": np.full((2, 2, 3), np.inf, np.float16)})
    with pytest.raises(ValueError, match=r"a: cam \[11, 10, 4\]; expected \[h, w, 3\] for 4 tags and background 0"):
        DIFFUSION("a", {**fields, "cam": np.zeros((11, 10, 4))})
