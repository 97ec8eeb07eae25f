"""What the P-Net is shown, and the table of what it takes for true."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.methods.common import SEGMENTER
from scarce_jax.methods.transfer.pnet import PNET, PNetLoss
from scarce_jax.methods.transfer.pnet_accuracy import COLUMNS, PNetReactions, judgement_table
from scarce_jax.recipe import NetState
from tests.methods.pictures import CLASSES, JUDGE, made_pictures


class Sums:
    """In place of the P-Net: the logit of a sample is its sum less 3. Keeps the samples."""

    def apply(self, variables, samples, train):
        self.samples = samples
        return samples.sum((1, 2, 3)) - 3


class Constant:
    """In place of a net: it returns what it was made with."""

    def __init__(self, value):
        self.value = value

    def apply(self, variables, *inputs, train):
        return self.value


@pytest.fixture(scope="module")
def pictures():
    return made_pictures()


def shown(judge, pictures):
    return judge.masks(*map(jnp.asarray, pictures))


def test_a_sample_is_the_image_times_the_mask_of_one_category(pictures):
    images, labels, logits = pictures
    judge = dataclasses.replace(JUDGE, module=Sums())
    masks = shown(judge, pictures)
    judged = judge({}, masks, masks.true(), judge.predicted(masks))
    real, predicted = np.asarray(judge.module.samples).reshape(2, 2, 3, 16, 16, 3)
    np.testing.assert_allclose(judged, np.stack([real, predicted]).sum((3, 4, 5)) - 3, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(masks.labelled, [[1, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(masks.shown, masks.labelled)
    probabilities = np.asarray(jax.nn.softmax(logits))
    for image, sample, k in ((0, 0, 3), (0, 1, 1), (1, 0, 2)):
        np.testing.assert_allclose(real[image, sample], images[image] * (labels[image] == k)[..., None], atol=1e-6)
        expected = images[image] * (probabilities[image, ..., k] * (labels[image] != 255))[..., None]
        np.testing.assert_allclose(predicted[image, sample], expected, atol=1e-6)
    # Void is nothing in both, and what is no sample shows nothing real.
    assert not real[0, :, 10:12].any() and not predicted[0, :, 10:12].any()
    assert not real[1, 1:].any()


def test_it_is_shown_every_eighth_pixel_where_its_side_is_the_grids():
    labels = np.random.default_rng(1).integers(0, CLASSES, (1, 33, 33)).astype(np.uint8)
    image = np.ones((1, 33, 33, 3), np.float32)
    logits = np.zeros((1, 9, 9, CLASSES), np.float32)
    masks = shown(dataclasses.replace(JUDGE, size=(9, 9), number=1), (image, labels, logits))
    counts = np.bincount(labels[0, ::4, ::4].ravel(), minlength=CLASSES)
    np.testing.assert_array_equal(masks.true()[0, 0], labels[0, ::4, ::4] == 1 + counts[1:].argmax())
    np.testing.assert_allclose(masks.soft(), 1 / CLASSES, rtol=1e-6)


def test_hard_masks_are_the_largest_classes_with_the_gradient_of_the_soft_ones(pictures):
    images, labels, logits = pictures
    hard, soft = (dataclasses.replace(JUDGE, mask=mask) for mask in ("hard", "soft"))
    masks = shown(hard, pictures)
    expected = logits.argmax(-1)[:, None] == np.asarray(masks.categories)[:, :, None, None]
    np.testing.assert_array_equal(hard.predicted(masks), expected)
    factors = jnp.asarray(np.random.default_rng(2).normal(size=expected.shape).astype(np.float32))

    def gradient(judge):
        return jax.grad(lambda x: (judge.predicted(shown(judge, (images, labels, x))) * factors).sum())(logits)

    np.testing.assert_array_equal(gradient(hard), gradient(soft))
    assert np.abs(gradient(hard)).max() > 0.01


def test_scaled_true_masks_are_sure_of_the_truth_and_share_the_rest_as_predicted(pictures):
    images, labels, _ = pictures
    labels = np.full_like(labels, 1)
    probabilities = np.full((2, 16, 16, CLASSES), 1e-9, np.float32)
    probabilities[..., :4] = [0.1, 0.5, 0.1, 0.3]
    probabilities[:, 8:, :, :4] = [0.01, 0.96, 0.01, 0.02]  # More certain than is demanded.
    judge = dataclasses.replace(JUDGE, mask="scaled", false_positives=True, number=CLASSES - 1)
    masks = shown(judge, (images, labels, np.log(probabilities)))
    scaled = {int(k): np.asarray(judge.true(masks)[0, n]) for n, k in enumerate(masks.categories[0])}
    for k, above, below in ((1, 0.9, 0.96), (2, 0.1 * 0.1 / 0.5, 0.01), (3, 0.3 * 0.1 / 0.5, 0.02)):
        np.testing.assert_allclose(scaled[k][:8], above, rtol=1e-4)
        np.testing.assert_allclose(scaled[k][8:], below, rtol=1e-4)
    np.testing.assert_array_equal(judge.predicted(masks), masks.soft())
    np.testing.assert_array_equal(masks.mismatched(judge.true(masks))[0], np.asarray(judge.true(masks))[::-1])


def test_true_masks_of_the_image_before_are_fakes_unless_they_are_the_same(pictures):
    masks = shown(JUDGE, pictures)
    other, weights = masks.mismatched()
    true = np.asarray(masks.true())
    np.testing.assert_array_equal(other, true[::-1])
    np.testing.assert_array_equal(weights, [[1, 0, 0], [1, 1, 0]])
    # Twice the same image: neither mask is a fake.
    twice = [np.repeat(x[:1], 2, axis=0) for x in pictures]
    assert not shown(JUDGE, twice).mismatched()[1].any()


def test_mismatched_masks_share_the_weight_of_the_fakes(pictures):
    images, labels, logits = pictures
    batch = {"labelled": {"image": images, "label": labels}}

    def loss(mismatched):
        judge = dataclasses.replace(JUDGE, module=Sums(), mismatched=mismatched)
        value, out = PNetLoss(judge)({}, {}, batch, {"logits": jnp.asarray(logits)}, None)
        return float(value), out.metrics

    without, metrics = loss(False)
    assert without == pytest.approx(float(metrics["real"] + metrics["predicted"])) and set(metrics) == {
        "real",
        "predicted",
    }
    value, metrics = loss(True)
    expected = [images[1] * (labels[0] == k)[..., None] for k in (3, 1)] + [images[0] * (labels[1] == 2)[..., None]]
    expected[2][labels[0] == 255] = 0
    mismatched = np.mean([np.logaddexp(0, sample.sum() - 3) for sample in expected])
    assert float(metrics["mismatched"]) == pytest.approx(mismatched, rel=1e-4)
    assert value == pytest.approx(float(metrics["real"] + metrics["predicted"] / 2) + mismatched / 2, rel=1e-4)


def test_categories_that_are_predicted_alone_are_fakes_without_a_true_mask(pictures):
    images, labels, _ = pictures
    logits = np.zeros((2, 16, 16, CLASSES), np.float32)
    logits[..., 0] = 1
    logits[1, 8:, :, 1] = logits[0, 10:12, :, 2] = 2  # What is predicted at void pixels does not count.
    plain = shown(JUDGE, (images, labels, logits))
    masks = shown(dataclasses.replace(JUDGE, false_positives=True), (images, labels, logits))
    np.testing.assert_array_equal(plain.shown, [[1, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(masks.shown, [[1, 1, 0], [1, 1, 0]])
    np.testing.assert_array_equal(masks.labelled, [[1, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(masks.categories[1, :2], [1, 2])
    np.testing.assert_array_equal(masks.hard()[1, 0], np.arange(16)[:, None].repeat(16, 1) >= 8)


def test_the_table_counts_masks_that_are_taken_for_true(pictures):
    images, labels, logits = pictures
    judge = dataclasses.replace(JUDGE, module=Sums())
    tags = np.array([[1, 1, 0, 1], [1, 0, 1, 0]], np.uint8)
    batch = {"image": jnp.asarray(images), "label": jnp.asarray(labels), "tags": jnp.asarray(tags)}
    nets = {name: NetState(params={}, batch_stats={}) for name in (SEGMENTER, PNET)}
    reactions = PNetReactions(Constant((jnp.asarray(logits), None)), judge, weak=(2,))(nets, batch, {})
    probabilities = np.asarray(jax.nn.softmax(logits))

    def judged(image, mask):
        return (images[image] * (mask * (labels[image] != 255))[..., None]).sum() > 3

    def row(image, categories):
        """Shares of one image's masks, one after another."""
        other = 1 - image
        true = [labels[image] == k for k in categories]
        columns = (
            true,
            [probabilities[image, ..., k] for k in categories],
            [logits[image].argmax(-1) == k for k in categories],
            [labels[other] == k for k in ((2,) if image == 0 else (3, 1))],
            [np.roll(mask, 3, axis=1) for mask in true],
            [labels[image] == 0] * len(categories),
        )
        return [np.mean([judged(image, mask) for mask in column]) for column in columns]

    table = judgement_table().make({name: np.asarray(value).mean(0) for name, value in reactions.items()})
    assert table["columns"] == ["images", *COLUMNS] and [row[0] for row in table["rows"]] == ["strong", "weak"]
    expected = [row(0, (3, 1)), row(1, (2,))]
    assert {0.0, 1.0} <= {value for line in expected for value in line}
    np.testing.assert_allclose([row[1:] for row in table["rows"]], expected, atol=1e-6)
    nothing = judgement_table().make({name: np.zeros((2, 6), np.float32) for name in ("masks", "judged_true")})
    assert nothing["rows"] == [["strong", *[None] * 6], ["weak", *[None] * 6]]
