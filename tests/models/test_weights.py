"""Weights of PyTorch's layout: what they compute here, and what is refused."""

import functools
import json
import pathlib
import re
import sys
import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from scarce_jax.errors import InputError
from scarce_jax.models import resnet, weights
from scarce_jax.models.pspnet import PSPNet
from scarce_jax.models.resnet import ResNet, ResNetConfig
from scarce_jax.models.vgg import VGG16Trunk
from tests import torch_files
from tests.models import vgg_nets
from tests.models.golden import recipe

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "resnet.npz")
PLAIN = {"strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1)}


class Wrapped(resnet.nn.Module):
    """An undilated encoder under the name that it has in nets."""

    depth: int
    width: int

    def setup(self):
        self.backbone = ResNet(self.depth, width=self.width, **PLAIN)

    def __call__(self, image):
        _, *layers = self.backbone(image, train=False).values()
        return layers


class WithAux(PSPNet):
    """A PSPNet whose auxiliary logits can be had at layer3's size, with running statistics."""

    def evaluate(self, image):
        layer3 = self.backbone(image, train=False)["layer3"]
        return self(image, train=False)[0].full(), self.aux_classifier((self.aux_block((layer3,), train=False),))


DEEP_STEM = {
    "backbone": ResNetConfig(depth=50, width=recipe.WIDTH["pspnet"], deep_stem=True).build(8),
    "width": recipe.WIDTH["pspnet"],
}
NETS = {
    "basic": Wrapped(18, recipe.WIDTH["basic"]),
    "bottleneck": Wrapped(50, recipe.WIDTH["bottleneck"]),
    "pspnet": WithAux(recipe.CLASSES, **DEEP_STEM),
}


def tensors(case):
    """Every array of a case as a file of PyTorch holds it."""
    shapes = json.loads(GOLDEN[f"{case}/shapes"].tobytes())
    return {key: recipe.weight(key, shape) for key, shape in shapes.items()}


@functools.lru_cache
def shapes(net, **options):
    image = jax.ShapeDtypeStruct((1, 33, 33, 3), jnp.float32)
    return weights.flat_shapes(jax.eval_shape(functools.partial(net.init, **options), jax.random.key(0), image))


@pytest.mark.parametrize("case", ["basic", "bottleneck", "pspnet"])
def test_forward_pass_is_that_of_pytorch(case, tmp_path):
    net = NETS[case]
    options = {"train": False} if case == "pspnet" else {}
    expected = shapes(net, **options)
    imported = weights.import_weights(torch_files.save(tmp_path / "w.safetensors", tensors(case)), expected)
    assert imported.values.keys() == expected.keys()
    assert set(imported.unused) == (set() if case == "pspnet" else {"fc.weight", "fc.bias"})
    method = {"method": "evaluate"} if case == "pspnet" else {}
    # Compiled without optimisation: that takes a third of the time.
    run = jax.jit(functools.partial(net.apply, **method), compiler_options={"xla_backend_optimization_level": 0})
    results = run(weights.overlay({}, imported.values), recipe.image())
    assert len(results) == (2 if case == "pspnet" else 4)
    for index, result in enumerate(results):
        stored = GOLDEN[f"{case}/{index}"]
        assert stored.std() > 0.1
        np.testing.assert_allclose(recipe.sample(np.asarray(result)), stored, rtol=0, atol=2e-5)


@pytest.fixture
def basic(tmp_path):
    """Writes the small ResNet-18 with some arrays changed (None: left out), and imports it for a net."""

    def run(net=NETS["basic"], name="w.safetensors", **changes):
        arrays = {**tensors("basic"), **{key.replace("__", "."): value for key, value in changes.items()}}
        path = torch_files.save(tmp_path / name, {key: value for key, value in arrays.items() if value is not None})
        return weights.import_weights(path, net if isinstance(net, dict) else shapes(net))

    return run


def test_another_architecture_is_refused_by_name(basic, tmp_path):
    with pytest.raises(
        InputError, match="looks like ResNet-18, and the net is ResNet-34; set --STAGE.net.backbone.depth 18, or"
    ):
        basic(Wrapped(34, 16))
    with pytest.raises(InputError, match="looks like ResNet-18, and the net is ResNet-50"):
        basic(Wrapped(50, 16))
    with pytest.raises(
        InputError, match="looks like a ResNet of width 16, and the net is a ResNet of width 64; set .*width 16"
    ):
        basic(Wrapped(18, 64))
    deeper = {
        f"layer3.{block}.{key[9:]}": x
        for block in range(2, 36)
        for key, x in tensors("basic").items()
        if "layer3.1" in key
    }
    with pytest.raises(
        InputError, match="looks like a ResNet with 2, 2, 36, 2 basic blocks, .* is ResNet-18; use another"
    ):
        basic(**deeper)
    path = torch_files.save(tmp_path / "deep.safetensors", tensors("pspnet"))
    with pytest.raises(InputError, match="a ResNet with the deep stem .* the 7x7 stem; set .*backbone.deep-stem,"):
        weights.import_weights(path, shapes(Wrapped(50, 8)))
    with pytest.raises(InputError, match=r"layer1\.0\.se\.fc1\.weight is not part of a ResNet in torchvision's layout"):
        basic(layer1__0__se__fc1__weight=np.zeros((4, 4, 1, 1), np.float32))
    with pytest.raises(
        InputError,
        match=r"holds a VGG-16 \(torchvision's VGG-16\), and the net has a ResNet; set --STAGE.net.backbone vgg16",
    ):
        weights.import_weights(
            torch_files.save(tmp_path / "vgg.safetensors", {"features.0.weight": np.zeros((4, 3, 3, 3), np.float32)}),
            shapes(NETS["basic"]),
        )
    with pytest.raises(InputError, match="holds a ResNet .*, and the net has no backbone that can be pretrained; use"):
        path = torch_files.save(tmp_path / "w.safetensors", tensors("basic"))
        weights.import_weights(path, {"params/conv/kernel": (3, 3, 3, 8)})


def test_missing_additional_and_misshapen_arrays_are_refused(basic):
    with pytest.raises(
        InputError, match=r"1 are missing \['batch_stats/backbone/bn1/var'\], 0 have no place in the net"
    ):
        basic(bn1__running_var=None)
    with pytest.raises(
        InputError, match=r"0 are missing \[\], 1 have no .* \['params/backbone/layer2_block0/conv1/bias'\]"
    ):
        basic(layer2__0__conv1__bias=np.zeros(32, np.float32))
    with pytest.raises(
        InputError, match=r"layer2_block1/conv1/kernel has shape \[1, 1, 32, 32\], expected \[3, 3, 32, 32\]"
    ):
        basic(layer2__1__conv1__weight=np.zeros((32, 32, 1, 1), np.float32))
    with pytest.raises(InputError, match=r"bn1\.running_mean holds values that are not finite"):
        basic(bn1__running_mean=np.full(16, np.nan, np.float32))


class OnVGG(resnet.nn.Module):
    """A VGG-16 under the name that it has in nets, and fc6 and fc7 as convolutions over what it gives."""

    width: int
    batch_norm: bool = False
    fc6: int = 7
    hidden: int = 0

    @resnet.nn.compact
    def __call__(self, image):
        x = VGG16Trunk(self.width, self.batch_norm, name="backbone")(image, train=False)["layer5"]
        if self.hidden:
            y = resnet.nn.Conv(self.hidden, (self.fc6, self.fc6), name="fc6")(x)
            resnet.nn.Conv(self.hidden, (1, 1), name="fc7")(y)
        return x


@functools.lru_cache
def vgg_shapes(width=recipe.WIDTH["vgg16"], **fields):
    return weights.flat_shapes(
        jax.eval_shape(OnVGG(width, **fields).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    )


CLASSIFIER = {f"classifier.{index}.{leaf}" for index in (0, 3, 6) for leaf in ("weight", "bias")}


@pytest.mark.parametrize("case", ["vgg16", "vgg16_bn"])
def test_vgg_forward_pass_is_that_of_pytorch(case, tmp_path):
    net = OnVGG(recipe.WIDTH[case], case == "vgg16_bn")
    expected = vgg_shapes(batch_norm=net.batch_norm)
    imported = weights.import_weights(torch_files.save(tmp_path / "w.safetensors", vgg_nets.tensors(case)), expected)
    assert imported.values.keys() == expected.keys()
    assert set(imported.unused) == CLASSIFIER
    features = vgg_nets.compiled(net.apply)(weights.overlay({}, imported.values), recipe.image())
    vgg_nets.assert_golden(features, case)


@pytest.fixture
def vgg(tmp_path):
    """Writes a narrow VGG-16 with some arrays changed (None: left out), and imports it for a net of these shapes."""

    def run(net=None, case="vgg16", **changes):
        arrays = {**vgg_nets.tensors(case), **{key.replace("__", "."): value for key, value in changes.items()}}
        present = {key: value for key, value in arrays.items() if value is not None}
        return weights.import_weights(torch_files.save(tmp_path / "w.safetensors", present), net or vgg_shapes())

    return run


def test_another_vgg_is_refused_by_name(vgg, basic):
    with pytest.raises(
        InputError,
        match="a VGG-16 with batch normalisation, and the net is a VGG-16 without .*; set .*backbone.batch-norm, or",
    ):
        vgg(case="vgg16_bn")
    with pytest.raises(
        InputError,
        match="looks like a VGG-16 of width 8, and the net is a VGG-16 of width 4; set --STAGE.net.backbone.width 8",
    ):
        vgg(vgg_shapes(4))
    # VGG-19 has a fourth convolution in its third group.
    with pytest.raises(InputError, match=r"features\.16\.weight is not part of a VGG-16 in torchvision's layout"):
        vgg(features__16__weight=np.zeros((32, 32, 3, 3), np.float32))
    with pytest.raises(
        InputError, match=r"1 are missing \['params/backbone/conv5_3/bias'\], 0 have no place in the net"
    ):
        vgg(features__28__bias=None)
    with pytest.raises(InputError, match=r"conv3_1/bias has shape \[31\], expected \[32\]"):
        vgg(features__10__bias=np.zeros(31, np.float32))
    with pytest.raises(InputError, match=r"features\.28\.bias holds values that are not finite"):
        vgg(features__28__bias=np.full(64, np.nan, np.float32))
    with pytest.raises(InputError, match=r"1 are missing \['params/backbone/conv1_1/kernel'\]"):
        vgg(features__0__weight=None)
    with pytest.raises(
        InputError, match="holds a ResNet .*, and the net has a VGG-16; set --STAGE.net.backbone resnet"
    ):
        basic(vgg_shapes())


@pytest.mark.parametrize("names", [("classifier.0", "classifier.3"), ("pre_logits.fc1", "pre_logits.fc2")])
def test_fully_connected_layers_become_convolutions(names, tmp_path):
    arrays = vgg_nets.tensors("vgg16")
    weight, bias = arrays["classifier.0.weight"], arrays["classifier.0.bias"]
    x = recipe.uniform("pool5", (2, 7, 7, weight.shape[1] // 49), -1, 1)
    fc6 = x.transpose(0, 3, 1, 2).reshape(2, -1) @ weight.T + bias
    fc7 = fc6 @ arrays["classifier.3.weight"].T + arrays["classifier.3.bias"]
    # timm's files have them as convolutions already.
    if names[0] != "classifier.0":
        for old, new, side in zip(("classifier.0", "classifier.3"), names, (7, 1), strict=True):
            value = arrays.pop(f"{old}.weight")
            arrays[f"{new}.weight"] = value.reshape(len(value), -1, side, side)
            arrays[f"{new}.bias"] = arrays.pop(f"{old}.bias")
    expected = vgg_shapes(hidden=len(weight))
    imported = weights.import_weights(torch_files.save(tmp_path / "w.safetensors", arrays), expected)
    assert imported.values.keys() == expected.keys()
    assert set(imported.unused) == {"classifier.6.weight", "classifier.6.bias"}
    values = {name.removeprefix("params/"): value for name, value in imported.values.items()}
    y = np.einsum("bijc,ijcf->bf", x, values["fc6/kernel"]) + values["fc6/bias"]
    np.testing.assert_allclose(y, fc6, atol=1e-4)
    np.testing.assert_allclose(y @ values["fc7/kernel"][0, 0] + values["fc7/bias"], fc7, atol=1e-4)


def test_large_field_of_view_gets_every_third_row_and_fourth_channel(vgg):
    arrays = vgg_nets.tensors("vgg16")
    weight = arrays["classifier.0.weight"]
    hidden = len(weight) // 4
    imported = vgg(vgg_shapes(hidden=hidden, fc6=3))
    assert set(imported.unused) == {"classifier.6.weight", "classifier.6.bias"}
    square = weight.reshape(len(weight), -1, 7, 7)
    kernel = imported.values["params/fc6/kernel"]
    assert kernel.shape == (3, 3, square.shape[1], hidden)
    for place in ((0, 0, 5, 1), (2, 1, 0, hidden - 1), (1, 2, 63, 0)):
        i, j, c, f = place
        assert kernel[place] == square[4 * f, c, 3 * i, 3 * j]
    np.testing.assert_array_equal(imported.values["params/fc6/bias"], arrays["classifier.0.bias"][::4])
    np.testing.assert_array_equal(imported.values["params/fc7/kernel"][0, 0], arrays["classifier.3.weight"][::4, ::4].T)
    np.testing.assert_array_equal(imported.values["params/fc7/bias"], arrays["classifier.3.bias"][::4])


@pytest.mark.parametrize("fields", [{"fc6": 5, "hidden": 128}, {"hidden": 100}, {"hidden": 256}])
def test_fully_connected_layers_that_do_not_fit_stay_as_they_are(vgg, fields):
    imported = vgg(vgg_shapes(**fields))
    assert set(imported.unused) == CLASSIFIER
    assert {name.split("/")[1] for name in imported.values} == {"backbone"}


def test_half_precision_is_widened(basic):
    values = np.linspace(-1, 1, 16)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        bias = basic(bn1__bias=values.astype(dtype)).values["params/backbone/bn1/bias"]
        assert bias.dtype == np.float32
        np.testing.assert_array_equal(bias, values.astype(dtype).astype(np.float32))


def test_heads_of_other_classes_stay_as_they_are(tmp_path):
    path = torch_files.save(tmp_path / "w.safetensors", tensors("pspnet"))
    net = PSPNet(recipe.CLASSES + 2, **DEEP_STEM)
    expected = shapes(net, train=False)
    imported = weights.import_weights(path, expected)
    assert set(imported.unused) == {f"{head}.4.{leaf}" for head in ("cls", "aux") for leaf in ("weight", "bias")}
    assert {name.split("/")[1] for name in set(expected) - set(imported.values)} == {"classifier", "aux_classifier"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "file not fully covered"),
        (lambda data: data[:100], "invalid header length"),
        (lambda data: b"", "header too small"),
        (lambda data: data[:8] + b"x" + data[9:], "invalid JSON in header"),
        (lambda data: data.replace(b'"F32"', b'"F99"', 1), "unknown variant `F99`"),
        (lambda data: b"<html>" + data, "header too large"),
    ],
)
def test_damaged_file_is_named(damage, message, tmp_path):
    path = torch_files.save(tmp_path / "w.safetensors", tensors("basic"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        InputError, match=f"w.safetensors: damaged, or not a .safetensors file .*{message}.*; fetch it again"
    ):
        weights.read_file(path)


def test_pth_needs_torch(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="reading .pth files needs PyTorch; install torch, or convert"):
        weights.read_file(path)


class Tensor:
    """As much of a PyTorch tensor as is used."""

    def __init__(self, value):
        self.value = value

    def float(self):
        return self.value


def test_pth_is_read_with_weights_only(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    path.write_bytes(b"x")
    wrapped = {"epoch": 3, "state_dict": {f"module.{key}": Tensor(value) for key, value in tensors("basic").items()}}
    arguments = {}

    def load(source, **options):
        arguments.update(options, path=source)
        return wrapped

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load, __version__="2.10.0+cpu"))
    imported = weights.import_weights(path, shapes(NETS["basic"]))
    assert arguments == {"path": path, "map_location": "cpu", "weights_only": True}
    np.testing.assert_array_equal(imported.values["params/backbone/bn1/bias"], recipe.weight("bn1.bias", (16,)))
    wrapped = [1, 2]
    with pytest.raises(InputError, match="w.pth: PyTorch reads no state dict from it"):
        weights.read_file(path)


def test_hub_names_are_downloaded(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"x")
    asked = []
    hub = types.SimpleNamespace(hf_hub_download=lambda *names: asked.append(names) or str(path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert weights.locate("hf:timm/resnet50.tv_in1k") == path
    assert asked == [("timm/resnet50.tv_in1k", "model.safetensors")]

    def fail(*names):
        raise ConnectionError("no route\nto host")

    hub.hf_hub_download = fail
    with pytest.raises(InputError, match="cannot be downloaded .ConnectionError: no route.; check name and network"):
        weights.locate("hf:timm/resnet50.tv_in1k")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        InputError,
        match="needs the package huggingface_hub .* download https://huggingface.co/timm/x/resolve/main/model.saf",
    ):
        weights.locate("hf:timm/x")
    with pytest.raises(InputError, match="weights nowhere.pth: no such file"):
        weights.locate("nowhere.pth")


def _header(text: bytes, data: bytes = bytes(64)) -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def _tensor(**changes) -> bytes:
    return _header(json.dumps({"a": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64], **changes}}).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        _header(b"[]"),
        _header(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        (1 << 62).to_bytes(8, "little") + b"{}",
        _tensor(data_offsets=[-64, 0]),
        _tensor(data_offsets=[64, 0]),
        _tensor(data_offsets=[0, 128], shape=[32]),
        _tensor(shape=[-16]),
        _tensor(shape=[2**62, 16]),
        _tensor(dtype="F8_E4M3", shape=[64]),
        _tensor(dtype="no type"),
    ],
)
def test_a_hostile_safetensors_file_is_one_message(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path}: damaged, or not a .safetensors file"):
        weights.read_file(path)


@pytest.mark.parametrize("version", ["2.5.1", "1.13.1+cu117", "2.0.0a0+git1"])
def test_a_pytorch_that_may_run_code_of_a_file_is_refused(tmp_path, monkeypatch, version):
    torch = types.ModuleType("torch")
    torch.__version__ = version
    monkeypatch.setitem(sys.modules, "torch", torch)
    with pytest.raises(InputError, match=f"PyTorch {re.escape(version)} may run code.*update torch to 2.6"):
        weights.read_file(tmp_path / "w.pth")
