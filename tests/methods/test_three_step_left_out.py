"""The three-step method without one class: classifiers of some tags, a held-out part, and the class added back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scarce_jax import runs
from scarce_jax.data.datasets import CAMVID, SCENES
from scarce_jax.data.files import read_json
from scarce_jax.data.records import Records
from scarce_jax.data.sampling import RareClassSampling
from scarce_jax.data.schema import IGNORE
from scarce_jax.data.source import Reader
from scarce_jax.dry_run import dry_run
from scarce_jax.errors import InputError
from scarce_jax.evaluation.tags import summarise_tags
from scarce_jax.methods import three_step
from scarce_jax.methods.inputs import as_stored
from scarce_jax.methods.three_step.binary import AddedLabels, AddedScores, BinaryDraws, BinaryMap
from scarce_jax.methods.three_step.cams import CompactMaps
from scarce_jax.methods.three_step.left_out import NEVER, Kept, KeptDraws, KeptLogits, KeptLoss, KeptMaps, KeptTags
from scarce_jax.models.tiny import TinyConfig
from scarce_jax.ranges import check
from scarce_jax.recipe import NetState, Part, Views
from tests import tiny

CLASS, NAME = 3, "checked fish"
KEPT = Kept.without(CLASS, SCENES)
ONLY = Kept.only(CLASS, SCENES)
OTHERS = [k for k in range(1, 12) if k != CLASS]


@dataclasses.dataclass(frozen=True)
class Given:
    """A net whose logits and maps are its parameters."""

    def apply(self, variables, *inputs, method=None, mutable=None, **_):
        values = variables["params"][method or "logits"]
        return (values, {}) if mutable is not None else values


def state(**params):
    return {"classifier": NetState({name: jnp.asarray(value) for name, value in params.items()}, {})}


def rows(count=5, seed=0):
    rng = np.random.default_rng(seed)
    tags = rng.integers(0, 2, (count, 12)).astype(np.uint8)
    tags[:, 0] = 0
    tags[:2, CLASS] = 0, 1
    return rng.normal(size=(count, 11)).astype(np.float32), tags


def loss(logits, tags, kept):
    batch = {"tagged": {"image": None, "tags": jnp.asarray(tags)}}

    def of(logits):
        return KeptLoss(Given(), kept)({"logits": logits}, state(logits=logits), batch, {}, None)[0]

    return jax.value_and_grad(of)(jnp.asarray(logits))


def test_kept_classes_have_their_own_outputs_wherever_the_background_is():
    assert Kept(tuple(OTHERS), tuple(k - 1 for k in OTHERS), 12) == KEPT
    last = dataclasses.replace(SCENES, background=11)
    assert Kept.without(3, last) == Kept((0, 1, 2, 4, 5, 6, 7, 8, 9, 10), (0, 1, 2, 4, 5, 6, 7, 8, 9, 10), 12)
    assert Kept((CLASS,), (0,), 12) == ONLY


def test_the_loss_is_that_of_the_kept_classes_and_the_other_teaches_nothing():
    logits, tags = rows()
    value, gradient = loss(logits, tags, KEPT)
    chosen = [k - 1 for k in OTHERS]
    expected = optax.sigmoid_binary_cross_entropy(logits[:, chosen], tags[:, OTHERS].astype(np.float32)).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert not np.asarray(gradient)[:, CLASS - 1].any() and np.asarray(gradient)[:, chosen].all()
    # Whether an image has the tag is all the same.
    flipped = tags.copy()
    flipped[:, CLASS] = 1 - flipped[:, CLASS]
    again, same = loss(logits, flipped, KEPT)
    assert value == again
    np.testing.assert_array_equal(gradient, same)


def test_the_binary_loss_is_that_of_its_tag_alone():
    logits, tags = rows()
    value, _ = loss(logits[:, :1], tags, ONLY)
    truth = tags[:, CLASS]
    expected = -np.where(truth, np.log(sigmoid(logits[:, 0])), np.log(1 - sigmoid(logits[:, 0]))).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def test_figures_of_kept_classes_are_means_over_them():
    logits, tags = rows(40)
    batch = {"image": jnp.zeros((40, 1, 1, 3)), "tags": jnp.asarray(tags)}
    kept = jax.vmap(lambda row: KeptTags(as_stored, KEPT)(row, None, {}))(batch)["tags"]
    assert not np.asarray(kept)[:, CLASS].any()
    np.testing.assert_array_equal(np.asarray(kept)[:, OTHERS], tags[:, OTHERS])
    predicted = np.asarray(KeptLogits(Given(), KEPT)(state(logits=logits), batch, {}))
    figures = summarise_tags(predicted, np.asarray(kept), SCENES.classes, 0)
    everything = summarise_tags(logits, tags, SCENES.classes, 0)["per_class"]
    assert figures["per_class"][NAME] is None
    np.testing.assert_allclose(figures["map"], np.mean([everything[SCENES.classes[k]] for k in OTHERS]))
    found, truth = logits[:, [k - 1 for k in OTHERS]] > 0, tags[:, OTHERS] > 0
    f1 = 2 * (found & truth).sum(0) / (found.sum(0) + truth.sum(0))
    np.testing.assert_allclose(figures["mean_f1"], f1.mean())
    # And of the binary classifier, those of its class.
    alone = jax.vmap(lambda row: KeptTags(as_stored, ONLY)(row, None, {}))(batch)["tags"]
    predicted = np.asarray(KeptLogits(Given(), ONLY)(state(logits=logits[:, [CLASS - 1]]), batch, {}))
    figures = summarise_tags(predicted, np.asarray(alone), SCENES.classes, 0)
    assert figures["map"] == pytest.approx(everything[NAME])
    assert [name for name, value in figures["per_class"].items() if value is not None] == [NAME]
    # Rows without tags, as on the evaluation split, stay as they are.
    assert KeptTags(as_stored, KEPT)({"image": 1}, None, {}) == {"image": 1}


def test_the_class_is_never_among_those_of_an_image():
    logits = np.full((2, 11), -3.0, np.float32)
    logits[:, CLASS - 1], logits[1, 6] = 9, 2
    maps = np.ones((2, 1, 1, 11), np.float32)

    def view(nets, batch, consts):
        return {"maps": jnp.asarray(maps), "logits": jnp.asarray(logits)}

    made = KeptMaps(view, KEPT)({}, {}, {})
    compact = CompactMaps((4, 4), 0, 3)([made], [False])
    assert compact["classes"].tolist() == [[1, IGNORE, IGNORE], [7, IGNORE, IGNORE]]
    tags = np.eye(12, dtype=np.uint8)[[CLASS, 5]]
    tags[1, CLASS] = 1
    removed = jax.vmap(lambda t: KeptTags(as_stored, KEPT)({"tags": t}, None, {})["tags"])(jnp.asarray(tags))
    compact = CompactMaps((4, 4), 0, 3)([{**made, "tags": removed}], [False])
    assert compact["classes"].tolist() == [[IGNORE] * 3, [5, IGNORE, IGNORE]]
    # The image without another tag is sure of nothing; of the other only class 5 counts.
    np.testing.assert_allclose(compact["confidence"], [-1, sigmoid(-3)], rtol=1e-5)


def test_the_class_balances_nothing():
    _, tags = rows(30)
    removed = tags.copy()
    removed[:, CLASS] = 0
    for weight in (three_step.ClassBalance(at_most=4, at_least=6), RareClassSampling(power=0.5)):
        np.testing.assert_array_equal(KeptDraws(weight, KEPT)(tags), weight(removed))
    # An image of which no tag is left is left out by a balance that leaves out, and stays otherwise.
    alone = np.eye(12, dtype=np.uint8)[[CLASS, 4, 5]]
    np.testing.assert_array_equal(KeptDraws(three_step.ClassBalance(at_most=1), KEPT)(alone), [0, 1, 1])
    np.testing.assert_array_equal(KeptDraws(RareClassSampling(), KEPT)(alone), [1, 1, 1])


def test_a_binary_classifier_balances_images_with_and_without():
    tags = np.zeros((6, 12), np.uint8)
    tags[4:, CLASS] = 1
    tags[:, 5] = 1
    draws = BinaryDraws(three_step.ClassBalance(at_most=2), CLASS, NAME)(tags)
    np.testing.assert_array_equal(draws, [1, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(BinaryDraws(None, CLASS, NAME)(tags), np.ones(6))
    for some, found in ((tags[:4], "none of 4"), (tags[4:], "all of 2")):
        with pytest.raises(InputError, match=f"binary: {found} training images have the tag 'checked fish', expected"):
            BinaryDraws(None, CLASS, NAME)(some)


def test_maps_of_the_class_are_those_of_images_with_its_tag_or_its_probability():
    maps = np.zeros((3, 2, 2, 1), np.float32)
    maps[:, 0, 0], maps[:, 1, 1] = 3, 1
    tags = np.zeros((3, 12), np.uint8)
    tags[0, CLASS] = 1
    # The mean probability decides: of the second image it is below one half, of the third above.
    logits = np.array([[[-5.0], [-5.0], [-0.2]], [[-5.0], [0.1], [0.4]]], np.float32)
    views = [
        {"maps": jnp.asarray(m), "logits": jnp.asarray(l), "tags": jnp.asarray(tags)}
        for m, l in zip((maps, maps[:, :, ::-1]), logits, strict=True)
    ]
    made = BinaryMap((8, 8), CLASS)(views, [False, True])
    assert made["status"].tolist() == [1, 0, 1]
    expected = np.array([[255, 0], [0, 85]], np.uint8)
    np.testing.assert_array_equal(made["maps"][..., 0], [expected, np.zeros((2, 2)), expected])


def test_labels_take_the_class_where_they_are_background():
    label = np.array([[[0, 0, 5, 0], [0, IGNORE, 5, 0]]], np.uint8)
    maps = np.array([[[255, 255, 255, 0], [70, 255, 0, 80]]], np.uint8)[..., None]
    batch = {"label": jnp.asarray(label), "maps": jnp.asarray(maps)}
    made = AddedLabels(CLASS, 0, 0.3)({}, batch, {})["label"]
    np.testing.assert_array_equal(made, [[[3, 3, 5, 0], [0, IGNORE, 5, 3]]])
    assert made.dtype == jnp.uint8


def test_scores_of_the_class_against_a_slow_reference():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 4, 5, 12)).astype(np.float32)
    maps = rng.normal(size=(3, 4, 5, 1)).astype(np.float32)
    logits = np.array([[2.0], [-2.0], [1.0]], np.float32)

    def segment(nets, batch, consts):
        return jnp.asarray(scores)

    predict = AddedScores(segment, Given(), (4, 5), CLASS, 0, 0.3)
    batch = {"image": jnp.zeros((3, 4, 5, 3))}
    made = np.asarray(predict(state(logits=logits, class_activation_maps=maps), batch, {}))
    others = [k for k in range(12) if k != CLASS]
    np.testing.assert_array_equal(made[..., others], scores[..., others])
    for b, y, x in np.ndindex(3, 4, 5):
        own, value = scores[b, y, x, CLASS], max(maps[b, y, x, 0], 0) / maps[b].max()
        expected = max(own, scores[b, y, x, 0] + value - 0.3) if logits[b, 0] > 0 else own
        np.testing.assert_allclose(made[b, y, x, CLASS], expected, rtol=1e-5)


def test_averaged_views_add_the_class_where_the_mean_map_is_above_the_threshold():
    """Where the background wins without it, and all views show it."""
    rng = np.random.default_rng(1)
    total, mean = 0.0, 0.0
    background = np.zeros((1, 6, 6, 12), np.float32)
    background[..., 0], background[..., CLASS] = 4, -9
    for _ in range(3):
        maps = rng.random((1, 6, 6, 1)).astype(np.float32)
        predict = AddedScores(lambda *_: jnp.asarray(background), Given(), (6, 6), CLASS, 0, 0.6)
        nets = state(logits=np.ones((1, 1), np.float32), class_activation_maps=maps)
        total += np.asarray(predict(nets, {"image": jnp.zeros((1, 6, 6, 3))}, {})) / 3
        mean += maps[..., 0] / maps.max() / 3
    np.testing.assert_array_equal(total.argmax(-1), np.where(mean > 0.6, CLASS, 0))
    assert 0 < (mean > 0.6).sum() < 36


BINARY_STAGES = ["binary", "binary_cams", "added_labels"]


def whole_config():
    """A shrunk run with everything: one class left out and added back, and parts held out from both classifiers."""
    config = tiny.three_step_config()
    held = {"held_out": 0.3, "eval_every": 1, "keep_best": "mean_f1", "balance": three_step.ClassBalance(at_most=3)}
    config = tiny.replaced(config, "classifier", steps=None, epochs=3, **held)
    binary = dataclasses.replace(config.classifier, net=TinyConfig(width=4), balance=None)
    return dataclasses.replace(config, left_out=NAME, binary=binary, add_to_labels=True)


def test_stages_and_results_of_a_class_that_is_left_out():
    config = whole_config()
    names = [stage.name for stage in three_step.recipe(config, SCENES).stages]
    plain = [stage.name for stage in three_step.recipe(tiny.three_step_config(), SCENES).stages]
    assert [name for name in names if name not in BINARY_STAGES] == plain
    assert names[1] == "binary" and names[names.index("segmenter") - 2 :][:2] == ["binary_cams", "added_labels"]
    without = three_step.recipe(dataclasses.replace(config, add_to_labels=False), SCENES)
    assert [stage.name for stage in without.stages if stage.name not in plain] == ["binary"]
    assert {"segment_tta_added", "binary"} < without.results.keys()
    assert without.results["segment_tta_added"].views == config.tta
    bare = three_step.recipe(dataclasses.replace(config, add_to_labels=False, binary=None), SCENES)
    assert [stage.name for stage in bare.stages] == plain
    assert bare.results.keys() == three_step.recipe(tiny.three_step_config(), SCENES).results.keys()


def test_a_held_out_part_takes_the_place_of_the_evaluation_split():
    config = tiny.replaced(tiny.three_step_config(), "classifier", held_out=0.15, eval_every=1, keep_best="mean_f1")
    config = dataclasses.replace(config, budget=dataclasses.replace(config.budget, seed=7))
    recipe = three_step.recipe(config, SCENES)
    stage = recipe.stage("classifier")
    (source,), (evaluation,) = stage.sources.values(), stage.evals
    assert source.part == Part(share=0.15, seed=7, held_out=False)
    assert evaluation.source.part == Part(share=0.15, seed=7, held_out=True)
    assert (evaluation.name, evaluation.keep_best) == ("held_out", "mean_f1")
    assert source.ids == evaluation.source.ids == "tags"
    assert source.split == evaluation.source.split == "train"
    # Maps are made of all training images, and results measured on the evaluation split.
    assert recipe.stage("cams").source.part is None
    assert recipe.results["classifier"].source.split == "val"


def test_a_dry_run_says_which_part_is_read():
    classifier = dry_run(whole_config())["stages"][0]
    assert [read["part"] for read in classifier["reads"]] == ["without the held-out part of 0.3"]
    # The hashes of the ids decide how many images it has.
    assert classifier["steps"] is None


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data):
    folder = tmp_path_factory.mktemp("left_out")
    with tiny.little_optimised():
        return folder, runs.train(whole_config(), folder, data_dir=tiny_data, mesh=tiny.mesh(2))


def test_a_whole_run_leaves_the_class_out_and_adds_it_back(run, tiny_data):
    folder, summary = run
    reader = Reader("scenes", "train", tiny_data)
    cams, binary, pseudo, added = (
        Records(folder / name / "records") for name in ("cams", "binary_cams", "pseudo_labels", "added_labels")
    )
    shown = 0
    for name in reader.ids:
        tags = set(np.flatnonzero(reader.tags[reader.index[name]]).tolist())
        assert set(cams.read(name)["classes"].tolist()) - {IGNORE} == tags - {0, CLASS}
        before, after = pseudo.read(name)["label"], added.read(name)["label"]
        assert CLASS not in before
        entry, changed = binary.read(name), before != after
        assert entry["maps"].shape == (8, 8, 1) and (before[changed] == 0).all() and (after[changed] == CLASS).all()
        assert entry["status"] or CLASS not in tags
        assert entry["maps"].any() or not changed.any()
        shown += changed.any()
    assert shown and (reader.tags[:, CLASS] > 0).any()
    assert summary["results"]["classifier"]["per_class"][NAME] is None
    (measured,) = [name for name, value in summary["results"]["binary"]["per_class"].items() if value is not None]
    assert measured == NAME
    done = read_json(folder / "segmenter" / "DONE")
    assert done["read"]["labelled"]["labels"] == ["added_labels/label"]


def test_the_held_out_images_choose_and_do_not_train(run, tiny_data):
    folder, _ = run
    ids = [f"train_{k:04d}" for k in range(12)]
    held = sum(name in Part(share=0.3, seed=0, held_out=True) for name in ids)
    assert 0 < held < 12
    for name in ("classifier", "binary"):
        done = read_json(folder / name / "DONE")
        assert done["read"]["tagged"]["images"] == 12 - held
        assert done["read"]["tagged"]["ids"] == "tags, without the held-out part of 0.3"
        assert done["metrics"].keys() == {"held_out"} and done["metrics"]["held_out"].keys() == {"map", "mean_f1"}
    # An epoch is what the balance draws of the other images.
    reader = Reader("scenes", "train", tiny_data)
    rest = Part(share=0.3, seed=0, held_out=False).of(reader.ids, "here")
    (source,) = three_step.recipe(whole_config(), SCENES).stage("classifier").sources.values()
    drawn, whole = (
        source.weight(reader.tags[[reader.index[name] for name in names]]).sum() for names in (rest, reader.ids)
    )
    assert read_json(folder / "classifier" / "DONE")["steps"] == np.ceil(3 * drawn / 8) < np.ceil(3 * whole / 8)


def test_the_result_with_the_class_is_measured_again_and_predicts(run, tiny_data):
    folder, summary = run
    again = runs.evaluate(folder, "segment_tta_added", data_dir=tiny_data, mesh=tiny.mesh(1))
    assert again["miou"] == summary["results"]["segment_tta_added"]["miou"]
    predictor = runs.load(folder, "segment_tta_added", mesh=tiny.mesh(1))
    mask = predictor.predict(np.zeros((20, 30, 3), np.uint8))
    assert mask.shape == (20, 30) and mask.max() < 12


def test_an_empty_part_or_a_tag_of_no_image_is_refused_before_anything_trains(tiny_data, tmp_path):
    config = tiny.three_step_config()
    held = {"eval_every": 1, "keep_best": "mean_f1"}
    small = tiny.replaced(config, "classifier", held_out=1e-6, **held)
    with pytest.raises(InputError, match="scenes/train: held_out is 1e-06, which holds out none of 12 images"):
        runs.train(small, tmp_path / "none", data_dir=tiny_data, mesh=tiny.mesh(2))
    large = tiny.replaced(config, "classifier", held_out=0.999999, **held)
    with pytest.raises(InputError, match="holds out all of 12 images"):
        runs.train(large, tmp_path / "all", data_dir=tiny_data, mesh=tiny.mesh(2))
    # The one image with this tag is held out.
    rare = dataclasses.replace(whole_config(), left_out="starfish")
    with pytest.raises(InputError, match="binary: none of 8 training images have the tag 'starfish'"):
        runs.train(rare, tmp_path / "rare", data_dir=tiny_data, mesh=tiny.mesh(2))
    assert not list(tmp_path.rglob("DONE")) and not list(tmp_path.rglob("stage.json"))


def changed(**fields):
    return lambda: dataclasses.replace(whole_config(), **fields)


def classifier(**fields):
    return lambda: dataclasses.replace(tiny.three_step_config().classifier, **fields)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (classifier(held_out=0.2), "--x.held-out 0.2: expected 0 without keep_best, .* set keep_best"),
        (changed(left_out=None), "--x.binary: expected None while left_out is None; name the class"),
        (changed(binary=None), "--x.add-to-labels True: expected False while binary is None; set binary"),
        (changed(compare=True), "--x.compare True: expected False, because this method has nothing"),
    ],
)
def test_settings_that_do_not_fit_are_named(make, message):
    with pytest.raises(InputError, match=message):
        check(make(), "x")


@pytest.mark.parametrize(
    ("name", "info", "message"),
    [
        ("crabb", SCENES, "'crabb', which is no class of dataset scenes; did you mean crab?; the classes are backg"),
        ("background", SCENES, "left_out is 'background', the background; expected a class of objects"),
        ("sky", CAMVID, "dataset camvid has no background class"),
        ("a", dataclasses.replace(SCENES, classes=("b", "a")), "left_out is 'a', the only class of objects of"),
    ],
)
def test_a_class_that_cannot_be_left_out_is_named(name, info, message):
    with pytest.raises(InputError) as error:
        three_step.recipe(dataclasses.replace(whole_config(), left_out=name), info)
    assert message in str(error.value)


def test_windows_are_refused_where_the_binary_classifier_judges_whole_images():
    config = dataclasses.replace(whole_config(), tta=Views(window=(16, 16)))
    with pytest.raises(InputError, match=r"segment_tta_added: its views have a window of \[16, 16\]; expected none"):
        three_step.recipe(config, SCENES)
    result = three_step.recipe(whole_config(), SCENES).results["segment_tta_added"]
    with pytest.raises(InputError, match="the binary classifier judges whole images"):
        dataclasses.replace(result, views=Views(window=(16, 16)))


def test_never_is_no_probability():
    assert jax.nn.sigmoid(jnp.float32(NEVER)) == 0
