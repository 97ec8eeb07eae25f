"""The three-step method: maps of an image's classes, IRNet's labels and losses, the walk, the recipe."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax import runs, synthetic
from scarce_jax.data.datasets import CAMVID, SCENES
from scarce_jax.data.records import Records
from scarce_jax.data.schema import IGNORE
from scarce_jax.data.source import Reader
from scarce_jax.errors import InputError
from scarce_jax.methods import three_step
from scarce_jax.methods.three_step.cams import Cams, CompactMaps, RefinedLabels, to_class_ids
from scarce_jax.methods.three_step.irnet import Walk, WalkedLabels, quarter_labels, relation_losses, shares
from scarce_jax.models.cam_vgg import CamVGGConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.vgg import VGGConfig
from scarce_jax.ops.affinity import path, vectors
from scarce_jax.ops.crf import CRF
from scarce_jax.ops.random_walk import random_walk
from scarce_jax.ranges import check
from scarce_jax.recipe import Artifact, Views, sources
from tests import tiny

BACKGROUND = 0


def total(losses):
    return sum(losses.values()) / 2


def mixed_labels(size=(24, 40)):
    """Background on the left, class 3 in the middle, class 5 on the right, and some void."""
    labels = np.zeros((1, *size), np.uint8)
    labels[:, :, size[1] // 2 :] = 3
    labels[:, :, 3 * size[1] // 4 :] = 5
    labels[:, 2:4] = IGNORE
    return jnp.asarray(labels)


def test_undecided_boundaries_cost_ln_2_for_every_kind_of_pair():
    labels = mixed_labels()
    flat = jnp.zeros((*labels.shape, 2))
    losses = relation_losses(jnp.zeros(labels.shape), flat, labels, 10, BACKGROUND)
    # -ln(0.5 + 1e-5) and -ln(1 + 1e-5 - 0.5).
    np.testing.assert_allclose([losses["same_class"], losses["other_class"]], 0.693127, atol=2e-6)


def test_no_boundary_anywhere_costs_nothing_alike_and_much_apart():
    labels = mixed_labels()
    edge, flat = jnp.full(labels.shape, -40.0), jnp.zeros((*labels.shape, 2))
    losses = relation_losses(edge, flat, labels, 10, BACKGROUND)
    np.testing.assert_allclose(losses["same_class"], -1e-5, atol=2e-6)
    np.testing.assert_allclose(losses["other_class"], 11.512925, rtol=1e-4)


def test_displacements_of_zero_cost_the_mean_length_of_the_vectors():
    labels, flat = jnp.full((1, 24, 40), 3, jnp.uint8), jnp.zeros((1, 24, 40, 2))
    losses = relation_losses(jnp.zeros(labels.shape), flat, labels, 10, BACKGROUND)
    np.testing.assert_allclose(losses["objects"], 1278 / 304, rtol=1e-5)
    assert losses["background"] == 0 and losses["other_class"] == 0


def test_a_constant_displacement_costs_the_background_nothing():
    labels = jnp.zeros((1, 24, 40), jnp.uint8)
    field = jnp.broadcast_to(jnp.asarray([2.0, -3.0]), (*labels.shape, 2))
    assert relation_losses(jnp.zeros(labels.shape), field, labels, 10, BACKGROUND)["background"] == 0


def test_a_field_that_points_to_one_place_costs_an_object_nothing():
    # D(p) = centre - p: D(source) - D(target) is the vector between them.
    labels = jnp.full((1, 24, 40), 3, jnp.uint8)
    place = jnp.stack(jnp.meshgrid(jnp.arange(24.0), jnp.arange(40.0), indexing="ij"), -1)
    field = (jnp.asarray([12.0, 20.0]) - place)[None]
    losses = relation_losses(jnp.zeros(labels.shape), field, labels, 10, BACKGROUND)
    assert losses["objects"] < 1e-5 and losses["background"] == 0


def test_losses_are_those_of_every_pair_alone():
    rng = np.random.default_rng(0)
    radius, reach = 4, 3
    labels = rng.choice([0, 2, 7, IGNORE], (2, 7, 11), p=[0.4, 0.3, 0.2, 0.1]).astype(np.uint8)
    edge, field = rng.normal(size=labels.shape), rng.normal(size=(*labels.shape, 2))
    boundary = 1 / (1 + np.exp(-edge))
    kinds = {"objects": [], "background": [], "same object": [], "same background": [], "other": []}
    for b, y, x in np.ndindex(2, 7 - reach, 11 - 2 * reach):
        source = (b, y, x + reach)
        for dy, dx in vectors(radius):
            target = (b, y + dy, x + reach + dx)
            if IGNORE in (labels[source], labels[target]):
                continue
            affinity = 1 - max(boundary[b, y + i, x + reach + j] for i, j in path((dy, dx)))
            between = field[source] - field[target]
            if labels[source] != labels[target]:
                kinds["other"].append(-np.log(1 + 1e-5 - affinity))
            elif labels[source] == BACKGROUND:
                kinds["same background"].append(-np.log(affinity + 1e-5))
                kinds["background"].append(np.abs(between).mean())
            else:
                kinds["same object"].append(-np.log(affinity + 1e-5))
                kinds["objects"].append(np.abs(between - (dy, dx)).mean())
    means = {kind: np.mean(values) for kind, values in kinds.items()}
    losses = relation_losses(jnp.asarray(edge), jnp.asarray(field), jnp.asarray(labels), radius, BACKGROUND)
    expected = (means["same object"] + means["same background"]) / 2
    np.testing.assert_allclose(losses["same_class"], expected, rtol=1e-4)
    for name, kind in (("other_class", "other"), ("objects", "objects"), ("background", "background")):
        np.testing.assert_allclose(losses[name], means[kind], rtol=1e-4)


def test_void_labels_alone_cost_nothing_and_move_nothing():
    labels = jnp.full((1, 12, 20), IGNORE, jnp.uint8)
    gradient = jax.grad(lambda edge, field: total(relation_losses(edge, field, labels, 4, BACKGROUND)), argnums=(0, 1))(
        jnp.zeros(labels.shape), jnp.zeros((*labels.shape, 2))
    )
    assert all(np.all(np.asarray(g) == 0) for g in gradient)


@pytest.mark.parametrize(("side", "rows"), [(8, [2, 6]), (9, [2, 6, 8]), (11, [2, 6, 10])])
def test_labels_of_a_quarter_of_the_size(side, rows):
    labels = jnp.broadcast_to(jnp.arange(side, dtype=jnp.uint8)[:, None], (1, side, 8))
    np.testing.assert_array_equal(quarter_labels(labels)[0, :, 0], rows)


VIEWS = 2


def view(maps, logits, tags=None):
    fields = {"maps": jnp.asarray(maps, jnp.float32), "logits": jnp.asarray(logits, jnp.float32)}
    return fields if tags is None else {**fields, "tags": jnp.asarray(tags, jnp.uint8)}


def test_maps_of_all_views_are_added_turned_back_and_divided_by_their_largest():
    maps = np.zeros((1, 2, 2, 3))
    maps[0, :, :, 2] = [[4, 0], [0, 2]]
    mirrored = maps[:, :, ::-1]
    tags = [[1, 0, 0, 1]]
    compact = CompactMaps((8, 8), BACKGROUND, 2)(
        [view(maps, [[0, 0, 2]], tags), view(mirrored, [[0, 0, 4]], tags)], [False, True]
    )
    np.testing.assert_array_equal(compact["classes"], [[3, IGNORE]])
    np.testing.assert_array_equal(compact["maps"][0, :, :, 0], [[255, 0], [0, 128]])
    assert not compact["maps"][..., 1].any()
    sigmoid = 1 / (1 + np.exp([-2.0, -4.0]))
    np.testing.assert_allclose(compact["confidence"], [sigmoid.mean()], rtol=1e-6)
    np.testing.assert_array_equal(compact["status"], [0])


def test_classes_are_the_tags_whatever_the_classifier_says_and_else_its_own():
    maps, logits = np.ones((1, 1, 1, 3)), [[3.0, -3.0, -4.0]]
    combine = CompactMaps((4, 4), BACKGROUND, 3)
    told = combine([view(maps, logits, [[1, 0, 1, 0]])], [False])
    assert told["classes"].tolist() == [[2, IGNORE, IGNORE]]
    assert combine([view(maps, logits)], [False])["classes"].tolist() == [[1, IGNORE, IGNORE]]
    # Nothing is above one half: the likeliest class.
    assert combine([view(maps, [[-3.0, -1.0, -4.0]])], [False])["classes"].tolist() == [[2, IGNORE, IGNORE]]
    none = combine([view(maps, logits, [[1, 0, 0, 0]])], [False])
    assert none["classes"].tolist() == [[IGNORE] * 3] and none["confidence"] == -1 and not none["maps"].any()


def test_more_classes_than_maps_keep_the_likeliest_and_say_so():
    compact = CompactMaps((4, 4), 2, 2)([view(np.ones((1, 1, 1, 3)), [[1.0, 3.0, 2.0]], [[1, 1, 1, 1]])], [False])
    assert compact["classes"].tolist() == [[1, 3]]  # class 2 is the background
    assert compact["status"].tolist() == [1]


def test_class_ids_of_indices():
    index = jnp.asarray([[[0, 1], [2, IGNORE]]])
    ids = to_class_ids(index, jnp.asarray([[7, 4]], jnp.uint8), background=2)
    np.testing.assert_array_equal(ids, [[[2, 7], [4, IGNORE]]])


CRF_OFF = CRF(bilateral_sigma=20, colour_sigma=5, bilateral_weight=0, position_weight=0, iterations=1)


def test_labels_are_void_between_sure_object_and_sure_background():
    # A map of three bands: 1, 0.15 and 0. The thresholds 0.3 and 0.05 part them.
    maps = np.zeros((1, 6, 6, 2), np.uint8)
    maps[0, :, :2, 0], maps[0, :, 2:4, 0] = 255, 38
    batch = {
        "image": jnp.zeros((1, 6, 6, 3), jnp.uint8),
        "maps": jnp.asarray(maps),
        "classes": jnp.asarray([[9, IGNORE]], jnp.uint8),
    }
    labels = RefinedLabels(Cams(crf=CRF_OFF), BACKGROUND, ("sure", "refined"))({}, batch, {})
    np.testing.assert_array_equal(labels["sure"][0], np.repeat([[9, 9, IGNORE, IGNORE, 0, 0]], 6, 0))
    np.testing.assert_array_equal(labels["refined"][0], np.repeat([[9, 9, 0, 0, 0, 0]], 6, 0))
    assert RefinedLabels(Cams(crf=CRF_OFF), BACKGROUND, ("refined",))({}, batch, {}).keys() == {"refined"}


def test_a_walk_fills_what_boundaries_enclose():
    # Boundaries around a square of the grid; the map marks one of its places, and one outside weakly.
    edge = np.full((1, 12, 12), -9.0, np.float32)
    edge[:, 3, 3:9] = edge[:, 8, 3:9] = edge[:, 3:9, 3] = edge[:, 3:9, 8] = 9.0
    maps = np.zeros((1, 12, 12, 1), np.uint8)
    maps[0, 5, 5, 0] = 255
    fields = {"edge": jnp.asarray(edge), "maps": jnp.asarray(maps), "classes": jnp.asarray([[4]], jnp.uint8)}
    walked = WalkedLabels(Walk(threshold=0.3), (48, 47), BACKGROUND)([fields], [False])
    assert walked["label"].shape == (1, 48, 47)
    assert set(np.unique(walked["label"])) == {0, 4}
    assert (np.asarray(walked["label"])[0, 18:30, 18:30] == 4).all()
    assert not np.asarray(walked["label"])[0, :8].any() and not np.asarray(walked["label"])[0, 40:].any()
    # The mean of the views: a mirrored one is mirrored back.
    mirrored = {**fields, "edge": fields["edge"][:, :, ::-1]}
    again = WalkedLabels(Walk(threshold=0.3), (48, 47), BACKGROUND)([fields, mirrored], [False, True])
    np.testing.assert_array_equal(again["label"], walked["label"])


def test_a_walk_may_start_from_labels():
    label = np.random.default_rng(0).choice([0, 4, 7, IGNORE], (1, 9, 8)).astype(np.uint8)
    classes = jnp.asarray([[7, 4, IGNORE]], jnp.uint8)
    expected = np.zeros((1, 3, 2, 3), np.float32)
    for row, column in np.ndindex(9, 8):
        for m, k in enumerate((7, 4)):
            expected[0, row // 4, column // 4, m] += (label[0, row, column] == k) / 16
    np.testing.assert_allclose(shares(jnp.asarray(label), classes), expected)
    # Without a step and a boundary, the labels of blocks of 4 x 4 pixels are those of the start.
    label = np.repeat(np.repeat([[[4, 4, 0], [0, 0, 7]]], 4, 1), 4, 2).astype(np.uint8)
    fields = {"edge": jnp.full((1, 2, 3), -90.0), "refined": jnp.asarray(label), "classes": classes}
    walked = WalkedLabels(Walk(start="labels", steps=0, threshold=0.5), (8, 12), BACKGROUND)([fields], [False])
    np.testing.assert_array_equal(walked["label"][:, 1::4, 1::4], label[:, 1::4, 1::4])


@pytest.mark.parametrize(("per_class", "found"), [(False, {0, 7}), (True, {0, 4, 7})])
def test_scores_are_divided_by_the_largest_of_the_image_or_of_each_class(per_class, found):
    maps = np.zeros((1, 4, 6, 2), np.uint8)
    maps[0, 0, 0], maps[0, 3, 5] = (255, 0), (0, 51)
    fields = {
        "edge": jnp.full((1, 4, 6), -90.0),
        "maps": jnp.asarray(maps),
        "classes": jnp.asarray([[7, 4]], jnp.uint8),
    }
    walk = Walk(steps=0, threshold=0.3, per_class=per_class)
    walked = WalkedLabels(walk, (16, 24), BACKGROUND)([fields], [False])
    assert set(np.unique(walked["label"]).tolist()) == found


def test_only_images_with_confident_tags_get_labels():
    recipe = three_step.recipe(tiny.three_step_config(), SCENES)
    confident = recipe.stage("affinity_labels").source.ids
    assert confident.at_least == tiny.three_step_config().cams.confidence
    sure = Artifact(stage="affinity_labels", name="sure")
    assert recipe.stage("pseudo_labels").source.ids == recipe.stage("displacement_mean").source.ids == sure
    assert recipe.stage("irnet").sources["labelled"].ids == sure
    assert recipe.stage("segmenter").sources["labelled"].ids == Artifact(stage="pseudo_labels", name="label")


def test_a_walk_of_no_step_is_the_map_itself():
    scores = jnp.asarray(np.random.default_rng(0).random((1, 5, 6, 2)), jnp.float32)
    np.testing.assert_allclose(random_walk(scores, jnp.zeros((1, 5, 6)), steps=0), scores)


NAMES = ["classifier", "cams", "affinity_labels", "irnet", "displacement_mean", "pseudo_labels", "segmenter"]
OF_EVALUATION = ["eval_cams", "cam_labels", "irnet_labels"]


def test_no_stage_reads_a_mask():
    recipe = three_step.recipe(tiny.three_step_config(), SCENES)
    assert [stage.name for stage in recipe.stages] == NAMES + OF_EVALUATION
    for stage in recipe.stages:
        for source in sources(stage).values():
            assert "fine" not in (*source.labels, *source.fields, *source.having, *source.id_parts)
            assert "coarse" not in (*source.labels, *source.fields, *source.having, *source.id_parts)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data):
    folder = tmp_path_factory.mktemp("three_step")
    with tiny.little_optimised():
        return folder, runs.train(tiny.three_step_config(), folder, data_dir=tiny_data, mesh=tiny.mesh(2))


def test_every_stage_leaves_what_the_next_one_reads(run, tiny_data):
    folder, summary = run
    assert all((folder / name / "DONE").exists() for name in NAMES + OF_EVALUATION)
    cams, pseudo = (Records(folder / name / "records") for name in ("cams", "pseudo_labels"))
    reader = Reader("scenes", "train", tiny_data)
    assert set(cams.ids) == set(reader.ids) == set(pseudo.ids)
    for name in reader.ids:
        shown = {int(k) for k in np.flatnonzero(reader.tags[reader.index[name]])}
        entry = cams.read(name)
        assert set(entry["classes"].tolist()) - {IGNORE} == shown - {BACKGROUND}
        assert entry["maps"].dtype == np.uint8 and entry["maps"].shape == (8, 8, 11)
        label = pseudo.read(name)["label"]
        assert label.shape == (32, 32) and set(np.unique(label).tolist()) <= shown | {BACKGROUND}
    assert summary["results"].keys() == {"segment_tta", "segment", "irnet", "cam", "classifier"}
    (displacement,) = summary["tables"]["displacement"]["rows"]
    assert np.isfinite(displacement).all()


def test_results_are_measured_again_from_the_run_folder(run, tiny_data):
    folder, summary = run
    for name in ("segment_tta", "cam"):
        again = runs.evaluate(folder, name, data_dir=tiny_data, mesh=tiny.mesh(1))
        assert again["miou"] == summary["results"][name]["miou"]


def test_a_dry_run_knows_the_shapes_of_what_stages_leave(run):
    folder, _ = run
    recipe, mesh = three_step.recipe(tiny.three_step_config(), SCENES), tiny.mesh(1)
    for stage in recipe.stages:
        assert synthetic.lower(stage, recipe, SCENES, mesh)
        if stage.name in ("cams", "affinity_labels", "pseudo_labels"):
            records = Records(folder / stage.name / "records")
            for name, value in records.read(next(iter(records.ids))).items():
                expected = synthetic.inferred(recipe, SCENES, Artifact(stage=stage.name, name=name))
                assert (value.shape, value.dtype) == (expected.shape, expected.dtype), (stage.name, name)


def test_maps_may_have_one_view():
    config = tiny.three_step_config()
    recipe = three_step.recipe(tiny.replaced(config, "cams", views=Views()), SCENES)
    spec = synthetic.inferred(recipe, SCENES, Artifact(stage="cams", name="maps"))
    assert spec.shape == (8, 8, 11)


def test_epochs_of_the_images_of_sure_tags_are_counted_when_they_are_known(run, tmp_path, tiny_data):
    config = tiny.replaced(tiny.three_step_config(), "irnet", steps=None, epochs=2.0)
    records = Records(run[0] / "cams/records")
    confidences = sorted(float(records.read(name)["confidence"]) for name in records.ids)
    config = tiny.replaced(config, "cams", confidence=confidences[4])
    folder = tmp_path / "run"
    with tiny.little_optimised():
        summary = runs.train(config, folder, data_dir=tiny_data, reuse=run[0], mesh=tiny.mesh(2))
    steps = {stage["name"]: stage["steps"] for stage in summary["stages"] if "steps" in stage}
    images = next(stage for stage in summary["stages"] if stage["name"] == "irnet")["read"]["labelled"]["images"]
    assert images == 8 and steps["irnet"] == -(-2 * 8 // config.irnet.batch)
    assert json.loads((folder / "config.json").read_text())["steps"]["irnet"] is None
    # The same command does nothing again; other epochs are another stage.
    assert runs.train(config, folder, data_dir=tiny_data, mesh=tiny.mesh(2))["results"] == summary["results"]
    with pytest.raises(InputError, match=r"stage irnet was begun with other settings(.|\n)*2\.0 -> 3\.0"):
        runs.train(tiny.replaced(config, "irnet", epochs=3.0), folder, data_dir=tiny_data, mesh=tiny.mesh(2))


def test_irnet_takes_the_resnet_of_the_classifier_or_weights():
    config = tiny.three_step_config()
    with pytest.raises(InputError, match=r"irnet.init_from is none, and classifier.net \(cam_vgg\) has no ResNet of"):
        three_step.recipe(tiny.replaced(config, "classifier", net=CamVGGConfig(backbone=VGGConfig(width=2))), SCENES)
    other = ResNetConfig(depth=34, width=16)
    with pytest.raises(InputError, match="has no ResNet of depth 34 and width 16"):
        three_step.recipe(tiny.replaced(config, "irnet", backbone=other), SCENES)
    with pytest.raises(InputError, match="of caffe geometry and caffe normalisation, to start from"):
        caffe = ResNetConfig(depth=18, width=16, geometry="caffe", normalisation="caffe")
        three_step.recipe(tiny.replaced(config, "irnet", backbone=caffe), SCENES)
    named = tiny.replaced(config, "irnet", backbone=other, init_from="weights.safetensors")
    stages = three_step.recipe(named, SCENES)
    assert stages.stage("irnet").nets["encoder"].optim is None
    assert stages.stage("pseudo_labels").nets["encoder"].init_from == Artifact(stage="irnet", name="encoder")


def test_a_dataset_without_background_is_refused():
    with pytest.raises(InputError, match="dataset camvid has no background class"):
        three_step.recipe(tiny.three_step_config(), CAMVID)


def test_no_image_of_enough_confidence_is_told_with_the_largest_value(run, tmp_path, tiny_data):
    config = tiny.three_step_config()
    config = dataclasses.replace(config, cams=dataclasses.replace(config.cams, confidence=1.0))
    with pytest.raises(
        InputError, match=r"cams/confidence: 12 values up to 0\.\d+, .* 1 or more; lower --cams.confidence"
    ):
        runs.train(config, tmp_path / "run", data_dir=tiny_data, reuse=run[0], mesh=tiny.mesh(2))


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        (
            "cams",
            {"foreground": 0.1, "background": 0.2},
            "--cams.background 0.2: expected at most cams.foreground",
        ),
        ("cams", {"views": Views(window=(8, 8))}, "--cams.views: expected scales and flip alone"),
        ("cams", {"views": Views(average="logits")}, "--cams.views: expected scales and flip alone"),
        ("segmenter", {"class_weighting": 1.1}, "--segmenter.class-weighting 1.1: expected None"),
        ("irnet", {"backbone": ResNetConfig(width=24)}, "--irnet.backbone.width 24: expected a multiple of 16"),
        ("irnet", {"radius": 9}, "--irnet.augment.crop 32 32: expected more than 32 x 64 pixels, or a radius below 9"),
        ("budget", {"fine": 3}, "--budget.fine 3: expected 'all', because no fine mask is read"),
    ],
)
def test_settings_out_of_range_are_named(stage, changes, message):
    with pytest.raises(InputError) as error:
        check(tiny.replaced(tiny.three_step_config(), stage, **changes))
    assert str(error.value).startswith(message)


def test_the_classifier_draws_balanced_images():
    config = tiny.replaced(tiny.three_step_config(), "classifier", balance=three_step.ClassBalance(at_most=2))
    (source,) = three_step.recipe(config, SCENES).stage("classifier").sources.values()
    tags = np.zeros((6, 12), np.uint8)
    tags[:, BACKGROUND] = 1
    tags[:5, 3] = tags[5, 4] = 1
    np.testing.assert_array_equal(source.weight(tags), [1, 1, 0, 0, 0, 1])
    with pytest.raises(InputError, match="--classifier.rare-class-sampling 0.5: expected None beside balance"):
        check(tiny.replaced(config, "classifier", rare_class_sampling=0.5))
