"""Auxiliary confidence as a whole, with small nets: what each stage reads, and what another threshold repeats."""

import base64
import dataclasses
import functools
import io
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from scarce_jax import runs
from scarce_jax.data.datasets import SCENES
from scarce_jax.data.images import resize_image, resize_label, write_png
from scarce_jax.data.records import Records
from scarce_jax.data.source import Example, Reader
from scarce_jax.errors import InputError
from scarce_jax.methods import auxiliary
from scarce_jax.models.largefov import LargeFOVConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.ops.confidence import quantised
from scarce_jax.ops.logits import full_size
from scarce_jax.ranges import check
from scarce_jax.recipe import Artifact, Confident, MostConfident, NetState, Read, Views, parse_origin
from scarce_jax.report import report
from scarce_jax.training import infer
from scarce_jax.training.fingerprint import plain
from tests import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data):
    """A finished run without what the method is compared with."""
    folder = tmp_path_factory.mktemp("auxiliary")
    runs.train(tiny.auxiliary_config(), folder, data_dir=tiny_data)
    return folder


def test_every_stage_leaves_what_the_next_one_reads(run):
    summary = json.loads((run / "summary.json").read_text())
    names = ["frequencies", "segmenter", "statistics", "auxiliary", "selection", "pseudo_labels", "semi"]
    assert [stage["name"] for stage in summary["stages"]] == names
    assert list(summary["results"]) == ["semi", "labelled_only", "trusted", "pseudo_labels"]
    manifest = json.loads((run / "manifest.json").read_text())["roles"]
    records = Records(run / "pseudo_labels" / "records")
    assert set(records.ids) == set(manifest["unlabelled"]) and len(records.ids) == 8
    entry = records.read(manifest["unlabelled"][0])
    assert entry["label"].shape == entry["confidence"].shape == (32, 32)
    assert entry["label"].dtype == entry["confidence"].dtype == np.uint8 and entry["label"].max() < 12
    read = summary["stages"][-1]["read"]["labelled"]
    assert read["images"] == 12 and read["ids"] == "fine and pseudo_labels records"
    # The auxiliary net's stage leaves that alone: the segmenter is frozen there, and stored where it was trained.
    assert [path.name for path in (run / "auxiliary" / "nets").iterdir()] == ["auxiliary"]


def test_the_selection_table_is_in_the_summary(run):
    table = json.loads((run / "summary.json").read_text())["tables"]["selection"]
    assert table["columns"][:4] == ["threshold", "mIoU", "class semi ratio", "selected"]
    rows = {row[0]: row for row in table["rows"]}
    assert rows[0.0][2] == pytest.approx(1.0) and rows[0.0][3] == pytest.approx(1.0)
    selected = [row[3] for row in table["rows"]]
    assert selected == sorted(selected, reverse=True)
    assert all(0 <= value <= 1 for value in table["auroc"].values())


@pytest.fixture(scope="module")
def halved(run, tmp_path_factory, tiny_data):
    """A run whose threshold half of the unlabelled images' pixels reach, and the threshold."""
    records = Records(run / "pseudo_labels" / "records")
    median = np.median([records.read(name)["confidence"] for name in records.ids])
    # Between two whole numbers, where rounding has no part.
    folder, threshold = tmp_path_factory.mktemp("halved"), (int(median) - 0.5) / 255
    config = tiny.replaced(tiny.auxiliary_config(), "semi", threshold=threshold, steps=1)
    runs.train(config, folder, data_dir=tiny_data, reuse=run)
    return folder, threshold


def slow_covered(pairs):
    """`covered` figures of (true mask, mask) pairs, pixel by pixel."""
    truth, labels = (np.concatenate([pair[k].ravel() for pair in pairs]) for k in (0, 1))
    truth, labels = truth[truth != 255], labels[truth != 255]
    kept = labels != 255
    return {
        "coverage": kept.mean(),
        "mean_coverage": np.mean([kept[truth == k].mean() for k in np.unique(truth)]),
        "precision": (truth == labels)[kept].mean(),
    }


def test_an_image_is_annotated_where_the_auxiliary_net_trusts_the_segmenter(halved, tmp_path, tiny_data):
    """Figure 1 of the paper. At the net's own size these are the masks that `semi` learns from."""
    run, threshold = halved
    reader, records = Reader("scenes", "train", str(tiny_data)), Records(run / "pseudo_labels" / "records")
    predictor = runs.load(run, "trusted")
    for name in list(records.ids)[:2]:
        write_png(tmp_path / f"{name}.png", resize_image(reader.read(reader.index[name])["image"], (32, 32)))
    written = runs.predict(run, tmp_path, tmp_path / "out", result="trusted", confidence=True)
    assert written["images"] == 2
    for name in list(records.ids)[:2]:
        entry = records.read(name)
        mask = np.asarray(Image.open(tmp_path / "out" / f"{name}.png"))
        confidence = np.asarray(Image.open(tmp_path / "out" / f"{name}_confidence.png")).astype(int)
        # Another program may round a confidence otherwise.
        assert np.abs(confidence - entry["confidence"]).max() <= 1 and confidence.std() > 0
        trusted = confidence >= 255 * threshold
        assert 0 < trusted.sum() < trusted.size
        np.testing.assert_array_equal(mask, np.where(trusted, entry["label"], 255))
        image = np.asarray(Image.open(tmp_path / f"{name}.png"))
        np.testing.assert_array_equal(predictor.predict(image), mask)
        assert predictor.probabilities(image).sum(-1) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(InputError, match=r"result trusted: .*; it takes no --flip, --scales, --window or --crf"):
        runs.load(run, "trusted", views=Views(flip=True))


def test_trusted_pixels_are_measured_against_the_truth(halved, tiny_data):
    """On the evaluation split by prediction, and on the unlabelled images by what is stored, whose truth is hidden."""
    run, threshold = halved
    results = json.loads((run / "summary.json").read_text())["results"]
    train, val = (Reader("scenes", split, str(tiny_data)) for split in ("train", "val"))
    records, predictor = Records(run / "pseudo_labels" / "records"), runs.load(run, "trusted")
    read = Confident(threshold=threshold)
    stored, predicted = [], []
    for name in records.ids:
        truth = train.read(train.index[name])["fine"]
        stored.append((truth, resize_label(read(records.read(name)), truth.shape)))
    for k in range(len(val)):
        example = val.read(k)
        predicted.append((example["fine"], predictor.predict(example["image"])))
    for name, pairs in (("pseudo_labels", stored), ("trusted", predicted)):
        expected = slow_covered(pairs)
        assert {key: results[name][key] for key in expected} == pytest.approx(expected, rel=1e-4), name
        assert results[name]["images"] == len(pairs) and 0 < results[name]["coverage"] < 1
    assert "coverage" not in results["labelled_only"]


def test_without_masks_of_the_unlabelled_images_their_annotation_is_not_measured(
    run, tmp_path, tiny_data, monkeypatch, caplog
):
    """As in a folder of one's own, where the other images have none."""
    unlabelled = json.loads((run / "manifest.json").read_text())["roles"]["unlabelled"]
    opened = Reader.__init__

    def init(reader, *arguments):
        opened(reader, *arguments)
        reader.has = {**reader.has, "fine": ~np.isin(reader.ids, unlabelled)}

    monkeypatch.setattr(Reader, "__init__", init)
    summary = runs.train(tiny.auxiliary_config(), tmp_path / "other", data_dir=tiny_data, reuse=run)
    assert list(summary["results"]) == ["semi", "labelled_only", "trusted"]
    assert "has no fine mask of its 8 images of pseudo_labels records: pseudo_labels" in caplog.text


def test_the_report_shows_results_and_annotations_side_by_side(halved, tmp_path, tiny_data):
    """Figure 4 on the evaluation split, figure 1 on the unlabelled images."""
    run, _ = halved
    out, names = tmp_path / "report.html", ["labelled_only", "semi", "trusted"]
    written = report([run], out, results=names, images=2, data_dir=tiny_data)
    assert written["left_out"] == []
    content = json.loads(re.search(r'id="data">(.*?)</script>', out.read_text(), re.DOTALL)[1])
    assert content["runs"][0]["measured"]["result"] == "labelled_only"
    evaluated, inferred = content["galleries"]
    for gallery, shown in (
        (evaluated, [("prediction", "labelled_only"), ("prediction", "semi"), ("confidence", "trusted"),
                     ("prediction", "trusted")]),
        (inferred, [("prediction", "pseudo_labels, all pixels"), ("confidence", "pseudo_labels"),
                    ("prediction", "pseudo_labels")]),
    ):  # fmt: skip
        for picture in gallery["pictures"]:
            truth, *layers = picture["layers"]
            assert truth["kind"] == "truth" and [(layer["kind"], layer["result"]) for layer in layers] == shown
            assert re.fullmatch(r"\d+% of the pixels(, \d+% of these right)?", layers[-1]["note"])
            masks = [np.asarray(Image.open(io.BytesIO(base64.b64decode(x["mask"].partition(",")[2])))) for x in layers]
            whole, confidence, trusted = masks[-3:]
            if gallery is inferred:
                np.testing.assert_array_equal(trusted[trusted != 255], whole[trusted != 255])
            # Stored confidences are resized for the eye, so near a border they are others than those of the mask.
            assert confidence[trusted != 255].mean() > confidence[trusted == 255].mean()
    with pytest.raises(InputError, match="result 'coarse': this run has semi, labelled_only"):
        report([run], out, results=["semi", "coarse"], images=0, data_dir=tiny_data)


def test_another_threshold_infers_nothing_again(run, tmp_path, tiny_data):
    config = tiny.replaced(tiny.auxiliary_config(), "semi", threshold=0.6)
    summary = runs.train(config, tmp_path / "other", data_dir=tiny_data, reuse=run)
    *earlier, semi = [stage["name"] for stage in summary["stages"]]
    assert semi == "semi" and len(earlier) == 6
    for name in earlier:
        paths = [path for path in (run / name).rglob("*") if path.is_file()]
        # A stage that ran again would have left files of its own.
        assert paths and all(path.samefile(tmp_path / "other" / path.relative_to(run)) for path in paths), name
    before, after = tiny.stored(run), tiny.stored(tmp_path / "other")
    same = {path for path in before if np.array_equal(before[path], after[path])}
    assert {p for p in before if not p.startswith("semi/")} <= same
    assert not any(p.endswith("kernel") for p in same if p.startswith("semi/"))


def test_masks_of_unlabelled_images_change_nothing(run, tmp_path, tiny_data, monkeypatch):
    """Not even in the last stage: there the inferred labels stand in their place."""
    unlabelled = set(json.loads((run / "manifest.json").read_text())["roles"]["unlabelled"])
    read = Example.__getitem__

    def other(example, key):
        value = read(example, key)
        return (value + 1) % 12 if key == "fine" and example["id"] in unlabelled else value

    monkeypatch.setattr(Example, "__getitem__", other)
    runs.train(tiny.auxiliary_config(), tmp_path / "other", data_dir=tiny_data)
    before, after = tiny.stored(run), tiny.stored(tmp_path / "other")
    assert before.keys() == after.keys()
    for path, value in before.items():
        np.testing.assert_array_equal(value, after[path], err_msg=path)


def test_pseudo_labels_of_another_budget_are_refused(run, tiny_data):
    config = tiny.auxiliary_config()
    config = dataclasses.replace(config, budget=dataclasses.replace(config.budget, fine=5))
    with pytest.raises(InputError, match=r"begun with other settings(.|\n)*roles.fine"):
        runs.train(config, run, data_dir=tiny_data)


def test_interrupted_while_labelling_it_repeats_one_part_at_most(run, tmp_path, tiny_data, monkeypatch):
    folder = shutil.copytree(run, tmp_path / "run")
    for stage in ("pseudo_labels", "semi"):
        shutil.rmtree(folder / stage)
    monkeypatch.setattr(infer, "PART", 3)
    write, written = infer.write_part, []

    def power_cut(records, number, entries):
        if number == 2:
            raise RuntimeError("power cut")
        written.append(number)
        return write(records, number, entries)

    monkeypatch.setattr(infer, "write_part", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        runs.train(tiny.auxiliary_config(), folder, data_dir=tiny_data)
    assert written == [0, 1] and not (folder / "pseudo_labels" / "DONE").exists()
    monkeypatch.setattr(infer, "write_part", write)
    runs.train(tiny.auxiliary_config(), folder, data_dir=tiny_data)
    # Eight images in parts of three: the last part alone is inferred again, and what was trained on them is the same.
    assert json.loads((folder / "pseudo_labels" / "DONE").read_text())["inferred"] == 2
    first, second = (Records(f / "pseudo_labels" / "records") for f in (run, folder))
    assert first.ids == second.ids and len(second.ids) == 8
    before, after = tiny.stored(run), tiny.stored(folder)
    assert before.keys() == after.keys()
    for path, value in before.items():
        np.testing.assert_array_equal(value, after[path], err_msg=path)


def test_what_it_is_compared_with_takes_as_many_steps():
    config = tiny.auxiliary_config(compare=True)
    recipe = auxiliary.recipe(config, SCENES)
    steps = {stage.name: stage.steps for stage in recipe.stages if hasattr(stage, "steps")}
    assert steps["semi"] == steps["labelled_long"] == steps["all_labels"] == 6
    epochs = tiny.replaced(config, "semi", steps=None, epochs=2.0)
    stages = {stage.name: stage for stage in auxiliary.recipe(epochs, SCENES).stages}
    assert stages["labelled_long"].steps == stages["all_labels"].steps
    assert stages["labelled_long"].steps.of == "semi" and stages["semi"].steps.of is None
    for name in ("semi", "labelled_long", "all_labels", "adversarial", "consistency"):
        assert stages[name].keys_as == "segmenter"
    semi = stages["semi"].sources["labelled"]
    pseudo = Artifact(stage="pseudo_labels", name="label")
    assert semi.labels == ("fine", Read(artifact=pseudo, read=Confident(threshold=0.3)))
    assert stages["labelled_long"].sources["labelled"].ids == "fine"


def test_what_it_is_compared_with_starts_where_it_does():
    config = tiny.replaced(tiny.auxiliary_config(compare=True), "semi", start="segmenter")
    stages = {stage.name: stage for stage in auxiliary.recipe(config, SCENES).stages}
    for name in ("semi", "labelled_long", "all_labels", "adversarial", "consistency"):
        assert stages[name].nets["segmenter"].init_from == Artifact(stage="segmenter", name="segmenter")
    assert set(stages["adversarial"].nets) == {"segmenter", "discriminator"}


@pytest.mark.parametrize("own", [None, "own.safetensors"])
def test_the_start_at_initial_values_is_at_those_of_the_segmenter(own):
    config = tiny.replaced(tiny.auxiliary_config(compare=True), "semi", start="initial", init_from=own)
    config = tiny.replaced(config, "segmenter", init_from="weights.safetensors")
    recipe = auxiliary.recipe(config, SCENES)
    for name in ("semi", "labelled_long", "all_labels", "adversarial", "consistency"):
        assert recipe.stage(name).nets["segmenter"].init_from == parse_origin(own or "weights.safetensors")


@pytest.mark.parametrize("stage", ["semi", "adversarial", "consistency"])
def test_weights_that_the_start_would_replace_are_refused(stage):
    config = tiny.replaced(tiny.auxiliary_config(compare=True), "semi", start="segmenter")
    config = tiny.replaced(config, stage, init_from="weights.safetensors")
    with pytest.raises(InputError, match=rf"{stage}.init-from .*semi.start"):
        check(config)


def test_pseudo_labels_may_be_those_of_both_views():
    """Then the labels of a mirrored image are the mirrored labels, which those of the image alone are not."""
    image = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    for flip in (False, True):
        recipe = auxiliary.recipe(tiny.replaced(tiny.auxiliary_config(), "semi", flip=flip), SCENES)
        stage, result = recipe.stage("pseudo_labels"), recipe.results["trusted"]
        nets = {}
        for role, net in stage.nets.items():
            init = jax.jit(functools.partial(net.module.init, train=False))
            variables = init(jax.random.key(0), *(jnp.zeros(x.shape, x.dtype) for x in net.inputs))
            nets[role] = NetState(params=variables["params"], batch_stats=variables.get("batch_stats", {}))
        predict = jax.jit(stage.predict)
        seen, mirrored = (predict(nets, {"image": view}, {}) for view in (image, image[:, :, ::-1]))
        assert np.array_equal(mirrored["label"], seen["label"][:, :, ::-1]) == flip
        # Any image is annotated as the unlabelled ones are.
        scores = jax.jit(result.predict)(nets, {"image": image}, {})
        np.testing.assert_array_equal(scores[..., :-1].argmax(-1), seen["label"])
        np.testing.assert_array_equal(quantised(scores[..., -1]), seen["confidence"])


def test_labelled_images_may_have_a_share_of_every_batch():
    config = tiny.replaced(tiny.auxiliary_config(), "semi", labelled_batch=3)
    semi = auxiliary.recipe(config, SCENES).stage("semi")
    labelled, pseudo = semi.sources["labelled"], semi.sources["pseudo"]
    assert (labelled.ids, labelled.labels, labelled.batch) == ("fine", ("fine",), 3)
    assert pseudo.ids == Artifact(stage="pseudo_labels", name="label") and pseudo.batch == 5
    assert [label.read for label in pseudo.labels] == [Confident(threshold=config.semi.threshold)]
    by_share = auxiliary.recipe(tiny.replaced(config, "semi", share=0.6), SCENES)
    assert [label.read for label in by_share.stage("semi").sources["pseudo"].labels] == [MostConfident(share=0.6)]
    assert by_share.results["pseudo_labels"].inferred.read == MostConfident(share=0.6)

    # The loss is that of both together: with either source's rows alone it is another one.
    union = auxiliary.recipe(tiny.auxiliary_config(), SCENES).stage("semi")
    net = union.nets["segmenter"]
    init = jax.jit(functools.partial(net.module.init, train=False))
    variables = init(jax.random.key(0), *(jnp.zeros(x.shape, x.dtype) for x in net.inputs))
    state = {"segmenter": NetState(params=variables["params"], batch_stats=variables["batch_stats"])}
    draws = np.random.default_rng(0)

    def rows(count):
        image = draws.normal(size=(count, 32, 32, 3)).astype(np.float32)
        return {"image": image, "label": draws.integers(0, 12, (count, 32, 32)).astype(np.uint8)}

    batch = {"labelled": rows(3), "pseudo": rows(5)}
    together = {
        key: np.concatenate([batch[name][key] for name in ("pseudo", "labelled")]) for key in ("image", "label")
    }
    shared = {"p_class": jnp.full(12, 1 / 12)}

    def loss(stage, batch):
        return float(jax.jit(stage.turns[0].loss)(variables["params"], state, batch, shared, jax.random.key(1))[0])

    assert loss(semi, batch) == pytest.approx(loss(union, {"labelled": together}), rel=1e-6)
    assert loss(semi, batch) != pytest.approx(loss(union, {"labelled": batch["pseudo"]}), rel=1e-3)


def test_pseudo_labelled_images_may_be_augmented_otherwise():
    config = tiny.replaced(tiny.auxiliary_config(compare=True), "semi", labelled_batch=3)
    plain = config.semi.augment
    strong = dataclasses.replace(plain, brightness=0.5)
    recipe = auxiliary.recipe(tiny.replaced(config, "semi", pseudo_augment=strong), SCENES)
    sources = recipe.stage("semi").sources
    assert sources["pseudo"].transform.settings == strong and sources["labelled"].transform.settings == plain
    assert recipe.stage("labelled_long").sources["labelled"].transform.settings == plain
    without = auxiliary.recipe(config, SCENES).stage("semi").sources
    assert without["pseudo"].transform == without["labelled"].transform == sources["labelled"].transform


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"labelled_batch": None}, "--semi.labelled-batch None: expected a number of images"),
        ({"pseudo_augment": Augment(crop=(16, 16))}, "--semi.pseudo-augment.crop .* expected that of augment"),
    ],
)
def test_an_augmentation_that_no_batch_could_have_is_refused(changes, message):
    config = tiny.replaced(tiny.auxiliary_config(), "semi", labelled_batch=3)
    config = tiny.replaced(config, "semi", **{"pseudo_augment": config.semi.augment} | changes)
    with pytest.raises(InputError, match=message):
        check(config)


@pytest.mark.parametrize("count", [0, 8])
def test_a_batch_needs_images_of_both_kinds(count):
    config = tiny.replaced(tiny.auxiliary_config(), "semi", labelled_batch=count)
    with pytest.raises(InputError, match=rf"semi.labelled_batch is {count}; expected from 1 to semi.batch - 1, 7"):
        auxiliary.recipe(config, SCENES)


@pytest.mark.parametrize("stage", ["segmenter", "adversarial", "consistency"])
def test_a_net_of_small_logits_is_refused(stage):
    config = tiny.replaced(tiny.auxiliary_config(compare=True), stage, net=LargeFOVConfig())
    with pytest.raises(InputError, match=rf"{stage}.net is largefov.*smaller.*; expected one of pspnet, fcn, dsnet, "):
        auxiliary.recipe(config, SCENES)


def test_the_threshold_changes_no_stage_that_it_is_compared_with():
    low, high = (
        tiny.replaced(tiny.auxiliary_config(compare=True), "semi", threshold=threshold) for threshold in (0.3, 0.8)
    )
    stages = {s.name: plain(s) for s in auxiliary.recipe(low, SCENES).stages}
    changed = [s.name for s in auxiliary.recipe(high, SCENES).stages if plain(s) != stages[s.name]]
    assert changed == ["semi"]


def test_without_comparison_the_main_stages_are_the_same():
    alone, compared = (auxiliary.recipe(tiny.auxiliary_config(compare=c), SCENES) for c in (False, True))
    assert [s.name for s in compared.stages][: len(alone.stages)] == [s.name for s in alone.stages]


def test_the_discriminators_trust_is_counted_with_the_nets_of_its_stage():
    recipe = auxiliary.recipe(tiny.auxiliary_config(compare=True), SCENES)
    stage, trained = recipe.stage("discriminator_selection"), recipe.stage("adversarial")
    assert {role: str(net.init_from) for role, net in stage.nets.items()} == {
        "segmenter": "adversarial/segmenter", "discriminator": "adversarial/discriminator"
    }  # fmt: skip
    assert stage.predict.threshold == 0.2 and stage.source.split == "val"
    assert {a.stage for a in recipe.tables["selection_confidences"].reads.values()} == {"selection", stage.name}
    nets = {}
    for role, net in trained.nets.items():
        init = jax.jit(functools.partial(net.module.init, train=False))
        variables = init(jax.random.key(1), *(jnp.zeros(x.shape, x.dtype) for x in net.inputs))
        nets[role] = NetState(params=variables["params"], batch_stats=variables.get("batch_stats", {}))
    draws = np.random.default_rng(0)
    image = draws.normal(size=(2, 32, 32, 3)).astype(np.float32)
    label = draws.choice([0, 1, 2, 255], (2, 32, 32)).astype(np.uint8)
    counted = jax.jit(stage.predict)(nets, {"image": image, "label": label}, {})
    logits, _ = jax.jit(functools.partial(trained.nets["segmenter"].module.apply, train=False))(
        nets["segmenter"].variables, image
    )
    output = trained.nets["discriminator"].module.apply(
        nets["discriminator"].variables, jax.nn.softmax(full_size(logits)), train=False
    )
    trusted = (1 / (1 + np.exp(-np.asarray(output))) >= 0.2) & (label != 255)
    predictions = np.asarray(full_size(logits)).argmax(-1)
    for k in range(2):
        expected = np.zeros((12, 12))
        np.add.at(expected, (label[k][trusted[k]], predictions[k][trusted[k]]), 1 / 32**2)
        np.testing.assert_allclose(counted["trusted"][k], expected, atol=1e-6)
        assert counted["discriminator"][k].sum() == pytest.approx((label[k] != 255).mean(), abs=1e-6)
