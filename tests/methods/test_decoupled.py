"""The decoupled method: what its stages read and leave, which parameters learn, and prediction class by class."""

import base64
import dataclasses
import functools
import io
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image

from scarce_jax import runs
from scarce_jax.data.datasets import CAMVID, SCENES
from scarce_jax.data.records import load_mean
from scarce_jax.errors import InputError
from scarce_jax.methods import decoupled
from scarce_jax.methods.decoupled import pointing
from scarce_jax.methods.decoupled.figure_ground import ByClass, FigureLoss, PredictByClass, inputs, reestimated
from scarce_jax.models.decoupled import DecoupledClassifierConfig, class_saliency
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.vgg import VGGConfig
from scarce_jax.ops.augment import normalise
from scarce_jax.ops.combinatorial import crop_subset
from scarce_jax.ops.resize import resize_bilinear
from scarce_jax.recipe import Epochs, Net, NetState, Views, sources
from scarce_jax.report import report
from scarce_jax.training.state import init_net
from tests import tiny

SIZE = (64, 64)
BACKGROUND = 1


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Programs that are little optimised."""
    with tiny.little_optimised():
        yield


@pytest.fixture(scope="module")
def by_class():
    backbone = VGGConfig(width=2, batch_norm=True, convolutions=(1,) * 5)
    config = DecoupledClassifierConfig(backbone=backbone, hidden=4, fc6_kernel=1)
    return ByClass(config.build(4), config.segmentation_net(4), 5, BACKGROUND)


@pytest.fixture(scope="module")
def nets(by_class):
    """Both nets with random values, and scores that differ by image."""
    image = jax.ShapeDtypeStruct((1, *SIZE, 3), jnp.float32)
    drawn = {
        "classifier": Net(module=by_class.classifier, inputs=(image,)),
        "segmenter": Net(module=by_class.segmenter, inputs=inputs(by_class, SIZE)),
    }
    return {role: jax.jit(functools.partial(init_net, net))(jax.random.key(0)) for role, net in drawn.items()}


def biased(nets, bias, gain=1.0):
    """The nets with this bias of the classes' scores, and their weights grown."""
    params = dict(nets["classifier"].params)
    score = params["score"]
    params["score"] = {"kernel": gain * score["kernel"], "bias": jnp.broadcast_to(jnp.asarray(bias, float), (4,))}
    return {**nets, "classifier": nets["classifier"].replace(params=params)}


def batch(count=3, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, (count, *SIZE), np.uint8)
    label[:, :4] = 255
    subset = rng.integers(0, 2, (count, 5)).astype(bool)
    subset[:, BACKGROUND] = False
    return {
        "image": jnp.asarray(rng.normal(size=(count, *SIZE, 3)), jnp.float32),
        "label": jnp.asarray(label),
        "subset": jnp.asarray(subset),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data):
    folder = tmp_path_factory.mktemp("decoupled")
    runs.train(tiny.decoupled_config(reestimate=1, steps=2), folder, data_dir=tiny_data, mesh=tiny.mesh())
    return folder


def test_every_stage_leaves_what_the_next_one_reads(run):
    summary = json.loads((run / "summary.json").read_text())
    stages = {stage["name"]: stage for stage in summary["stages"]}
    assert list(summary["results"]) == ["decoupled", "classifier"]
    assert {"map", "mean_f1", "per_class"} <= set(summary["results"]["classifier"])
    read = {name: [source["images"] for source in stage["read"].values()] for name, stage in stages.items()}
    assert read == {"classifier": [12], "pointing": [7], "decoupled": [6], "decoupled_statistics": [6]}
    assert all(stage.get("steps", 2) == 2 for stage in stages.values())
    # The frozen classifier stays where it was trained.
    assert [path.name for path in (run / "decoupled/nets").iterdir()] == ["segmenter"]
    table = summary["tables"]["pointing"]
    assert table["columns"] == ["class", "pointing", "chance", "images"]
    assert [row[0] for row in table["rows"]] == ["all", *SCENES.classes[1:]]
    assert 0 < table["rows"][0][2] < 0.5 and table["rows"][0][3] > 1
    counts = json.loads((run / "manifest.json").read_text())["fine_per_class"]
    assert list(counts) == list(SCENES.classes[1:]) and sum(counts.values()) >= 6


def test_results_use_the_statistics_that_were_measured_again(run):
    stored = tiny.stored(run)
    running = {name: x for name, x in stored.items() if name.startswith("decoupled/segmenter/batch_stats/")}
    assert len(running) == 2 * (2 + 3 + 5)
    predictor = runs.load(run, mesh=tiny.mesh())
    used = traverse_util.flatten_dict(predictor.variables["segmenter"]["batch_stats"], sep="/")
    differing = 0
    for name, before in running.items():
        path = name.removeprefix("decoupled/segmenter/batch_stats/")
        np.testing.assert_array_equal(used[path], load_mean(run, "decoupled_statistics", path))
        # Some are near zero: what follows a normalised input of mean zero has none either.
        differing += not np.array_equal(used[path], before)
    assert differing == len(running)
    mask = predictor.predict(np.full((50, 70, 3), 128, np.uint8))
    assert mask.shape == (50, 70) and mask.dtype == np.uint8


def test_the_report_draws_the_maps_of_every_class_that_is_there(run, tiny_data, tmp_path):
    facts = report([run], tmp_path / "report.html", images=2, data_dir=tiny_data)
    assert facts["left_out"] == [] and facts["images"] == 2
    text = (tmp_path / "report.html").read_text()
    (gallery,) = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])["galleries"]
    for picture in gallery["pictures"]:
        truth, prediction, *maps = picture["layers"]
        assert (truth["kind"], prediction["kind"]) == ("truth", "prediction")
        assert {m["kind"] for m in maps} == {"map"}
        by_kind = {name: [m for m in maps if m["result"] == name] for name in ("class_maps", "bridging", "saliency")}
        assert sum(map(len, by_kind.values())) == len(maps)
        there = {*truth["classes"], *prediction["classes"]}
        # A class of which nothing speaks has none. M_b is the only map of the background.
        assert {m["classes"][0] for m in by_kind["saliency"] + by_kind["bridging"]} <= there - {0}
        assert by_kind["class_maps"][0]["classes"] == [0] and by_kind["class_maps"][0]["label"] == SCENES.classes[0]
        for one in by_kind["saliency"] + by_kind["bridging"]:
            image = Image.open(io.BytesIO(base64.b64decode(one["mask"].partition(",")[2])))
            opacity = np.asarray(image.convert("RGBA"))[..., 3]
            assert image.size == (160, 160) and 150 < opacity.max() <= 216 and opacity.min() < 216
    assert any(m["result"] == "saliency" for picture in gallery["pictures"] for m in picture["layers"][2:])


def test_predict_writes_a_map_for_each_class_that_is_found(run, tmp_path):
    image = tmp_path / "x.png"
    # Of the net's size, because probabilities and maps are interpolated differently.
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(image)
    maps = runs.load(run, "class_maps", mesh=tiny.mesh())
    assert maps.map_names == SCENES.classes
    values = maps.maps(pixels)
    assert values.shape == (*SIZE, 12) and values.dtype == np.uint8
    found = runs.load(run, mesh=tiny.mesh()).probabilities(pixels)
    np.testing.assert_allclose(found, values / np.maximum(values.sum(-1, keepdims=True), 1e-6), atol=0.02)
    # Maps of a coarser grid lie on the whole image.
    recipe, normalised = decoupled.recipe(tiny.decoupled_config(reestimate=1, steps=2), SCENES), normalise(pixels[None])
    for name in ("saliency", "bridging"):
        coarse = runs.load(run, name, mesh=tiny.mesh())
        predict = recipe.maps[name].predict.predict.predict
        states = {role: NetState(**variables) for role, variables in coarse.variables.items()}
        grid = np.asarray(predict(states, {"image": normalised}, {}))[0]
        assert grid.shape[0] < SIZE[0] // 8
        wide = resize_bilinear(jnp.asarray(grid)[None], SIZE, align_corners=False)[0]
        np.testing.assert_allclose(coarse.maps(pixels), 255 * wide, atol=1.0)
    facts = runs.predict(run, image, tmp_path / "maps", result="class_maps", mesh=tiny.mesh())
    assert facts["maps"] and facts["images"] == 1
    written = {path.name for path in (tmp_path / "maps").iterdir()}
    shown = {SCENES.classes[k].replace(" ", "-") for k in np.flatnonzero(values.any((0, 1)))}
    assert written == {f"x_{name}{kind}.png" for name in shown for kind in ("", "_overlay")}
    background = Image.open(tmp_path / "maps/x_background.png")
    assert background.mode == "L"
    np.testing.assert_array_equal(np.asarray(background), values[..., 0])
    for flags, message in (({"confidence": True}, "--confidence: result class_maps makes maps"),
                           ({"native_ids": True}, "--native-ids: result class_maps makes maps"),
                           ({"views": Views(flip=True)}, "makes maps; it takes no --flip"),
                           ({"coarse": tmp_path}, "reads no coarse masks")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            runs.predict(run, image, tmp_path / "none", result="class_maps", mesh=tiny.mesh(), **flags)
    with pytest.raises(InputError, match="makes maps; call `maps`"):
        maps.predict(pixels)
    with pytest.raises(InputError, match="makes masks; call `predict`"):
        runs.load(run, mesh=tiny.mesh()).maps(pixels)
    with pytest.raises(InputError, match="class_maps: makes maps"):
        runs.evaluate(run, "class_maps", mesh=tiny.mesh())
    with pytest.raises(InputError, match="this run has decoupled, classifier, class_maps, bridging, saliency"):
        runs.load(run, "nothing", mesh=tiny.mesh())


def test_the_bridging_map_is_the_channel_of_the_largest_mean_for_found_classes(by_class, nets):
    rows = {"image": batch()["image"]}
    found = biased(nets, [9.0, -9.0, 9.0, -9.0], gain=0.0)
    maps = pointing.BridgingMaps(by_class)(found, rows, {})
    assert maps.shape == (3, 2, 2, 5) and (maps >= 0).all() and (maps <= 1).all()
    # Outputs 0 and 2 are the classes 0 and 3, because class 1 is the background.
    assert not maps[..., 1].any() and not maps[..., 2].any() and not maps[..., 4].any()
    classified = by_class.classify(found, rows["image"])
    saliency = by_class.saliency(found, classified, jnp.eye(4)[None, 2:3].repeat(3, 0))[:, 0]
    inputs = classified.pool5, saliency, *classified.switches
    variables = found["segmenter"].variables
    _, state = by_class.segmenter.apply(variables, *inputs, train=False, capture_intermediates=True)
    activation = np.asarray(state["intermediates"]["bridge"]["__call__"][0])
    for b in range(3):
        channel = activation[b][..., activation[b].mean((0, 1)).argmax()]
        np.testing.assert_allclose(maps[b, ..., 3], channel / max(channel.max(), 1e-12), rtol=1e-4, atol=1e-5)


def test_only_the_segmentation_net_learns(by_class, nets):
    loss = FigureLoss(by_class)

    def value(classifier, segmenter):
        states = {"classifier": nets["classifier"].replace(params=classifier), "segmenter": nets["segmenter"]}
        return loss(segmenter, states, {"labelled": batch()}, {}, jax.random.key(0))[0]

    grads = jax.jit(jax.grad(value, argnums=(0, 1)))(nets["classifier"].params, nets["segmenter"].params)
    assert all((x == 0).all() for x in jax.tree.leaves(grads[0]))
    assert all(jnp.abs(x).max() > 0 for x in (grads[1]["seg_score"]["bias"], grads[1]["bridge"]["fc6"]["kernel"]))
    stage = decoupled.recipe(tiny.decoupled_config(), SCENES).stage("decoupled")
    assert [turn.net for turn in stage.turns] == ["segmenter"] and stage.nets["classifier"].optim is None


def by_hand(by_class):
    """Section 4.3 and the authors' inference, image by image and class by class."""
    classifier, segmenter = by_class.classifier, by_class.segmenter
    classify = jax.jit(lambda nets, x: classifier.apply(nets["classifier"].variables, x, method="classify"))
    saliency = jax.jit(lambda nets, *x: class_saliency(classifier, nets["classifier"].variables, *x))
    segment = jax.jit(lambda nets, *x: segmenter.apply(nets["segmenter"].variables, *x, train=False))

    def predict(nets, images):
        classified = classify(nets, images)
        p = np.asarray(jax.nn.sigmoid(classified.scores.mean((1, 2))))
        vectors = np.concatenate([np.eye(4), np.ones((1, 4))])[None] * (p > 0.5)[:, None]
        maps = saliency(nets, classified.pool5, vectors, p)
        maps = [
            np.asarray(jax.nn.softmax(segment(nets, classified.pool5, maps[:, k], *classified.switches)))
            for k in range(5)
        ]
        scores = np.zeros((len(images), *SIZE, 5))
        for i, present in enumerate(p > 0.5):
            scores[i, :, :, BACKGROUND] = maps[4][i, ..., 0] if present.any() else 1
            for k in np.flatnonzero(present):
                scores[i, :, :, [0, 2, 3, 4][k]] = maps[k][i, ..., 1]
        return scores / scores.sum(-1, keepdims=True), p > 0.5

    return predict


def test_prediction_combines_a_pass_per_class_and_compiles_once(by_class, nets):
    predict, expect = jax.jit(PredictByClass(by_class)), by_hand(by_class)
    images = batch(4)["image"]
    seen = set()
    for bias, gain in ((-9.0, 1.0), (9.0, 1.0), (0.0, 1e3), ([9.0, -9.0, -9.0, 9.0], 1.0)):
        states = biased(nets, bias, gain)
        scores = predict(states, {"image": images}, {})
        expected, present = expect(states, images)
        seen |= set(present.sum(1).tolist())
        assert scores.shape == (4, *SIZE, 5) and scores.dtype == jnp.float32
        np.testing.assert_allclose(jax.nn.softmax(scores), expected, atol=2e-5)
        if bias == -9.0:
            assert (scores.argmax(-1) == BACKGROUND).all()
    assert {0, 2, 4} <= seen
    assert predict._cache_size() == 1


def arrays_inside(jaxpr):
    """Number of elements of everything that a program computes, its loops' bodies too."""
    for equation in jaxpr.eqns:
        yield from (x.aval.size for x in equation.outvars)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                    yield from arrays_inside(getattr(inner, "jaxpr", inner))


def test_every_class_at_once_takes_the_memory_of_one_pass(by_class, nets):
    classes, pixels = 21, 2 * 64 * 64
    classifier = dataclasses.replace(by_class.classifier, classes=classes - 1)
    wide = dataclasses.replace(by_class, classifier=classifier, classes=classes)
    image = jax.ShapeDtypeStruct((2, *SIZE, 3), jnp.float32)
    state = jax.eval_shape(lambda: init_net(Net(module=wide.classifier, inputs=(image,)), jax.random.key(0)))
    program = jax.make_jaxpr(PredictByClass(wide))({**nets, "classifier": state}, {"image": image}, {})
    # The scores are the largest array; two channels of all twenty passes would be nearly twice that.
    assert max(arrays_inside(program.jaxpr)) == classes * pixels


def test_statistics_are_those_of_the_batches(by_class, nets):
    config = tiny.decoupled_config(reestimate=2)
    recipe = decoupled.recipe(config, SCENES)
    stage = reestimated("again", config, config.decoupled, by_class, recipe.stage("decoupled"))
    rng = np.random.default_rng(0)
    rows = {
        "image": jnp.asarray(rng.integers(0, 256, (2, *SIZE, 3), np.uint8)),
        "label": jnp.asarray(rng.integers(0, 5, (2, *SIZE), np.uint8)),
    }
    measured = jax.jit(stage.predict)(nets, rows, {})
    assert set(measured) == set(traverse_util.flatten_dict(nets["segmenter"].batch_stats, sep="/"))
    assert all(x.shape[0] == 2 and bool((x[0] == x[1]).all()) for x in measured.values())
    crops = config.decoupled.crops

    @jax.jit
    def windows(keys):
        drawn = jax.vmap(lambda row, key: crop_subset(row, key, crops, 5, BACKGROUND))(rows, keys)
        return by_class.trained_on(drawn, nets)[:2]

    stats = []
    for k in range(2):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), k), 2)
        pool5, saliency = windows(keys)
        stats.append([x.mean((0, 1, 2)) for x in (pool5, saliency)] + [x.var((0, 1, 2)) for x in (pool5, saliency)])
    names = ("bn_pool5/mean", "bn_saliency/mean", "bn_pool5/var", "bn_saliency/var")
    for name, values in zip(names, zip(*stats, strict=True), strict=True):
        np.testing.assert_allclose(measured[name][0], np.mean(values, 0), rtol=1e-3, atol=1e-7)


def test_maps_say_what_raises_the_score_of_each_class(by_class, nets):
    images = batch(2)["image"]
    maps = np.asarray(jax.jit(pointing.SaliencyMaps(by_class))(nets, {"image": images}, {}))
    assert maps.shape == (2, 4, 4, 5) and maps.min() >= 0 and not maps[..., BACKGROUND].any()
    largest = maps.max((1, 2))
    np.testing.assert_allclose(largest, np.round(largest), atol=1e-6)
    assert round(maps.max()) == 1

    @jax.jit
    def by_derivative(nets, images):
        variables = nets["classifier"].variables
        classified = by_class.classifier.apply(variables, images, method="classify")
        # The second output is of class 2: class 1 is the background.
        score = lambda x: by_class.classifier.apply(variables, x, method="head").max((1, 2))[:, 1].sum()
        return classified.pool5 * jax.grad(score)(classified.pool5), classified.switches[-1]

    gain, places = (np.asarray(x) for x in by_derivative(nets, images))
    expected = np.zeros((2, 4, 4))
    for b, i, j, c in np.ndindex(gain.shape):
        row, column = divmod(int(places[b, i, j, c]), 2)
        expected[b, 2 * i + row, 2 * j + column] += gain[b, i, j, c]
    expected = expected.clip(0) / np.maximum(expected.max((1, 2), keepdims=True), 1e-12)
    np.testing.assert_allclose(maps[..., 2], expected, atol=1e-4)


class FixedMaps:
    """Saliency maps in place of those of a net."""

    def __init__(self, by_class, maps):
        self.by_class, self.maps = by_class, maps

    def __call__(self, nets, batch, consts):
        return jnp.asarray(self.maps)


def test_pointing_counts_hits_at_the_middle_of_a_place(by_class):
    maps = np.zeros((2, 2, 2, 5), np.float32)
    maps[0, 0, 1, 2] = maps[0, 1, 0, 3] = maps[1, 1, 1, 2] = 1
    stage = decoupled.recipe(tiny.decoupled_config(), SCENES).stage("pointing")
    assert isinstance(stage.predict.maps, pointing.SaliencyMaps)
    predict = dataclasses.replace(stage.predict, maps=FixedMaps(by_class, maps))
    truth = np.full((2, 8, 8), BACKGROUND, np.uint8)
    truth[0, 2, 6], truth[0, 5, 2], truth[1, 6, 6], truth[1, 0] = 2, 3, 2, 255
    # The second image has no pixels beyond row 8 and column 4, so its share would be twice as large.
    sizes = {"height": jnp.array([8, 8]), "width": jnp.array([8, 4])}
    hits = predict({}, {"label": jnp.asarray(truth), **sizes}, {})
    # The middles of the four places are at rows and columns 2 and 6.
    assert hits["hits"].tolist() == [[0, 0, 1, 0, 0], [0, 0, 1, 0, 0]]
    assert hits["images"].tolist() == [[0, 0, 1, 1, 0], [0, 0, 1, 0, 0]]
    np.testing.assert_allclose(hits["share"], [[0, 0, 1 / 64, 1 / 64, 0], [0, 0, 1 / 32, 0, 0]])
    info = dataclasses.replace(SCENES, classes=tuple("abcde"), background=BACKGROUND)
    table = pointing.pointing_table("pointing", info)
    rows = table.make({name: np.asarray(x).mean(0) for name, x in hits.items()})["rows"]
    assert rows[0] == ["all", pytest.approx(2 / 3), pytest.approx(1 / 48), 1.5]
    assert rows[1] == ["a", None, None, 0.0] and rows[3][:2] == ["d", 0.0]


def test_compared_stages_read_the_few_masks_take_as_many_steps_and_draw_alike():
    config = tiny.decoupled_config(compare=True)
    compared = decoupled.recipe(tiny.replaced(config, "decoupled", reestimate=1), SCENES)
    left = {stage.name: {role: str(net.init_from) for role, net in stage.nets.items()} for stage in compared.stages}
    assert list(left)[4:] == ["strong_classifier", "strong_only", "strong_only_statistics", "deconvnet"]
    assert left["strong_only"] == {"classifier": "strong_classifier/classifier", "segmenter": "None"}
    trained = {"classifier": "strong_classifier/classifier", "segmenter": "strong_only/segmenter"}
    assert left["strong_only_statistics"] == trained
    result = {role: str(net.init_from) for role, net in compared.results["strong_only"].nets.items()}
    assert result == {**trained, "segmenter": "strong_only_statistics/segmenter"}
    for name in list(left)[4:]:
        assert all(source.ids == "fine" for source in sources(compared.stage(name)).values())
    assert compared.stage("strong_classifier").sources["tagged"].fields == ("tags",)
    config = tiny.replaced(config, "classifier", steps=None, epochs=3.0)
    config = tiny.replaced(config, "decoupled", steps=None, epochs=2.0)
    recipe = decoupled.recipe(config, SCENES)
    assert list(recipe.results) == ["decoupled", "classifier", "strong_only", "strong_classifier", "deconvnet"]
    tags = {
        name: result.nets["classifier"].init_from for name, result in recipe.results.items() if result.metrics == "tags"
    }
    assert {name: str(init) for name, init in tags.items()} == {
        "classifier": "classifier/classifier", "strong_classifier": "strong_classifier/classifier",
    }  # fmt: skip
    assert recipe.stage("strong_classifier").steps == Epochs(count=3.0, of="classifier")
    for name in ("decoupled", "strong_only", "deconvnet"):
        assert recipe.stage(name).steps == Epochs(count=2.0, of="decoupled")
    ours, theirs = recipe.stage("decoupled"), recipe.stage("strong_only")
    assert theirs.keys_as == "decoupled" and theirs.turns == ours.turns and theirs.sources == ours.sources
    assert recipe.stage("strong_classifier").keys_as == "classifier"
    assert decoupled.recipe(dataclasses.replace(config, strong_steps=7), SCENES).stage("strong_classifier").steps == 7
    config = tiny.replaced(config, "deconvnet", steps=5)
    assert decoupled.recipe(config, SCENES).stage("deconvnet").steps == 5
    alone = decoupled.recipe(dataclasses.replace(config, compare=False), SCENES)
    assert list(alone.results) == ["decoupled", "classifier"]


def test_settings_that_the_nets_do_not_take_are_named():
    config = tiny.decoupled_config()
    with pytest.raises(InputError, match="camvid has no background class"):
        decoupled.recipe(config, CAMVID)
    with pytest.raises(InputError, match=r"classifier.size is \(64, 80\); expected multiples of 32"):
        decoupled.recipe(tiny.replaced(config, "classifier", size=(64, 80)), SCENES)
    with pytest.raises(InputError, match=r"decoupled.crops.crop is \(64, 64\); .* at least 96 for an fc6_kernel of 3"):
        wide = {"size": (96, 96), "augment": dataclasses.replace(config.classifier.augment, crop=(96, 96))}
        decoupled.recipe(
            tiny.replaced(config, "classifier", net=dataclasses.replace(config.classifier.net, fc6_kernel=3), **wide),
            SCENES,
        )
    narrow = tiny.replaced(config, "decoupled", width=1)
    with pytest.raises(InputError, match="decoupled.width is 1; expected None on a VGG-16, whose switches fix"):
        decoupled.recipe(narrow, SCENES)
    resnet = dataclasses.replace(config.classifier.net, backbone=ResNetConfig(depth=18, width=2))
    recipe = decoupled.recipe(tiny.replaced(narrow, "classifier", net=resnet), SCENES)
    assert recipe.stage("decoupled").nets["segmenter"].module.width == 1
    results = decoupled.recipe(dataclasses.replace(config, compare=True), SCENES).results
    for result in (result for result in results.values() if result.metrics == "masks"):
        with pytest.raises(InputError, match=r"size of images or windows is \(48, 64\); expected multiples of 32"):
            result.predict({}, {"image": jnp.zeros((1, 48, 64, 3))}, {})
