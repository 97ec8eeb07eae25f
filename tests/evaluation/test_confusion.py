import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from scarce_jax.cli.evaluate import _text
from scarce_jax.cli.train import _results
from scarce_jax.data.figures import COVERED, covered, group_means, is_group_figure, share_of_classes, summarise
from scarce_jax.evaluation.confusion import confusion


def count_slowly(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros((classes, classes + 1), np.int64)
    for p, t in zip(predicted.reshape(-1).tolist(), truth.reshape(-1).tolist(), strict=True):
        if t < classes:
            counts[t, p if 0 <= p < classes else classes] += 1
    return counts


def iou_slowly(predicted: np.ndarray, truth: np.ndarray, classes: int) -> list[float | None]:
    counted = truth != 255
    ious = []
    for k in range(classes):
        inside, predicted_here = counted & (truth == k), counted & (predicted == k)
        union = (inside | predicted_here).sum()
        ious.append((inside & predicted_here).sum() / union if union else None)
    return ious


@pytest.mark.parametrize("classes", [1, 2, 7, 21, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_counts_and_figures_equal_slow_ones(classes, dtype):
    rng = np.random.default_rng(classes)
    shape = (2, 17, 13)
    # Half of the classes occur in the truth, three quarters in the prediction; both hold values of no class.
    truth = rng.integers(0, max(classes // 2, 1), shape)
    predicted = np.where(rng.random(shape) < 0.5, truth, rng.integers(0, max(3 * classes // 4, 1), shape))
    truth = np.where(rng.random(shape) < 0.2, 255, truth).astype(np.uint8)
    predicted = np.where(rng.random(shape) < 0.2, rng.integers(classes, 256, shape), predicted).astype(dtype)
    if dtype == np.int32:
        predicted[0, 0, :5] = [-1, -(2**31), 256, 2**31 - 1, 1000]
    counts = jax.jit(confusion, static_argnums=2)(predicted, truth, classes)
    assert counts.dtype == jnp.int32
    np.testing.assert_array_equal(counts, count_slowly(predicted, truth, classes))

    figures = summarise(np.asarray(counts), [f"c{k}" for k in range(classes)])
    expected = iou_slowly(predicted, truth, classes)
    assert list(figures["per_class"]) == [f"c{k}" for k in range(classes)]
    for iou, value in zip(figures["per_class"].values(), expected, strict=True):
        assert (iou is None) == (value is None) and (iou is None or abs(iou - value) < 1e-12)
    assert figures["miou"] == pytest.approx(np.mean([v for v in expected if v is not None]), abs=1e-12)
    counted = truth != 255
    assert figures["pixel_accuracy"] == pytest.approx((predicted == truth)[counted].mean(), abs=1e-12)
    recalls = [(predicted == truth)[truth == k].mean() for k in np.unique(truth) if k != 255]
    assert figures["mean_accuracy"] == pytest.approx(np.mean(recalls), abs=1e-12)
    assert figures["confusion"] == np.asarray(counts).tolist()


def test_a_prediction_of_no_class_misses_one_class_and_harms_no_other():
    truth = jnp.array([[0, 0, 1, 1]], jnp.uint8)
    coarse = jnp.array([[0, 255, 1, 255]], jnp.uint8)
    counts = confusion(coarse, truth, 2)
    assert counts.tolist() == [[1, 0, 1], [0, 1, 1]]
    figures = summarise(np.asarray(counts), ["a", "b"])
    assert figures["per_class"] == {"a": 0.5, "b": 0.5}
    assert figures["miou"] == figures["mean_accuracy"] == figures["pixel_accuracy"] == 0.5


def test_a_class_that_is_only_predicted_counts_with_zero_and_an_absent_one_not_at_all():
    counts = confusion(jnp.array([[0, 1]]), jnp.array([[0, 0]], jnp.uint8), 3)
    figures = summarise(np.asarray(counts), ["a", "b", "c"])
    assert figures["per_class"] == {"a": 0.5, "b": 0.0, "c": None}
    assert figures["miou"] == 0.25 and figures["mean_accuracy"] == 0.5


def test_nothing_counted_is_none_not_nan():
    counts = confusion(jnp.zeros((2, 2), jnp.int32), jnp.full((2, 2), 255, jnp.uint8), 2)
    figures = summarise(np.asarray(counts), ["a", "b"])
    assert figures["miou"] is figures["mean_accuracy"] is figures["pixel_accuracy"] is None
    assert figures["per_class"] == {"a": None, "b": None}


def test_means_over_groups_leave_absent_classes_out():
    per_class = {"a": 0.5, "b": None, "c": 0.25, "d": 0.75}
    groups = {"first": (0, 1), "rest": (1, 2, 3), "absent": (1,)}
    means = group_means(per_class, tuple(per_class), groups)
    assert means == {"miou_first": 0.5, "miou_rest": 0.5, "miou_absent": None}
    assert all(map(is_group_figure, means)) and not any(map(is_group_figure, ("miou", "miou_at_size", "per_class")))


def test_counts_stay_exact_beyond_float32():
    counts = np.array([[2**40 + 1, 0, 0], [1, 2**40, 2**33]], np.int64)
    assert summarise(counts, ["a", "b"])["confusion"] == counts.tolist()
    # A count in float32 would stop at 2**24.
    many = jnp.zeros((2**12 + 1, 2**12), jnp.uint8)
    assert int(jax.jit(confusion, static_argnums=2)(many, many, 2)[0, 0]) == many.size


def test_devices_add_up_to_one():
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, 6, (2, 16, 9, 9)).astype(np.uint8)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    summed = jax.shard_map(
        lambda p, t: jax.lax.psum(confusion(p, t, 5), "data"), mesh=mesh, in_specs=P("data"), out_specs=P()
    )
    np.testing.assert_array_equal(jax.jit(summed)(predicted, truth), confusion(predicted, truth, 5))


def test_what_does_not_fit_is_refused():
    mask = jnp.zeros((4, 4), jnp.uint8)
    with pytest.raises(ValueError, match=r"\(4, 4\), truth \(4, 5\)"):
        confusion(mask, jnp.zeros((4, 5), jnp.uint8), 2)
    with pytest.raises(ValueError, match="predicted has dtype float32"):
        confusion(mask.astype(jnp.float32), mask, 2)
    with pytest.raises(ValueError, match="fewer images"):
        huge = jax.ShapeDtypeStruct((2**16, 2**15), jnp.uint8)
        jax.eval_shape(lambda p, t: confusion(p, t, 2), huge, huge)
    with pytest.raises(ValueError, match=r"\(2, 2\), expected \(2, 3\)"):
        summarise(np.zeros((2, 2)), ["a", "b"])


def test_a_mean_over_fewer_classes_says_so():
    counts = np.array([[3, 0, 0], [0, 0, 0]])
    figures = summarise(counts, ["background", "cat"])
    assert (figures["miou"], figures["classes_measured"]) == (1.0, 1)
    assert share_of_classes(figures["per_class"]) == "1 of 2 classes"
    assert share_of_classes({"background": 0.0, "cat": 1.0}) == ""
    shown = _text(
        {**figures, "run": "r", "result": "s", "images": 2, "dataset": "d", "split": "val", "miou_at_size": None}
    )
    assert "mIoU 1.0000 over 1 of 2 classes (at training size -)" in shown
    summary = {"results": {"segmenter": {**figures, "images": 2}}, "tables": {}}
    assert "mIoU is over" in _results(summary, {}) and "1 of 2 classes" in _results(summary, {})


def test_pixels_that_get_a_class_have_figures_of_their_own():
    # Of class 0 half of 8 pixels get a class, one of them a wrong one; of class 1 all 2; class 2 does not occur.
    counts = np.array([[3, 1, 0, 4], [0, 2, 0, 0], [0, 0, 0, 0]])
    found = covered(counts, ("a", "b", "c"))
    assert {key: found[key] for key in COVERED} == pytest.approx(
        {"coverage": 0.6, "mean_coverage": 0.75, "precision": 5 / 6, "covered_miou": (3 / 4 + 2 / 3) / 2}
    )
    assert found["coverage_per_class"] == {"a": 0.5, "b": 1.0, "c": None}
    assert found["precision_per_class"] == {"a": 1.0, "b": 2 / 3, "c": None}
    assert found["covered_per_class"] == {"a": 3 / 4, "b": pytest.approx(2 / 3), "c": None}
    # Masks without void pixels have none.
    assert covered(counts * [1, 1, 1, 0], ("a", "b", "c")) == {}
    nothing = covered(np.array([[0, 3]]), ("a",))
    assert nothing["coverage"] == 0.0 and nothing["precision"] is nothing["covered_miou"] is None
    figures = {**summarise(counts, ("a", "b", "c")), **found, "miou_at_size": 0.5}
    figures |= {"run": "r", "result": "trusted", "images": 1, "dataset": "d", "split": "val"}
    lines = _text(figures).splitlines()
    row = next(line.split() for line in lines if line.startswith("a "))
    assert row == ["a", "0.3750", "0.5000", "1.0000", "0.7500"]
    assert "coverage 0.6000  mean coverage of classes 0.7500  precision 0.8333  mIoU there 0.7083" in lines[-1]
    rows = _results({"results": {"trusted": figures, "other": {**figures, "coverage": 1.0}}}, {}).splitlines()
    assert [line.split()[:2] for line in rows[-2:]] == [["trusted", "0.6000"], ["other", "1.0000"]]
