"""Files of Keras: HDF5, models of TensorFlow.js, and names that are like those of other nets."""

import json
import sys

import numpy as np
import pytest

from scarce_jax.errors import InputError
from scarce_jax.models import weights
from tests import published

VGG = (2, 2, 3, 3, 3)


def vgg(name):
    """Arrays of a narrow VGG-16, by `name(group, number, leaf)`."""
    rng, channels, tensors = np.random.default_rng(0), 3, {}
    for group, count in enumerate(VGG, start=1):
        for number in range(1, count + 1):
            features = 2 * min(2 ** (group - 1), 8)
            tensors[name(group, number, "kernel")] = published.draw(rng, 3, 3, channels, features)
            tensors[name(group, number, "bias")] = np.full(features, number, np.float32)
            channels = features
    return tensors


def applications(group, number, leaf):
    return f"block{group}_conv{number}/{leaf}"


def keras3(group, number, leaf):
    layer = "conv2d" if number == 1 else f"conv2d_{number - 1}"
    return f"block{group}/layers/{layer}/vars/{('kernel', 'bias').index(leaf)}"


def first_release(group, number, leaf):
    layer = f"block{group}_conv{number}"
    return f"{layer}/{layer}_{'W_1' if leaf == 'kernel' else 'b_1'}"


@pytest.mark.parametrize("name", [applications, keras3, first_release])
def test_a_vgg_has_the_same_arrays_whatever_their_names(name, tmp_path):
    tensors = vgg(name)
    places = [
        (g, n, leaf) for g, count in enumerate(VGG, 1) for n in range(1, count + 1) for leaf in ("kernel", "bias")
    ]
    shapes = {f"params/backbone/conv{g}_{n}/{leaf}": tensors[name(g, n, leaf)].shape for g, n, leaf in places}
    path = published.save_tfjs(tmp_path / "vgg", tensors | {"fuse/vars/0": np.zeros((1, 1, 5, 1), np.float32)})
    imported = weights.import_weights(path, shapes)
    assert imported.facts == {"layout": "Keras' VGG-16", "normalisation": "caffe"}
    assert set(imported.unused) == {"fuse/vars/0"}
    assert imported.values.keys() == shapes.keys()
    for group, number, leaf in ((1, 1, "kernel"), (3, 3, "kernel"), (5, 2, "bias")):
        found = imported.values[f"params/backbone/conv{group}_{number}/{leaf}"]
        np.testing.assert_array_equal(found, tensors[name(group, number, leaf)])


def test_a_resnet_that_normalises_first_is_refused(tmp_path):
    tensors = published.in_keras(published.resnet(50, 2, biases=True), new=True)
    tensors["conv2_block1_preact_bn/gamma"] = np.ones(2, np.float32)
    with pytest.raises(InputError, match="conv2_block1_preact_bn/gamma is part of a ResNetV2"):
        weights.describe(published.save_tfjs(tmp_path / "v2", tensors))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("weightsManifest"), "not the model.json of a TensorFlow.js model .KeyError"),
        (lambda c: c["weightsManifest"][0]["weights"][0].update(dtype="uint8"), "is not float32, or quantised"),
        (lambda c: c["weightsManifest"][0]["weights"][0].update(shape=[-1]), "the shape of .* is .-1."),
        (lambda c: c["weightsManifest"][0].update(paths=["/etc/passwd"]), "not names of files beside it"),
        (lambda c: c["weightsManifest"][0]["weights"][0].update(shape=[2**40]), "bytes of arrays, expected"),
    ],
)
def test_a_hostile_model_json_is_one_message(change, message, tmp_path):
    path = published.save_tfjs(tmp_path / "vgg", vgg(applications))
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"{path}: .*{message}"):
        weights.describe(path)


def test_the_hash_of_a_model_json_is_that_of_its_arrays_too(tmp_path):
    path = published.save_tfjs(tmp_path / "vgg", vgg(applications))
    before = weights.file_hash(path)
    shard = path.with_name("group1-shard2of2.bin")
    shard.write_bytes(bytes(x ^ 1 for x in shard.read_bytes()))
    assert weights.file_hash(path) != before


def test_hdf5_needs_h5py(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"w\.h5: reading .h5 files needs h5py; install it: `pip install 'scarce-jax"):
        weights.read_file(tmp_path / "w.h5")


def test_hdf5_is_read_without_its_links(tmp_path):
    h5py = pytest.importorskip("h5py")
    path, tensors = tmp_path / "vgg.h5", vgg(applications)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.zeros(3, np.float32)
    with h5py.File(path, "w") as file:
        for key, value in tensors.items():
            layer, leaf = key.split("/")
            file[f"{layer}/{layer}/{leaf}:0"] = value
        file["link"] = h5py.ExternalLink("other.h5", "secret")
    found = weights.read_file(path).tensors
    assert found.keys() == tensors.keys()
    np.testing.assert_array_equal(found["block2_conv1/kernel"], tensors["block2_conv1/kernel"])
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="damaged, or not an HDF5 file"):
        weights.read_file(path)
