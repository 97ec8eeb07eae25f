"""From a made published file in each layout, by `init_from` and a recipe, to what the net computes."""

import json
import math

import jax
import numpy as np
import pytest

from scarce_jax import config_files, runs
from scarce_jax.data.builders import load_info
from scarce_jax.errors import InputError
from scarce_jax.methods import supervised
from scarce_jax.models import dinov2, weights
from scarce_jax.models.deeplab import DeepLabV2Config
from scarce_jax.models.dinov2 import DINOv2Config
from scarce_jax.models.fcn import FCNConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.vgg import VGGConfig
from scarce_jax.ops.augment import Augment, normalise
from scarce_jax.training import state as state_lib
from scarce_jax.training.session import Session
from tests import published, tiny, torch_files
from tests.models.shapes import UNOPTIMISED

PIXELS = np.random.default_rng(1).integers(0, 256, (28, 42, 3), np.uint8)
CAFFE_MEAN = (103.939, 116.779, 123.68)
CAFFE_IMAGE = PIXELS[..., ::-1] - np.array(CAFFE_MEAN)
IMAGENET_IMAGE = (PIXELS / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)


@pytest.fixture
def start(tmp_path, tiny_data):
    """(net's config, path of a file) -> what the net of a recipe takes, its module, and variables with nothing else."""

    def run(net, path, side=32):
        size = {"size": (side, side), "augment": Augment(crop=(side, side))}
        config = tiny.supervised_config(net=net, init_from=str(path), **size)
        info = load_info("scenes", tiny_data)
        recipe = supervised.recipe(config, info)
        session = Session(recipe, info.classes, tmp_path, tiny_data, tiny.mesh(), config=config_files.to_json(config))
        stage = recipe.stages[-1]
        taken, net = session.outside(stage)["segmenter"], stage.nets["segmenter"]
        # Drawing what is not taken would take longer than all else.
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state_lib.abstract_net(net).variables)
        return taken, net.module, weights.overlay(zeros, taken.values)

    return run


def compute(module, variables, function):
    """`function(module, image)` on the pipeline's image, of the net with these variables."""
    image = normalise(PIXELS[None])
    run = jax.jit(lambda v: module.apply(v, image, method=function), compiler_options=UNOPTIMISED)
    return run(variables)


def last_features(module, image):
    *_, features = module.backbone(image, train=False).values()
    return features[0]


def on(backbone):
    return FCNConfig(backbone=backbone, layers=0)


def assert_close(found, expected):
    assert expected.std() > 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4 * np.abs(expected).max())


CAFFE = {"geometry": "caffe", "normalisation": "caffe"}
KERAS = ResNetConfig(depth=50, width=2, **CAFFE)


@pytest.fixture
def shipped(tmp_path):
    """A ResNet-50 as a model of TensorFlow.js."""
    tensors = published.in_keras(published.resnet(50, 2, biases=True))
    tensors["fc1000/kernel"] = np.zeros((64, 5), np.float32)
    return published.save_tfjs(tmp_path / "model", tensors)


def test_a_model_of_tensorflow_js_computes_what_keras_does(start, shipped):
    taken, module, variables = start(on(KERAS), shipped)
    assert taken.facts["file"] == {"layout": "Keras' ResNet", **CAFFE}
    assert list(taken.facts["unused"]) == ["fc1000/kernel"]
    assert taken.facts["used"]["bn2a_branch2b/moving_mean - res2a_branch2b/bias"] == (
        "batch_stats/backbone/layer1_block0/bn2/mean",
        (2,),
    )
    units = published.resnet(50, 2, biases=True)
    expected = published.layer4(CAFFE_IMAGE, units, caffe=True, epsilon=1e-3)
    assert_close(compute(module, variables, last_features), expected)


def test_newer_names_of_keras_have_another_epsilon_unless_the_file_says_one(start, shipped, tmp_path):
    units = published.resnet(50, 2, biases=True)
    path = published.save_tfjs(tmp_path / "new", published.in_keras(units, new=True), {"conv2_block1_1_bn": 0.5})
    older, newer = (start(on(KERAS), p)[0].values for p in (shipped, path))
    assert older.keys() == newer.keys()
    for name, value in newer.items():
        change = {"layer1_block0/bn1": 0.5 - 1e-3}.get("/".join(name.split("/")[2:4]), 1.001e-5 - 1e-3)
        np.testing.assert_allclose(value, older[name] + (change if name.endswith("/var") else 0), atol=1e-6)


def test_the_flags_of_a_wrong_geometry_normalisation_and_depth_are_named(start, shipped, tmp_path):
    plain = {"depth": 50, "width": 2}
    flag = "set --segmenter.net.backbone"
    for backbone, message in (
        (ResNetConfig(**plain, normalisation="caffe"), f"has geometry torchvision; {flag}.geometry caffe$"),
        (ResNetConfig(**plain, geometry="caffe"), f"has normalisation imagenet; {flag}.normalisation caffe$"),
        (ResNetConfig(**plain), f"{flag}.geometry caffe --segmenter.net.backbone.normalisation caffe$"),
        (ResNetConfig(depth=18, width=2, **CAFFE), f"the net is ResNet-18; {flag}.depth 50"),
        (VGGConfig(width=2), f"holds a ResNet .*, and the net has a VGG-16; {flag} resnet"),
    ):
        with pytest.raises(InputError, match=message):
            start(on(backbone), shipped)
    (shipped.parent / "group1-shard2of2.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="its files hold 1002 bytes of arrays, expected .*; fetch it again"):
        start(on(KERAS), shipped)
    (shipped.parent / "group1-shard2of2.bin").unlink()
    with pytest.raises(InputError, match="1 of its 2 files are missing, as group1-shard2of2.bin; fetch"):
        start(on(KERAS), shipped)
    outside = json.loads(shipped.read_text().replace("group1-shard1of2.bin", "../other.bin"))
    shipped.write_text(json.dumps(outside))
    with pytest.raises(InputError, match="its shards are not names of files beside it"):
        start(on(KERAS), shipped)


def test_a_converted_file_says_what_it_is(start, tmp_path):
    units = published.resnet(18, 2)
    tensors = {k: np.ascontiguousarray(v) for k, v in published.in_torch(units).items()}
    path = torch_files.save(tmp_path / "converted.safetensors", tensors)
    converted = on(ResNetConfig(depth=18, width=2, geometry="caffe"))
    with pytest.raises(
        InputError, match=r"geometry torchvision, .*what they were trained with, such as: python -c"
    ) as e:
        start(converted, path)
    code = str(e.value).split('python -c "')[1].rstrip('"').replace("'converted_declared", f"'{tmp_path}/declared")
    exec(code, {})
    taken, module, variables = start(converted, tmp_path / "declared.safetensors")
    assert taken.facts["file"]["geometry"] == "caffe" and taken.facts["file"]["normalisation"] == "imagenet"
    assert_close(compute(module, variables, last_features), published.layer4(IMAGENET_IMAGE, units, caffe=True))
    wrong = torch_files.save(tmp_path / "wrong.safetensors", tensors, geometry="caffee")
    with pytest.raises(InputError, match="metadata state geometry 'caffee', expected torchvision or caffe"):
        start(converted, wrong)


def test_deeplab_starts_from_the_files_of_hung_et_al(start, tmp_path):
    units, rng = published.resnet(18, 2), np.random.default_rng(2)
    tensors = published.in_torch(units, prefix="Scale.")
    heads = [(published.draw(rng, 3, 3, 16, 12), rng.normal(size=12).astype(np.float32)) for _ in range(4)]
    for index, (kernel, bias) in enumerate(heads):
        tensors |= {f"Scale.layer5.conv2d_list.{index}.weight": kernel.transpose(3, 2, 0, 1)}
        tensors |= {f"Scale.layer5.conv2d_list.{index}.bias": bias}
    net = DeepLabV2Config(backbone=ResNetConfig(depth=18, width=2, **CAFFE))
    taken, module, variables = start(net, torch_files.save(tmp_path / "coco.safetensors", tensors))
    assert taken.facts["file"] == {"layout": "DeepLab-v2 in PyTorch", **CAFFE}
    assert taken.drawn == () and taken.facts["unused"] == {}
    x = published.layer4(CAFFE_IMAGE, units, caffe=True)
    rates = (6, 12, 18, 24)
    expected = sum(published.convolve(x, k, dilation=r) + b for r, (k, b) in zip(rates, heads, strict=True))
    assert_close(compute(module, variables, lambda m, image: m(image, train=False)[0].coarse[0]), expected)
    for index in range(4):
        tensors[f"Scale.layer5.conv2d_list.{index}.weight"] = np.zeros((21, 16, 3, 3), np.float32)
        tensors[f"Scale.layer5.conv2d_list.{index}.bias"] = np.zeros(21, np.float32)
    taken, _, _ = start(net, torch_files.save(tmp_path / "coco21.safetensors", tensors))
    assert taken.drawn == tuple(f"aspp_rate{rate}" for rate in (12, 18, 24, 6))
    reason = "[21]; the net's params/aspp_rate6/bias has [12]"
    assert len(taken.facts["unused"]) == 8
    assert taken.facts["unused"]["Scale.layer5.conv2d_list.0.bias"] == reason


@pytest.mark.parametrize("batch_norm", [False, True])
def test_vgg_starts_from_timms_files(batch_norm, start, tmp_path):
    rng, channels, index, tensors, places = np.random.default_rng(3), 3, 0, {}, {}
    for group, count in enumerate((2, 2, 3, 3, 3), start=1):
        for number in range(1, count + 1):
            features = 2 * min(2 ** (group - 1), 8)
            kernel, bias = published.draw(rng, 3, 3, channels, features), rng.normal(size=features).astype(np.float32)
            tensors |= {f"features.{index}.weight": kernel.transpose(3, 2, 0, 1), f"features.{index}.bias": bias}
            places[f"conv{group}_{number}"] = kernel, bias
            channels, index = features, index + 1
            if batch_norm:
                for leaf in ("weight", "bias", "running_mean", "running_var"):
                    tensors[f"features.{index}.{leaf}"] = rng.uniform(0.5, 1, features).astype(np.float32)
                index += 1
            index += 1
        index += 1
    tensors |= {"pre_logits.fc1.weight": np.zeros((8, 16, 7, 7), np.float32)}
    path = torch_files.save(tmp_path / "vgg.safetensors", tensors)
    taken, _, variables = start(on(VGGConfig(width=2, batch_norm=batch_norm)), path)
    assert taken.facts["file"] == {"layout": "torchvision's VGG-16", "normalisation": "imagenet"}
    assert len(taken.values) == (78 if batch_norm else 26)
    for name, (kernel, bias) in places.items():
        layer = variables["params"]["backbone"][name]
        np.testing.assert_array_equal(layer["kernel"], kernel)
        np.testing.assert_array_equal(layer["bias"], bias)
    flag = "batch-norm" if batch_norm else "no-batch-norm"
    with pytest.raises(InputError, match=f"set --segmenter.net.backbone.{flag}, or"):
        start(on(VGGConfig(width=2, batch_norm=not batch_norm)), path)
    with pytest.raises(
        InputError, match="normalisation imagenet, .*; set --segmenter.net.backbone.normalisation image"
    ):
        start(on(VGGConfig(width=2, batch_norm=batch_norm, normalisation="caffe")), path)


def test_the_text_detector_craft_lacks_a_convolution(start, tmp_path):
    widths, tensors = (2, 2, 4, 4, 8, 8, 8, 16, 16, 16, 16, 16), {}
    for index, (slice_, width, before) in zip(
        (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37),
        zip((1, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4), widths, (3, *widths), strict=False),
        strict=True,
    ):
        owner = f"basenet.slice{slice_}"
        tensors |= {f"{owner}.{index}.weight": np.zeros((width, before, 3, 3), np.float32)}
        tensors |= {f"{owner}.{index}.bias": np.zeros(width, np.float32)}
        leaves = ("weight", "bias", "running_mean", "running_var")
        tensors |= {f"{owner}.{index + 1}.{leaf}": np.ones(width, np.float32) for leaf in leaves}
    tensors["basenet.slice5.1.weight"] = np.zeros((8, 16, 3, 3), np.float32)
    path = torch_files.save(tmp_path / "craft.safetensors", tensors)
    with pytest.raises(InputError, match=r"6 are missing .*'params/backbone/conv5_3/kernel'\], 0 have no"):
        start(on(VGGConfig(width=2, batch_norm=True)), path)


def _layer_norm(x, scale, bias):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale + bias


def _transformer(image, tensors, blocks, heads):
    """Patches of a DINOv2 whose positions are the same for all patches, in Hugging Face's names."""
    erf = np.vectorize(math.erf)
    get = lambda key: tensors[key].astype(np.float64)
    dense = lambda x, key: x @ get(f"{key}.weight").T + get(f"{key}.bias")
    norm = lambda x, key: _layer_norm(x, get(f"{key}.weight"), get(f"{key}.bias"))
    rows, columns = image.shape[0] // 14, image.shape[1] // 14
    tiles = image.reshape(rows, 14, columns, 14, 3).transpose(0, 2, 4, 1, 3).reshape(rows * columns, -1)
    kernel = get("embeddings.patch_embeddings.projection.weight")
    patches = tiles @ kernel.reshape(len(kernel), -1).T + get("embeddings.patch_embeddings.projection.bias")
    positions = get("embeddings.position_embeddings")[0]
    x = np.concatenate([get("embeddings.cls_token")[0] + positions[:1], patches + positions[1]])
    for index in range(blocks):
        start = f"encoder.layer.{index}"
        y = norm(x, f"{start}.norm1")
        query, key, value = (
            dense(y, f"{start}.attention.attention.{part}").reshape(len(x), heads, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1]))
        y = (scores / scores.sum(-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(x.shape)
        x = x + dense(y, f"{start}.attention.output.dense") * get(f"{start}.layer_scale1.lambda1")
        y = dense(norm(x, f"{start}.norm2"), f"{start}.mlp.fc1")
        y = dense(y * (1 + erf(y / np.sqrt(2))) / 2, f"{start}.mlp.fc2")
        x = x + y * get(f"{start}.layer_scale2.lambda1")
    return norm(x, "layernorm")[1:].reshape(rows, columns, -1)


def test_dinov2_starts_from_hugging_faces_files(start, tmp_path, monkeypatch):
    width, blocks = 8, 4
    monkeypatch.setitem(dinov2.SIZES, "small", dinov2.Size(width, blocks, 2))
    rng = np.random.default_rng(4)
    shapes = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.mask_token": (1, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, 14, 14),
        "embeddings.patch_embeddings.projection.bias": (width,),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
    }
    for index in range(blocks):
        start_ = f"encoder.layer.{index}"
        dense = {f"attention.attention.{part}": (width, width) for part in ("query", "key", "value")}
        dense |= {
            "attention.output.dense": (width, width),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }
        for name, shape in dense.items():
            shapes |= {f"{start_}.{name}.weight": shape, f"{start_}.{name}.bias": shape[:1]}
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"{start_}.{name}"] = (width,)
        shapes |= {f"{start_}.layer_scale{n}.lambda1": (width,) for n in (1, 2)}
    tensors = {
        key: (rng.normal(size=shape) * (0.05 if len(shape) == 4 else 0.4)).astype(np.float32)
        for key, shape in shapes.items()
    }
    positions = rng.normal(size=(2, width)).astype(np.float32)
    tensors["embeddings.position_embeddings"] = np.concatenate([positions[:1], np.tile(positions[1:], (37**2, 1))])[
        None
    ]
    path = torch_files.save(tmp_path / "dinov2.safetensors", tensors)
    taken, module, variables = start(on(DINOv2Config()), path, side=28)
    assert taken.facts["file"] == {"layout": "DINOv2", "normalisation": "imagenet"}
    assert list(taken.facts["unused"]) == ["embeddings.mask_token"]
    assert_close(compute(module, variables, last_features), _transformer(IMAGENET_IMAGE, tensors, blocks, 2))
    with pytest.raises(InputError, match="without registers.*; set --segmenter.net.backbone.no-registers, or"):
        start(on(DINOv2Config(registers=True)), path, side=28)


def test_a_run_records_what_its_net_started_from(tmp_path, tiny_data, caplog):
    units, run = published.resnet(18, 2), tmp_path / "run"
    tensors = published.in_torch(units) | {"fc.weight": np.zeros((5, 16), np.float32)}
    stated = {"licence": "bsd-3-clause", "source": "https://example.org/r18", "other": "x"}
    path = torch_files.save(tmp_path / "r18.safetensors", tensors, **stated)
    net = on(ResNetConfig(depth=18, width=2, frozen=5))
    config = tiny.supervised_config(steps=1, net=net, init_from=str(path))
    with tiny.little_optimised():
        runs.train(config, run, data_dir=tiny_data, mesh=tiny.mesh())
    assert "random values" not in caplog.text
    facts = json.loads((run / "segmenter" / "DONE").read_text())["init_from"]["segmenter"]
    implied = {"layout": "torchvision's ResNet", "geometry": "torchvision", "normalisation": "imagenet"}
    assert facts["file"] == {**implied, "licence": "bsd-3-clause", "source": "https://example.org/r18"}
    assert facts["unused"] == {"fc.weight": "no place in the net"}
    assert facts["used"]["layer2.0.downsample.0.weight"] == [
        "params/backbone/layer2_block0/downsample_conv/kernel",
        [1, 1, 2, 4],
    ]
    assert len(facts["used"]) == facts["arrays"] == 100
    brief = json.loads((run / "summary.json").read_text())["stages"][-1]["init_from"]["segmenter"]
    assert brief == {key: value for key, value in facts.items() if key != "used"}
    # Frozen parameters and statistics are still those of the file.
    stored = tiny.stored(run)
    np.testing.assert_array_equal(stored["segmenter/segmenter/batch_stats/backbone/bn1/var"], units[0, 0, 1]["var"])
    # Another run that starts from its net must agree in what parameters do not show.
    other = on(ResNetConfig(depth=18, width=2, normalisation="caffe"))
    origin = f"{run}:segmenter/segmenter"
    with pytest.raises(
        InputError, match=f"init_from {origin}: .*; set --segmenter.net.backbone.normalisation imagenet"
    ):
        runs.train(
            tiny.supervised_config(steps=1, net=other, init_from=origin), tmp_path / "b", data_dir=tiny_data,
            mesh=tiny.mesh(),
        )  # fmt: skip
    done = run / "segmenter" / "DONE"
    done.write_text(done.read_text().replace("bsd-3-clause", "bsd-4-clause"))
    with pytest.raises(InputError, match=f"init_from {origin}: .*DONE"):
        runs.train(
            tiny.supervised_config(steps=1, net=net, init_from=origin), tmp_path / "c", data_dir=tiny_data,
            mesh=tiny.mesh(),
        )  # fmt: skip
