"""Weights of PyTorch's layout: what they compute here, and what is refused."""

import functools
import json
import pathlib
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
from scarce_jax.models.resnet import ResNet
from tests import torch_files
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
        return list(self.backbone(image, train=False).values())


class WithAux(PSPNet):
    """A PSPNet whose auxiliary logits can be had at layer3's size, with running statistics."""

    def evaluate(self, image):
        layer3 = self.backbone(image, train=False)["layer3"]
        return self(image, train=False)[0], self.aux_classifier((self.aux_block((layer3,), train=False),))


NETS = {
    "basic": Wrapped(18, recipe.WIDTH["basic"]),
    "bottleneck": Wrapped(50, recipe.WIDTH["bottleneck"]),
    "pspnet": WithAux(recipe.CLASSES, 50, recipe.WIDTH["pspnet"], deep_stem=True),
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
    found = weights.import_weights(torch_files.save(tmp_path / "w.safetensors", tensors(case)), expected)
    assert found.values.keys() == expected.keys()
    assert set(found.unused) == (set() if case == "pspnet" else {"fc.weight", "fc.bias"})
    method = {"method": "evaluate"} if case == "pspnet" else {}
    # Compiled without optimisation: that takes a third of the time.
    run = jax.jit(functools.partial(net.apply, **method), compiler_options={"xla_backend_optimization_level": 0})
    results = run(weights.overlay({}, found.values), recipe.image())
    assert len(results) == (2 if case == "pspnet" else 4)
    for index, result in enumerate(results):
        stored = GOLDEN[f"{case}/{index}"]
        assert stored.std() > 0.1
        np.testing.assert_allclose(recipe.sample(np.asarray(result)), stored, rtol=0, atol=2e-5)


@pytest.fixture
def basic(tmp_path):
    """Writes the small ResNet-18 with some arrays changed (None: left out), and imports it for a net."""

    def run(net=NETS["basic"], name="w.safetensors", **changes):
        made = {**tensors("basic"), **{key.replace("__", "."): value for key, value in changes.items()}}
        path = torch_files.save(tmp_path / name, {key: value for key, value in made.items() if value is not None})
        return weights.import_weights(path, shapes(net))

    return run


def test_another_architecture_is_refused_by_name(basic, tmp_path):
    with pytest.raises(InputError, match="looks like ResNet-18, and the net is ResNet-34; set the stage's depth"):
        basic(Wrapped(34, 16))
    with pytest.raises(InputError, match="looks like ResNet-18, and the net is ResNet-50"):
        basic(Wrapped(50, 16))
    with pytest.raises(
        InputError, match="looks like a ResNet of width 16, and the net is a ResNet of width 64; set .* wi"
    ):
        basic(Wrapped(18, 64))
    deeper = {
        f"layer3.{block}.{key[9:]}": x
        for block in range(2, 36)
        for key, x in tensors("basic").items()
        if "layer3.1" in key
    }
    with pytest.raises(InputError, match="looks like a ResNet with 2, 2, 36, 2 basic blocks, and the net is ResNet-18"):
        basic(**deeper)
    path = torch_files.save(tmp_path / "deep.safetensors", tensors("pspnet"))
    with pytest.raises(
        InputError, match="a ResNet with the deep stem .* the net is a ResNet with the 7x7 stem; name a"
    ):
        weights.import_weights(path, shapes(Wrapped(50, 8)))
    with pytest.raises(InputError, match=r"layer1\.0\.se\.fc1\.weight is of no ResNet in torchvision's layout"):
        basic(layer1__0__se__fc1__weight=np.zeros((4, 4, 1, 1), np.float32))
    with pytest.raises(InputError, match="found no ResNet in torchvision's layout in it"):
        weights.import_weights(
            torch_files.save(tmp_path / "vgg.safetensors", {"features.0.weight": np.zeros((4, 3, 3, 3), np.float32)}),
            shapes(NETS["basic"]),
        )
    with pytest.raises(InputError, match="the net has no ResNet to fill"):
        path = torch_files.save(tmp_path / "w.safetensors", tensors("basic"))
        weights.import_weights(path, {"params/conv/kernel": (3, 3, 3, 8)})


def test_missing_additional_and_misshapen_arrays_are_refused(basic):
    with pytest.raises(InputError, match=r"1 missing \['batch_stats/backbone/bn1/var'\], 0 that the net"):
        basic(bn1__running_var=None)
    with pytest.raises(InputError, match=r"0 missing \[\], 1 that .* \['params/backbone/layer2_block0/conv1/bias'\]"):
        basic(layer2__0__conv1__bias=np.zeros(32, np.float32))
    with pytest.raises(
        InputError, match=r"layer2_block1/conv1/kernel has shape \[1, 1, 32, 32\], expected \[3, 3, 32, 32\]"
    ):
        basic(layer2__1__conv1__weight=np.zeros((32, 32, 1, 1), np.float32))
    with pytest.raises(InputError, match=r"bn1\.running_mean holds values that are not finite"):
        basic(bn1__running_mean=np.full(16, np.nan, np.float32))


def test_half_precision_is_widened(basic):
    values = np.linspace(-1, 1, 16)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        found = basic(bn1__bias=values.astype(dtype)).values["params/backbone/bn1/bias"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, values.astype(dtype).astype(np.float32))


def test_heads_of_other_classes_stay_as_they_are(tmp_path):
    path = torch_files.save(tmp_path / "w.safetensors", tensors("pspnet"))
    net = PSPNet(recipe.CLASSES + 2, 50, recipe.WIDTH["pspnet"], deep_stem=True)
    expected = shapes(net, train=False)
    found = weights.import_weights(path, expected)
    assert set(found.unused) == {f"{head}.4.{leaf}" for head in ("cls", "aux") for leaf in ("weight", "bias")}
    assert {name.split("/")[1] for name in set(expected) - set(found.values)} == {"classifier", "aux_classifier"}


def test_trunk_may_have_another_name(tmp_path):
    path = torch_files.save(tmp_path / "w.safetensors", tensors("basic"))
    ours = {name.replace("/backbone/", "/encoder/"): shape for name, shape in shapes(NETS["basic"]).items()}
    assert weights.import_weights(path, ours).values.keys() == ours.keys()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "cut short, .* ends at byte"),
        (lambda data: data[:100], "no whole .safetensors file"),
        (lambda data: b"", "0 bytes are no whole .safetensors file"),
        (lambda data: data[:8] + b"x" + data[9:], "not a .safetensors file of plain arrays"),
        (lambda data: data.replace(b'"F32"', b'"F99"', 1), "not a .safetensors file of plain arrays .*F99"),
        (lambda data: b"<html>" + data, "no whole .safetensors file"),
    ],
)
def test_damaged_file_is_named(damage, message, tmp_path):
    path = torch_files.save(tmp_path / "w.safetensors", tensors("basic"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=f"w.safetensors: .*{message}"):
        weights.read_tensors(path)


def test_pth_needs_torch(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="reading .pth files needs PyTorch; install torch, or convert"):
        weights.read_tensors(path)


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
    given = {}

    def load(found, **options):
        given.update(options, path=found)
        return wrapped

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
    found = weights.import_weights(path, shapes(NETS["basic"]))
    assert given == {"path": path, "map_location": "cpu", "weights_only": True}
    np.testing.assert_array_equal(found.values["params/backbone/bn1/bias"], recipe.weight("bn1.bias", (16,)))
    wrapped = [1, 2]
    with pytest.raises(InputError, match="w.pth: PyTorch reads no state dict from it"):
        weights.read_tensors(path)


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
    with pytest.raises(InputError, match="needs the package huggingface_hub .* fetch model.safetensors of timm/x"):
        weights.locate("hf:timm/x")
    with pytest.raises(InputError, match="weights nowhere.pth: no such file"):
        weights.locate("nowhere.pth")
