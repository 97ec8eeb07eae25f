"""The selection tables against counts made pixel by pixel, and AUROC against every pair."""

import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.methods.auxiliary import rival, selection
from scarce_jax.ops.confidence import quantised, reaches
from scarce_jax.recipe import Confident, MostConfident

CLASSES = ("sky", "road", "tree")
THRESHOLDS = (0.0, 0.5, 0.9, 1.1)
INFO = DatasetInfo(name="toy", classes=CLASSES, palette=((0, 0, 0),) * 3, background=None, splits={}, native_ids=None)


def drawn(seed=0, images=4, size=(9, 11)):
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(images, *size, 3)) * 3
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    labels = draw.integers(0, 3, (images, *size)).astype(np.uint8)
    labels = np.where(draw.random(labels.shape) < 0.5, probabilities.argmax(-1), labels).astype(np.uint8)
    labels[draw.random(labels.shape) < 0.1] = 255
    confidence = draw.normal(size=labels.shape) * 2 + (probabilities.argmax(-1) == labels)
    return probabilities.astype(np.float32), confidence.astype(np.float32), labels


def tables(probabilities, confidence, labels, size=None):
    arrays = (jnp.asarray(x) for x in (probabilities, confidence, labels))
    size = jnp.tile(jnp.array(size or labels.shape[1:]), (len(labels), 1))
    shares = selection.selection_counts(*arrays, THRESHOLDS, size)
    values = {key: np.asarray(value, np.float64).mean(0) for key, value in shares.items()}
    by_name = selection.selection_tables("selection", THRESHOLDS, INFO)
    assert all(a.stage == "selection" and a.name == key for t in by_name.values() for key, a in t.reads.items())
    return {name: table.make(values) for name, table in by_name.items()}


def test_padding_is_no_part_of_an_image():
    arrays = drawn()
    size = arrays[2].shape[1:]
    padding = [(0, 0), (0, 3), (0, 5)]
    probabilities, confidence, labels = (
        np.pad(array, [*padding, (0, 0)][: array.ndim], constant_values=value)
        for array, value in zip(arrays, (1 / 3, 9, 255), strict=True)
    )
    padded = tables(probabilities, confidence, labels, size)
    for name, table in tables(*arrays).items():
        for row, other in zip(table["rows"], padded[name]["rows"], strict=True):
            assert [x for x in row if isinstance(x, float)] == pytest.approx(
                [x for x in other if isinstance(x, float)], rel=1e-5
            )


def slow_figures(predictions, labels, trusted):
    """IoU per class of the kept pixels, and the share of each true class that is kept."""
    ious, ratios = [], []
    valid = labels != 255
    for k in range(3):
        truth, guess = (labels == k) & trusted & valid, (predictions == k) & trusted & valid
        union = (truth | guess).sum()
        ious.append((truth & guess).sum() / union if union else None)
        ratios.append(truth.sum() / ((labels == k) & valid).sum())
    return ious, ratios


def test_the_tables_equal_a_slow_count():
    probabilities, confidence, labels = drawn()
    predictions = probabilities.argmax(-1)
    results = tables(probabilities, confidence, labels)
    for row, threshold in zip(results["selection"]["rows"], THRESHOLDS, strict=True):
        trusted = np.floor(255 / (1 + np.exp(-confidence))) >= 255 * threshold
        ious, ratios = slow_figures(predictions, labels, trusted)
        known = [iou for iou in ious if iou is not None]
        shown, miou, ratio, selected, of_image = row[:5]
        assert shown == threshold
        assert miou == pytest.approx(np.mean(known), abs=1e-6) if known else miou is None
        assert ratio == pytest.approx(np.mean(ratios), abs=1e-6)
        assert selected == pytest.approx((trusted & (labels != 255)).sum() / (labels != 255).sum(), abs=1e-6)
        assert of_image == pytest.approx(trusted.mean(), abs=1e-6)
        columns = results["selection_classes"]["columns"]
        for name, iou, ratio in zip(CLASSES, ious, ratios, strict=True):
            by_class = dict(
                zip(columns, next(r for r in results["selection_classes"]["rows"] if r[0] == name), strict=True)
            )
            assert by_class[f"IoU at {threshold:g}"] == (None if iou is None else pytest.approx(iou, abs=1e-6))
            assert by_class[f"ratio at {threshold:g}"] == pytest.approx(ratio, abs=1e-6)


def test_softmax_is_compared_at_equal_coverage():
    probabilities, confidence, labels = drawn(1, images=8, size=(20, 20))
    results = tables(probabilities, confidence, labels)["selection"]
    predictions, highest, valid = probabilities.argmax(-1), probabilities.max(-1), labels != 255
    for row in results["rows"][:3]:
        selected = row[results["columns"].index("selected")]
        order = np.sort(highest[valid])[::-1]
        trusted = highest >= order[min(round(selected * valid.sum()), valid.sum()) - 1]
        ious, _ = slow_figures(predictions, labels, trusted)
        assert row[results["columns"].index("softmax mIoU")] == pytest.approx(np.mean(ious), abs=0.01)
    nothing = dict(zip(results["columns"], results["rows"][3], strict=True))
    assert nothing["selected"] == nothing["softmax class semi ratio"] == 0
    assert nothing["mIoU"] is nothing["softmax mIoU"] is None


def test_auroc_equals_the_share_of_ordered_pairs():
    probabilities, confidence, labels = drawn(2)
    right = (probabilities.argmax(-1) == labels)[labels != 255]
    results = tables(probabilities, confidence, labels)["selection"]["auroc"]
    for name, score in (("auxiliary", confidence), ("softmax", probabilities.max(-1))):
        score = score[labels != 255]
        pairs = score[right][:, None] - score[~right][None]
        expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
        # Confidences are binned; pairs within a bin count half.
        assert results[name] == pytest.approx(expected, abs=0.01)
    assert selection.auroc(np.array([[3, 0], [0, 5]])) == 1.0
    assert selection.auroc(np.array([[0, 5], [3, 0]])) == 0.0
    assert selection.auroc(np.array([[2, 4]])) == 0.5
    assert selection.auroc(np.array([[0, 4]])) is None


def test_a_confidence_that_knows_keeps_only_what_is_right():
    probabilities, _, labels = drawn(3)
    right = probabilities.argmax(-1) == labels
    results = tables(probabilities, np.where(right, 5.0, -5.0).astype(np.float32), labels)["selection"]
    assert results["auroc"]["auxiliary"] == 1.0
    assert [row[1] for row in results["rows"][1:3]] == [1.0, 1.0]
    assert results["rows"][1][3] == pytest.approx(right[labels != 255].mean(), abs=1e-6)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.6, 0.7, 0.9, 1.0])
def test_the_table_keeps_the_pixels_that_the_training_reads(threshold):
    """Every confidence near the threshold, as the stage stores it and as the table counts it."""
    confidence = np.clip(threshold + np.linspace(-0.008, 0.008, 801), 0, 1).astype(np.float32)
    stored = {"label": np.zeros(801, np.uint8), "confidence": np.asarray(quantised(confidence))}
    read = Confident(threshold=threshold)(stored) != 255
    np.testing.assert_array_equal(read, reaches(jnp.asarray(confidence), threshold))
    assert 0 < read.sum() < 801


@pytest.mark.parametrize("share", [0.01, 0.4, 0.65, 1.0])
def test_a_share_of_each_class_keeps_its_most_confident_pixels(share):
    """Of classes that differ in size and in confidence, the least that reaches the share; classes may be absent."""
    rng = np.random.default_rng(0)
    entries = []
    for _ in range(3):
        label = rng.choice(np.array([0, 2, 3], np.uint8), (40, 50), p=[0.8, 0.15, 0.05])
        usual = np.choose(label, [230, 0, 60, 128])
        entries.append({"label": label, "confidence": np.clip(rng.normal(usual, 30), 0, 255).astype(np.uint8)})
    read = MostConfident(share=share).fitted(iter(entries))
    labels, confidences, kept = (
        np.stack(x) for x in ([e["label"] for e in entries], [e["confidence"] for e in entries], [*map(read, entries)])
    )
    assert set(np.unique(kept)) <= {0, 2, 3, 255} and np.array_equal(kept[kept != 255], labels[kept != 255])
    for k in (0, 2, 3):
        own = np.sort(confidences[labels == k])[::-1]
        least = own[max(math.ceil(share * own.size), 1) - 1]
        np.testing.assert_array_equal(kept[labels == k] != 255, confidences[labels == k] >= least)


def test_a_discriminator_of_large_classes_keeps_fewer_classes_of_as_many_pixels():
    """Two confidences trust half of the pixels: one the larger class alone, the other half of each."""
    labels = np.zeros((1, 4, 12), np.uint8)
    labels[:, :, 6:9], labels[:, :, 9:] = 1, 2
    predictions, classes = jnp.asarray(labels), 3
    large = np.where(labels == 0, 4.0, -4.0)
    each = np.where(np.arange(4)[:, None] < 2, 4.0, -4.0) + np.zeros_like(large)
    count = functools.partial(selection.confusions_by_logit, predictions, labels, classes)
    values = {"softmax": count(large), "discriminator": count(large)}
    values["kept"] = jnp.stack([selection.confusions(predictions, labels, classes, x > 0) for x in (large, each)], 1)
    values["trusted"] = selection.confusions(predictions, labels, classes, large > 0)
    values = {name: np.asarray(value[0]) for name, value in values.items()}
    make = rival.confidence_table(0.6, (0.0, 0.5), 0.2, INFO)["selection_confidences"].make
    table = make(values)
    assert table["threshold"] == 0.5
    assert table["columns"] == ["class", "pixels", "auxiliary", "softmax", "discriminator", "discriminator at 0.2"]
    assert table["rows"] == [
        ["sky", 0.5, 0.5, 1.0, 1.0, 1.0], ["road", 0.25, 0.5, 0.0, 0.0, 0.0], ["tree", 0.25, 0.5, 0.0, 0.0, 0.0]
    ]  # fmt: skip
    assert table["selected"] == dict.fromkeys(table["columns"][2:], 0.5)
    assert table["class semi ratio"]["auxiliary"] == 0.5
    assert table["class semi ratio"]["discriminator"] == pytest.approx(1 / 3)
    # Where the auxiliary net trusts no pixel, there is nothing to compare.
    table = make({**values, "kept": 0 * values["kept"]})
    assert table["mIoU"] == {"auxiliary": None, "softmax": None, "discriminator": None, "discriminator at 0.2": 1.0}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.75, 1.0])
def test_as_many_pixels_are_taken_as_are_wanted(share):
    """Also of few bins: the last one counts in part, in proportion."""
    histogram = np.zeros((4, 2, 2))
    histogram[1], histogram[3] = [[0.25, 0.0], [0.0, 0.25]], [[0.1, 0.3], [0.1, 0.0]]
    taken = selection.most_confident(histogram, share)
    assert taken.sum() == pytest.approx(share)
    first, rest = min(share, 0.5), max(share - 0.5, 0.0)
    np.testing.assert_allclose(taken, histogram[3] * first / 0.5 + histogram[1] * rest / 0.5)
