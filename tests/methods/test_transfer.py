"""Label and prediction transfer as a whole, with small nets: what each stage reads, and what is measured of it."""

import collections
import dataclasses
import json
import re
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from scarce_jax import runs
from scarce_jax.cli import main
from scarce_jax.cpu.diffusion import Status
from scarce_jax.data.datasets import CAMVID, SCENES
from scarce_jax.data.figures import summarise
from scarce_jax.data.images import resize_image
from scarce_jax.data.records import Records
from scarce_jax.data.source import Example, Reader
from scarce_jax.errors import InputError
from scarce_jax.methods import transfer
from scarce_jax.methods.transfer.lnet import ClassMaps
from scarce_jax.ranges import check
from scarce_jax.recipe import Artifact, Epochs, Eval, Loss, NetState, Train, Turn
from scarce_jax.report import report
from scarce_jax.training import infer as infer_lib
from scarce_jax.training import state as state_lib
from scarce_jax.training.step import make_step
from tests import tiny

MAIN = ["cam", "lnet", "label_maps", "segmenter", "pnet", "judgement", "adversarial"]
COMPARED = ["strong_only", "cam_maps", "cam_only", "all_labels", "lambda_zero", "pnet_scratch"]
STEPS = 2


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Programs that are little optimised."""
    with tiny.little_optimised():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data):
    """A finished run, and the masks that were looked at."""
    folder = tmp_path_factory.mktemp("transfer")
    return folder, carry_out(tiny.transfer_config(steps=STEPS), folder, data_dir=tiny_data)


def carry_out(config, folder, **options):
    """Trains, and returns which masks were looked at: stage, or None after the last -> ids."""
    looked = collections.defaultdict(set)
    read, stages = Example.__getitem__, MAIN + COMPARED if config.compare else MAIN

    def noted(example, key):
        if key == "fine":
            stage = next((name for name in stages if not (folder / name / "DONE").exists()), None)
            looked[stage].add(read(example, "id"))
        return read(example, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Example, "__getitem__", noted)
        runs.train(config, folder, mesh=tiny.mesh(), **options)
    return looked


def test_every_stage_leaves_what_the_next_one_reads(run):
    folder, _ = run
    summary = json.loads((folder / "summary.json").read_text())
    stages = {stage["name"]: stage for stage in summary["stages"]}
    assert list(stages) == MAIN and list(summary["results"]) == ["pnet", "lnet", "label_maps"]
    roles = json.loads((folder / "manifest.json").read_text())["roles"]
    assert (len(roles["fine"]), len(roles["unlabelled"]), len(roles["tags"])) == (5, 7, 12)
    records = Records(folder / "label_maps/records")
    assert set(records.ids) == set(roles["unlabelled"])
    entry = records.read(roles["unlabelled"][0])
    assert entry["label"].shape == (32, 32) and entry["label"].dtype == np.uint8
    assert sum(stages["label_maps"]["status"].values()) == 7
    assert list(stages["label_maps"]["status"]) == [status.name.lower() for status in Status]
    read = {name: {key: r["images"] for key, r in stages[name]["read"].items()} for name in stages}
    assert read["cam"] == {"tagged": 12} and read["lnet"] == read["pnet"] == {"labelled": 5}
    assert read["segmenter"] == read["adversarial"] == {"labelled": 12}
    # The frozen segmenter of P-Net's stage stays where it was trained.
    assert [path.name for path in (folder / "pnet/nets").iterdir()] == ["pnet"]
    assert all(0 <= value <= 1 for row in summary["tables"]["pnet"]["rows"] for value in row[1:])


def test_a_class_of_a_label_map_is_one_of_its_tags(run, tiny_data):
    folder, _ = run
    reader = Reader("scenes", "train", str(tiny_data))
    records = Records(folder / "label_maps/records")
    for name in records.ids:
        tags = reader.tags[reader.index[name]]
        classes = np.unique(records.read(name)["label"])
        assert set(classes) <= {0, 255, *np.flatnonzero(tags)}


def test_no_stage_looks_at_masks_that_the_budget_does_not_grant(run):
    folder, looked = run
    granted = set(json.loads((folder / "manifest.json").read_text())["roles"]["fine"])
    for stage in MAIN:
        assert {name for name in looked[stage] if name.startswith("train")} <= granted, stage
    # How good label maps are is measured on the others, when all is trained.
    assert len({name for name in looked[None] if name.startswith("train")} - granted) == 7


def test_label_maps_are_measured_against_the_hidden_masks(run, tiny_data, capsys):
    folder, _ = run
    figures = json.loads((folder / "summary.json").read_text())["results"]["label_maps"]
    assert (figures["images"], figures["split"]) == (7, "train")
    reader = Reader("scenes", "train", str(tiny_data))
    records = Records(folder / "label_maps/records")
    counts = np.zeros((12, 13), np.int64)
    for name in records.ids:
        truth = reader.read(reader.index[name])["fine"]
        label = records.read(name)["label"].repeat(truth.shape[0] // 32, 0).repeat(truth.shape[1] // 32, 1)
        valid = truth != 255
        np.add.at(counts, (truth[valid], np.minimum(label[valid], 12)), 1)
    expected = summarise(counts, SCENES.classes)
    assert figures["miou"] == pytest.approx(expected["miou"])
    assert figures["per_class"] == pytest.approx(expected["per_class"])
    assert main(["evaluate", str(folder), "--result", "label_maps", "--data-dir", str(tiny_data), "--json"]) == 0
    *shown, last = capsys.readouterr().out.splitlines()
    again = json.loads(last)
    assert again["miou"] == figures["miou"] and again["confusion"] == counts.tolist()
    groups = ("strong", "weak", "weak_and_background")
    assert shown[-1].endswith("  ".join(f"mIoU {name} {figures[f'miou_{name}']:.4f}" for name in groups))
    with pytest.raises(InputError, match="label_maps: is stored masks of train.*leave out --split"):
        runs.evaluate(folder, "label_maps", split="val", data_dir=tiny_data)
    with pytest.raises(InputError, match="label_maps: is stored masks of train; it predicts none"):
        runs.load(folder, "label_maps")


def test_what_the_pnet_takes_for_true_is_shown_with_its_result(run, tiny_data, tmp_path, capsys):
    folder, _ = run
    table = json.loads((folder / "summary.json").read_text())["tables"]["pnet"]
    for result in ("pnet", "lnet"):
        assert main(["evaluate", str(folder), "--result", result, "--data-dir", str(tiny_data)]) == 0
        lines = capsys.readouterr().out.splitlines()
        shown = [line.split() for line in lines if line.startswith(("strong", "weak"))]
        rows = [[name, *(f"{value:.4f}" for value in values)] for name, *values in table["rows"]]
        assert shown == (rows if result == "pnet" else [])
        # The next command has the folder's path, however long it is.
        assert max(len(line) for line in lines[1:] if not line.startswith("next: ")) <= 120
    report([folder], tmp_path / "report.html", images=0, data_dir=tiny_data)
    text = (tmp_path / "report.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["runs"][0]["tables"]["pnet"] == table


def test_the_report_shows_label_maps_on_their_images(run, tiny_data, tmp_path):
    folder, _ = run
    facts = report([folder], tmp_path / "report.html", results=["pnet", "lnet"], images=3, data_dir=tiny_data)
    assert facts["left_out"] == [] and facts["images"] == 6
    text = (tmp_path / "report.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    predicted, inferred = data["galleries"]
    assert (predicted["split"], inferred["split"], inferred["runs"]) == ("val", "train", [0])
    records = Records(folder / "label_maps/records")
    for picture in inferred["pictures"]:
        truth, shown, objectness = picture["layers"]
        assert (truth["kind"], shown["kind"], shown["result"]) == ("truth", "prediction", "label_maps")
        label = records.read(picture["id"])["label"]
        assert set(shown["classes"]) == set(np.unique(label)) - {255}
        assert (objectness["kind"], objectness["result"], objectness["label"]) == ("map", "lnet_map", "object")
    # The map belongs to the run, so it is there once for both results.
    for picture in predicted["pictures"]:
        assert sorted(layer["result"] for layer in picture["layers"][1:]) == ["lnet", "lnet_map", "pnet"]


class Brightness(nn.Module):
    """A net with one output, the sum of the colours."""

    @nn.compact
    def __call__(self, image, *, train=False):
        return image.sum(-1, keepdims=True), None

    def class_activation_maps(self, image):
        return image[..., :2] + 5


def test_padding_is_the_mean_colour_for_the_nets_that_make_label_maps():
    image = np.zeros((1, 6, 8, 3), np.uint8)
    image[:, :4, :5] = np.random.default_rng(0).integers(1, 255, (4, 5, 3))
    rows = {"image": image, "height": np.array([4]), "width": np.array([5]), "tags": np.ones((1, 3), np.uint8)}
    state = NetState(params={}, batch_stats={})
    made = ClassMaps(Brightness(), Brightness(), 0)({"lnet": state, "classifier": state}, rows, {})
    # The logit of the mean colour is 0.
    outside = np.ones((6, 8), bool)
    outside[:4, :5] = False
    np.testing.assert_array_equal(made["objectness"][0] == 0.5, outside)
    np.testing.assert_array_equal(made["cam"][0].any(-1), ~outside)


def test_the_map_of_the_lnet_is_kept_and_made_of_any_image(run, tiny_data, tmp_path, capsys):
    folder, _ = run
    reader = Reader("scenes", "train", str(tiny_data))
    make = runs.load(folder, "lnet_map", mesh=tiny.mesh())
    assert make.map_names == ("object",)
    records = Records(folder / "label_maps/records")
    entry = next(iter(records.ids))
    stored = records.read(entry)["objectness"]
    assert stored.dtype == np.uint8 and stored.shape == (32, 32)
    image = reader.read(reader.index[entry])["image"]
    made = make.maps(resize_image(image, (32, 32)))[..., 0]
    assert np.abs(made.astype(int) - stored).max() <= 1 and made.std() > 0
    photograph = np.random.default_rng(0).integers(0, 256, (40, 90, 3), np.uint8)
    Image.fromarray(photograph).save(tmp_path / "cat.jpg")
    arguments = ["predict", str(folder), str(tmp_path / "cat.jpg"), "--out", str(tmp_path / "maps")]
    assert main([*arguments, "--result", "lnet_map"]) == 0
    assert "1 image: maps and overlays of result lnet_map are in" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"cat_object.png", "cat_object_overlay.png"}
    grey = np.asarray(Image.open(tmp_path / "maps/cat_object.png"))
    assert grey.shape == (40, 90) and np.asarray(Image.open(tmp_path / "maps/cat_object_overlay.png")).shape[2] == 3


def test_strong_and_weak_categories_have_their_own_means(run, tiny_data, tmp_path, capsys):
    folder, _ = run
    results = json.loads((folder / "summary.json").read_text())["results"]
    path = tmp_path / "config.py"
    path.write_text(f"from tests import tiny\nconfig = tiny.transfer_config(steps={STEPS})\n")
    assert main(["train", str(path), "--workdir", str(folder), "--data-dir", str(tiny_data)]) == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if line.startswith("result "))
    columns = [
        "result",
        "mIoU",
        "mIoU strong",
        "mIoU weak",
        "mIoU weak and background",
        "mean accuracy",
        "pixel accuracy",
        "images",
        "mIoU is over",
    ]
    assert re.split(r"\s{2,}", header) == columns
    row = next(line for line in lines if line.startswith("lnet ")).split()
    assert row[1:4] == [f"{results['lnet'][key]:.4f}" for key in ("miou", "miou_strong", "miou_weak")]
    for name, figures in results.items():
        for group, names in (
            ("strong", set(tiny.STRONG)),
            ("weak", set(SCENES.classes) - set(tiny.STRONG) - {"background"}),
        ):
            known = [value for key, value in figures["per_class"].items() if key in names and value is not None]
            assert figures[f"miou_{group}"] == pytest.approx(np.mean(known)), (name, group)


def test_interrupted_while_diffusing_it_repeats_one_part_at_most(run, tmp_path, tiny_data, monkeypatch):
    before, _ = run
    folder = shutil.copytree(before, tmp_path / "run")
    for stage in MAIN[2:]:
        shutil.rmtree(folder / stage)
    monkeypatch.setattr(infer_lib, "PART", 3)
    write, written = infer_lib.write_part, []

    def power_cut(records, number, entries):
        if number == 2:
            raise RuntimeError("power cut")
        written.append(number)
        return write(records, number, entries)

    config = tiny.transfer_config(steps=STEPS)
    monkeypatch.setattr(infer_lib, "write_part", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        runs.train(config, folder, data_dir=tiny_data, mesh=tiny.mesh())
    assert written == [0, 1] and not (folder / "label_maps/DONE").exists()
    monkeypatch.setattr(infer_lib, "write_part", write)
    runs.train(config, folder, data_dir=tiny_data, mesh=tiny.mesh())
    done = json.loads((folder / "label_maps/DONE").read_text())
    assert done["inferred"] == 1 and sum(done["status"].values()) == 7
    first, second = (Records(f / "label_maps/records") for f in (before, folder))
    for name in first.ids:
        np.testing.assert_array_equal(first.read(name)["label"], second.read(name)["label"])


def test_comparisons_run_and_change_nothing_else(run, tmp_path, tiny_data):
    before, _ = run
    config = tiny.transfer_config(compare=True, steps=STEPS)
    looked = carry_out(config, tmp_path / "run", data_dir=tiny_data, reuse=before)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert [stage["name"] for stage in summary["stages"]] == MAIN + COMPARED
    assert list(summary["results"]) == ["pnet", "lnet", "label_maps", *COMPARED]
    for stage in MAIN:
        assert (before / stage / "DONE").samefile(tmp_path / "run" / stage / "DONE")
    read = {stage["name"]: stage["read"] for stage in summary["stages"]}
    images = {name: read[name]["labelled"]["images"] for name in COMPARED if name != "cam_maps"}
    assert images == {"strong_only": 5, "cam_only": 12, "all_labels": 12, "lambda_zero": 12, "pnet_scratch": 12}
    granted = set(json.loads((before / "manifest.json").read_text())["roles"]["fine"])
    assert all(looked[name] <= granted for name in COMPARED if name != "all_labels")
    stored = tiny.stored(tmp_path / "run")
    kernels = {
        name: stored[f"{name}/segmenter/params/conv/kernel"] for name in ("adversarial", "lambda_zero", "pnet_scratch")
    }
    assert not np.array_equal(kernels["adversarial"], kernels["lambda_zero"])
    assert not np.array_equal(kernels["adversarial"], kernels["pnet_scratch"])


def assert_equal_but(first, second, *fields):
    """Two dataclass instances differ in none but these fields."""
    differing = {f.name for f in dataclasses.fields(first) if getattr(first, f.name) != getattr(second, f.name)}
    assert type(first) is type(second) and differing <= set(fields)


def test_comparisons_differ_from_what_they_are_compared_with_in_one_thing():
    stages = {stage.name: stage for stage in transfer.recipe(tiny.transfer_config(compare=True), SCENES).stages}
    for name in ("strong_only", "cam_only", "all_labels"):
        assert stages[name].keys_as == "segmenter"
        assert_equal_but(stages[name], stages["segmenter"], "name", "sources", "keys_as")
        sources = (stages[other].sources["labelled"] for other in (name, "segmenter"))
        assert_equal_but(*sources, "ids", "labels")
    maps, cams = stages["label_maps"], stages["cam_maps"]
    assert set(maps.nets) - set(cams.nets) == {"lnet"} and maps.predict.lnet is not None
    assert_equal_but(maps, cams, "name", "nets", "predict")
    assert dataclasses.replace(maps.predict, lnet=None) == cams.predict
    assert stages["cam_only"].sources["labelled"].ids == ("fine", Artifact(stage="cam_maps", name="label"))
    base = stages["adversarial"]
    for name in ("lambda_zero", "pnet_scratch"):
        assert stages[name].keys_as == base.keys_as == "adversarial"
    # Without P-Net's share in the loss, P-Net itself has no part.
    assert_equal_but(stages["lambda_zero"], base, "name", "nets", "turns")
    assert stages["lambda_zero"].nets == {"segmenter": base.nets["segmenter"]}
    assert stages["lambda_zero"].turns == (Turn(net="segmenter", loss=base.turns[0].loss.segmentation),)
    assert_equal_but(stages["pnet_scratch"], base, "name", "nets")
    assert stages["pnet_scratch"].nets["segmenter"] == base.nets["segmenter"]
    assert_equal_but(stages["pnet_scratch"].nets["pnet"], base.nets["pnet"], "init_from")
    assert base.nets["pnet"].init_from == Artifact(stage="pnet", name="pnet")
    assert stages["pnet_scratch"].nets["pnet"].init_from is None
    # As many steps as with label maps, whatever the number of images.
    epochs = tiny.replaced(tiny.transfer_config(compare=True), "segmenter", steps=None, epochs=2.0)
    stages = {stage.name: stage for stage in transfer.recipe(epochs, SCENES).stages}
    assert stages["strong_only"].steps == stages["all_labels"].steps == Epochs(count=2.0, of="segmenter")


@dataclasses.dataclass(frozen=True)
class Counted:
    """A loss that notes each time it is traced; equal where the losses are."""

    loss: Loss
    traces: list = dataclasses.field(compare=False)

    def __call__(self, *args):
        self.traces.append(self.loss)
        return self.loss(*args)


def test_stages_that_differ_in_their_data_alone_share_one_program():
    recipe = transfer.recipe(tiny.transfer_config(compare=True), SCENES)
    stages = {stage.name: stage for stage in recipe.stages if isinstance(stage, Train)}
    mesh, traces = tiny.mesh(), []
    decoded = {
        "image": jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((8, 32, 32), jnp.uint8),
        "height": jax.ShapeDtypeStruct((8,), jnp.int32),
        "width": jax.ShapeDtypeStruct((8,), jnp.int32),
    }
    draws = {"labelled": {"row": jax.ShapeDtypeStruct((8,), jnp.int32), "decoded": decoded}}
    keys = {name: jax.random.key(0) for name in ("labelled", "loss")}

    def newly_traced(name, steps=10):
        """Losses that are traced for a step of the stage."""
        stage, before = stages[name], len(traces)
        turns = tuple(dataclasses.replace(turn, loss=Counted(turn.loss, traces)) for turn in stage.turns)
        step = make_step(dataclasses.replace(stage, turns=turns), steps, stage.sources, mesh)
        step.eval_shape(state_lib.init_state(stage.nets, steps, 0, name, {}, mesh), draws, keys, {})
        return len(traces) - before

    assert newly_traced("segmenter") == 1
    for name in ("strong_only", "cam_only", "all_labels"):
        assert stages[name].turns == stages["segmenter"].turns and newly_traced(name) == 0
    assert newly_traced("adversarial") == 2
    assert stages["pnet_scratch"].turns == stages["adversarial"].turns and newly_traced("pnet_scratch") == 0
    # The learning rate's schedule is part of it.
    assert newly_traced("segmenter", steps=11) == 1
    different = ("cam", "lnet", "segmenter", "pnet", "adversarial")
    assert len({stages[name].turns for name in different}) == len(different)
    # Alone and against the P-Net, the segmenter learns with equal settings.
    assert stages["lambda_zero"].turns == stages["segmenter"].turns and newly_traced("lambda_zero") == 0
    results = recipe.results
    assert results["lnet"].predict == results["pnet"].predict == results["all_labels"].predict


def test_categories_that_do_not_make_sense_are_refused():
    config = tiny.transfer_config()
    for names in ((), ("raod",), SCENES.classes[1:]):
        wrong = dataclasses.replace(config, budget=dataclasses.replace(config.budget, strong_categories=names))
        with pytest.raises(InputError, match="expected some, but not all, of striped fish, "):
            transfer.recipe(wrong, SCENES)
    with pytest.raises(InputError, match="camvid has no background"):
        transfer.recipe(config, CAMVID)
    alone = tiny.replaced(config, "pnet", mismatched=True)
    check(alone)
    for name in ("pnet", "adversarial"):
        batch = getattr(alone, name).batch
        with pytest.raises(InputError, match=f"--{name}.batch {batch}: expected at least 2 for each of its parts"):
            check(tiny.replaced(alone, name, accumulate=batch))
    with pytest.raises(InputError, match="lnet.eval_every is 5"):
        transfer.recipe(tiny.replaced(config, "lnet", eval_every=5), SCENES)


def test_hidden_truth_is_for_results_alone():
    recipe = transfer.recipe(tiny.transfer_config(), SCENES)
    hidden = recipe.results["label_maps"]
    assert isinstance(hidden, Eval) and hidden.hidden_truth
    trained = recipe.stage("segmenter")
    assert isinstance(trained, Train)
    with pytest.raises(ValueError, match="segmenter: an eval looks at hidden truth"):
        dataclasses.replace(trained, evals=(hidden,))
