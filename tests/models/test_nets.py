"""What holds for every net: the papers' sizes, output shapes, dtypes, widths, and a gradient for every parameter."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.auxiliary import AuxiliaryNet
from scarce_jax.models.cam_vgg import CamVGGConfig
from scarce_jax.models.deconvolution import DeconvNet, DeconvNetConfig
from scarce_jax.models.decoupled import DecoupledClassifier, DecoupledClassifierConfig, SegmentationNet
from scarce_jax.models.deeplab import DeepLabV2
from scarce_jax.models.deeplabv3plus import DeepLabV3Plus, DeepLabV3PlusDetailer
from scarce_jax.models.detailer import Detailer
from scarce_jax.models.dinov2 import DINOv2, DINOv2Config
from scarce_jax.models.discriminator import Discriminator
from scarce_jax.models.dsnet import DSNet, DSNetEncoder
from scarce_jax.models.fcn import FCN, FCNDetailer
from scarce_jax.models.largefov import LargeFOVConfig
from scarce_jax.models.pnet import PNet
from scarce_jax.models.pspnet import PSPNet
from scarce_jax.models.resnet import STRIDES, ResNet, ResNetConfig
from scarce_jax.models.tags import TagClassifier
from scarce_jax.models.tiny import TinyEncoder, TinyNet
from scarce_jax.models.vgg import POOLS, Pool, VGG16Trunk, VGGConfig
from scarce_jax.ops.logits import Phases, Resized
from tests.models.shapes import UNOPTIMISED, abstract, count, integers, random_variables, segmentation_inputs


@pytest.mark.parametrize(
    ("module", "inputs", "parameters"),
    [
        # torchvision's counts less the classifier's.
        (ResNet(18), [(1, 33, 33, 3)], 11_176_512),
        (ResNet(34), [(1, 33, 33, 3)], 21_284_672),
        (ResNet(50), [(1, 33, 33, 3)], 23_508_032),
        (ResNet(50, deep_stem=True), [(1, 33, 33, 3)], 23_631_808),
        (ResNet(101), [(1, 33, 33, 3)], 42_500_160),
        (VGG16Trunk(), [(1, 32, 32, 3)], 14_714_688),
        (VGG16Trunk(batch_norm=True), [(1, 32, 32, 3)], 14_723_136),
        (PSPNet(19, ResNet(101), aux=False), [(1, 33, 33, 3)], 65_583_699),
        (PSPNet(19, ResNet(101)), [(1, 33, 33, 3)], 67_948_390),
        (PSPNet(19, ResNet(101, deep_stem=True)), [(1, 33, 33, 3)], 68_072_166),
        (Detailer(19, ResNet(101), inject="before_pool"), [(1, 33, 33, 3), integers(1, 33, 33)], 73_289_190),
        (Detailer(19, ResNet(101), inject="after_pool"), [(1, 33, 33, 3), integers(1, 33, 33)], 71_650_790),
        (Detailer(19, ResNet(101), inject="after_final"), [(1, 33, 33, 3), integers(1, 33, 33)], 67_979_590),
        (Detailer(19, ResNet(101, deep_stem=True), aux=False), [(1, 33, 33, 3), integers(1, 33, 33)], 69_409_875),
        (DeepLabV2(19, ResNet(101)), [(1, 33, 33, 3)], 43_901_068),
        (DeepLabV2(21, ResNet(101)), [(1, 33, 33, 3)], 44_048_532),
        (DeepLabV3Plus(21, ResNet(50)), [(1, 33, 33, 3)], 39_761_845),
        (DeepLabV3Plus(201, ResNet(50)), [(1, 33, 33, 3)], 39_808_105),
        (DeepLabV3Plus(201, ResNet(101)), [(1, 33, 33, 3)], 58_800_233),
        # The linear head: batch normalisation and a 1x1 convolution.
        (FCN(21, DINOv2Config().build(8), 14, 0), [(1, 28, 28, 3)], 22_056_192 + 2 * 384 + 385 * 21),
        (DSNet(19), [(1, 64, 64, 3)], 2_107_027),
        (DSNet(11), [(1, 64, 64, 3)], 2_057_867),
        (LargeFOVConfig().build(21), [(1, 33, 33, 3)], 20_505_429),
        (LargeFOVConfig().build(1), [(1, 33, 33, 3)], 20_484_929),
        (LargeFOVConfig().build(2), [(1, 33, 33, 3)], 20_485_954),
        # VGG-16's, a 3x3 convolution of 512 -> 1024 channels, and the linear layer.
        (LargeFOVConfig().classifier(20), [(1, 32, 32, 3)], 14_714_688 + (9 * 512 + 1) * 1024 + 1025 * 20),
        (CamVGGConfig(backbone=VGGConfig()).classifier(200), [(1, 32, 32, 3)], 21_896_712),
        (CamVGGConfig().classifier(200), [(1, 32, 32, 3)], 21_905_160),
        (CamVGGConfig().classifier(1), [(1, 32, 32, 3)], 21_803_073),
        (DecoupledClassifierConfig().build(20), [(1, 224, 224, 3)], 134_342_484),
        # The paper's total of both nets.
        (
            DecoupledClassifierConfig().segmentation_net(),
            segmentation_inputs(64, 320),
            307_450_390 - 134_342_484,
        ),
        (DeconvNetConfig().build(21), [(1, 224, 224, 3)], 251_805_653),
        (AuxiliaryNet(19), [(1, 64, 64, 19)], 1_363_041),
        (AuxiliaryNet(11), [(1, 64, 64, 11)], 1_360_737),
        (Discriminator(19), [(1, 64, 64, 19)], 2_781_121),
        (Discriminator(21), [(1, 64, 64, 21)], 2_783_169),
        (PNet(), [(1, 321, 321, 3)], 52_843_105),
        (PNet(), [(1, 224, 224, 3)], 26_104_417),
        (PNet(), [(1, 41, 41, 3)], 1_233_505),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else "",
)
def test_parameter_counts_of_the_papers(module, inputs, parameters):
    assert count(abstract(module, *inputs)[1]["params"]) == parameters


def at_full_size(outputs):
    """A net's outputs with logits at full size."""

    def small(x):
        return isinstance(x, Resized | Phases)

    return jax.tree.map(lambda x: x.full() if small(x) else x, outputs, is_leaf=small)


def two_heads(*shape):
    return shape, shape


def one_head(*shape):
    return shape, None


def layers(shape, channels, strides=(4, 8, 8, 8), names="layer"):
    """Of an encoder's four layers, sizes rounded up."""
    batch, *size, _ = shape
    return {
        f"{names}{i}": (batch, *(-(-side // stride) for side in size), c)
        for i, (c, stride) in enumerate(zip(channels, strides, strict=True), start=1)
    }


def resnet_layers(shape, stem, *args):
    """What a ResNet returns: the output of its stem of so many channels too."""
    batch, height, width, _ = shape
    return {"stem": (batch, -(-height // 4), -(-width // 4), stem)} | layers(shape, *args)


def vgg_groups(width, *sides):
    """What a VGG-16 returns of a square image."""
    return {f"layer{i}": (1, side, side, width * min(2 ** (i - 1), 8)) for i, side in enumerate(sides, start=1)}


FINE, ODD, ONE = (1, 340, 340, 3), (1, 33, 47, 3), (1, 1, 2, 3)
CITYSCAPES, CAMVID, VOC = (1, 512, 1024, 3), (1, 360, 480, 3), (1, 321, 321, 3)
HALVED = (4, 8, 16, 32)
VGG, RESNET, CAFFE = VGGConfig(width=4), ResNetConfig(depth=18, width=4), ResNetConfig(width=4, geometry="caffe")


@pytest.mark.parametrize(
    ("module", "inputs", "expected"),
    [
        (ResNet(50), [FINE], resnet_layers(FINE, 64, (256, 512, 1024, 2048))),
        (ResNet(50, width=4), [(1, 850, 713, 3)], resnet_layers((1, 850, 713, 3), 4, (16, 32, 64, 128))),
        (ResNet(18, width=8), [ODD], resnet_layers(ODD, 8, (8, 16, 32, 64))),
        (
            ResNet(50, 4, **STRIDES[32]),
            [(1, 224, 224, 3)],
            resnet_layers((1, 224, 224, 3), 4, (16, 32, 64, 128), HALVED),
        ),
        (VGG16Trunk(), [(1, 224, 224, 3)], vgg_groups(64, 112, 56, 28, 14, 7)),
        (VGG16Trunk(4, pools=POOLS, dilation=2), [VOC], vgg_groups(4, 160, 80, 40, 20, 10)),
        (VGG16Trunk(4, pools=(*POOLS[:4], None)), [VOC], vgg_groups(4, 160, 80, 40, 20, 20)),
        # The trunk of online attention accumulation (Jiang et al., 2019).
        (VGGConfig(width=4).build(8), [(1, 352, 352, 3)], vgg_groups(4, 176, 88, 44, 44, 44)),
        (
            VGG16Trunk(4, pools=(Pool(3, 2, 1),) * 3 + (Pool(3, 1, 1),) * 2, dilation=2),
            [VOC],
            vgg_groups(4, 161, 81, 41, 41, 41),
        ),
        (VGG16Trunk(4, pools=(None,) * 5), [(1, 17, 17, 3)], vgg_groups(4, 17, 17, 17, 17, 17)),
        (PSPNet(19, ResNet(18)), [(2, 340, 340, 3)], two_heads(2, 340, 340, 19)),
        (PSPNet(19, ResNet(18)), [(2, 850, 850, 3)], two_heads(2, 850, 850, 19)),
        (PSPNet(19, ResNet(18), aux=False), [ODD], one_head(1, 33, 47, 19)),
        (Detailer(19, ResNet(101)), [FINE, integers(1, 340, 340)], two_heads(1, 340, 340, 19)),
        (DeepLabV2(21, ResNet(101)), [VOC], one_head(1, 321, 321, 21)),
        (DeepLabV2(21, ResNet(18)), [CITYSCAPES], one_head(1, 512, 1024, 21)),
        (DeepLabV3Plus(201, ResNet(50)), [(2, 352, 352, 3)], one_head(2, 352, 352, 201)),
        (DeepLabV3Plus(21, ResNet(18, **STRIDES[16]), output_stride=16), [ODD], one_head(1, 33, 47, 21)),
        (DeepLabV3PlusDetailer(21, ResNet(18)), [ODD, integers(1, 33, 47)], one_head(1, 33, 47, 21)),
        (DINOv2Config(size="base").build(8), [ODD], layers(ODD, (768,) * 4, (14,) * 4)),
        (FCN(21, DINOv2Config().build(8), 14, 1), [(1, 28, 42, 3)], one_head(1, 28, 42, 21)),
        (FCN(21, DINOv2Config().build(8), 14, 1), [ODD], one_head(1, 33, 47, 21)),
        (FCNDetailer(21, ResNet(18)), [ODD, integers(1, 33, 47)], one_head(1, 33, 47, 21)),
        (DSNet(19), [CITYSCAPES], one_head(1, 512, 1024, 19)),
        (DSNet(11, 4), [CAMVID], one_head(1, 360, 480, 11)),
        (DSNet(11, 4), [ODD], one_head(1, 33, 47, 11)),
        (DSNet(11, 4), [ONE], one_head(1, 1, 2, 11)),
        (DSNetEncoder(), [CITYSCAPES], layers(CITYSCAPES, (128, 224, 416, 512), HALVED, "block")),
        (DSNetEncoder(4), [CAMVID], layers(CAMVID, (16, 28, 52, 64), HALVED, "block")),
        (DSNetEncoder(4), [ODD], layers(ODD, (16, 28, 52, 64), HALVED, "block")),
        (DSNetEncoder(4), [ONE], layers(ONE, (16, 28, 52, 64), HALVED, "block")),
        (LargeFOVConfig().build(21), [(2, 321, 321, 3)], one_head(2, 41, 41, 21)),
        (LargeFOVConfig(backbone=VGG).build(21), [(2, 513, 513, 3)], one_head(2, 65, 65, 21)),
        (LargeFOVConfig(backbone=VGG).build(21), [(2, 128, 128, 3)], one_head(2, 16, 16, 21)),
        (LargeFOVConfig(backbone=VGG).build(21), [(2, 1, 9, 3)], one_head(2, 1, 2, 21)),
        (LargeFOVConfig(backbone=RESNET).build(21), [(2, 321, 321, 3)], one_head(2, 41, 41, 21)),
        # Logits of patches are not at every eighth pixel.
        (LargeFOVConfig(backbone=DINOv2Config()).build(21), [(2, 28, 42, 3)], one_head(2, 28, 42, 21)),
        (CamVGGConfig(backbone=DINOv2Config()).classifier(20), [(2, 28, 42, 3)], (2, 20)),
        (LargeFOVConfig().classifier(20), [(2, 224, 224, 3)], (2, 20)),
        (CamVGGConfig(backbone=VGG).classifier(20), [(2, 321, 321, 3)], (2, 20)),
        (CamVGGConfig(backbone=RESNET).classifier(20), [(2, 321, 321, 3)], (2, 20)),
        (DecoupledClassifierConfig().build(20), [(2, 224, 224, 3)], (2, 20)),
        (DecoupledClassifierConfig(backbone=RESNET).build(20), [(2, 224, 256, 3)], (2, 20)),
        (SegmentationNet(2, 64, 3), segmentation_inputs(2, 96), (2, 96, 96, 2)),
        (SegmentationNet(4, 64, 3), [(2, 5, 4, 128), (2, 5, 4, 128)], (2, 160, 128, 2)),
        (DeconvNetConfig(backbone=VGG, fc6_kernel=3).build(5), [(1, 96, 160, 3)], one_head(1, 96, 160, 5)),
        (DeconvNetConfig(backbone=RESNET, fc6_kernel=3).build(5), [(1, 96, 160, 3)], one_head(1, 96, 160, 5)),
        (DeconvNetConfig(backbone=CAFFE, fc6_kernel=3).build(5), [(1, 96, 160, 3)], one_head(1, 96, 160, 5)),
        (AuxiliaryNet(19), [(1, 512, 1024, 19)], (1, 512, 1024)),
        (AuxiliaryNet(11, 2), [(2, 360, 480, 11)], (2, 360, 480)),
        (AuxiliaryNet(11, 2), [(2, 33, 47, 11)], (2, 33, 47)),
        (AuxiliaryNet(11, 2), [(2, 1, 2, 11)], (2, 1, 2)),
        (PNet(), [(5, 41, 41, 3)], (5,)),
        (TinyNet(5), [ODD, integers(1, 33, 47)], two_heads(1, 33, 47, 5)),
        (TagClassifier(TinyEncoder(2), 7), [(2, 33, 47, 3)], (2, 7)),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else "",
)
def test_output_shapes(module, inputs, expected):
    outputs, _ = abstract(module, *inputs, train=True)
    outputs = jax.eval_shape(at_full_size, outputs)
    assert jax.tree.map(lambda x: x.shape, outputs) == expected
    assert {x.dtype for x in jax.tree.leaves(outputs)} == {jnp.dtype(jnp.float32)}


def small_vgg(width):
    return VGGConfig(width=width, batch_norm=True, convolutions=(1,) * 5)


SMALL = {
    "resnet": (lambda width, **o: ResNet(18, width, **o), [(2, 33, 41, 3)]),
    "vgg16": (
        lambda width, **o: VGG16Trunk(width, True, (*POOLS[:3], None, None), (1, 1, 1, 1, 2), **o),
        [(2, 19, 16, 3)],
    ),
    "pspnet": (lambda width, **o: PSPNet(5, ResNet(18, width, **o), width, dropout=0.0, **o), [(2, 33, 41, 3)]),
    "detailer": (
        lambda width, **o: Detailer(5, ResNet(18, width, **o), width, dropout=0.0, embedding=2 * width, **o),
        [(2, 33, 41, 3), integers(2, 33, 41)],
    ),
    "deeplabv2": (lambda width, **o: DeepLabV2(5, ResNet(18, width, **o), **o), [(2, 33, 41, 3)]),
    "deeplabv3plus": (
        lambda width, **o: DeepLabV3Plus(5, ResNet(18, width, **o), width, dropout=0.0, **o),
        [(2, 33, 41, 3)],
    ),
    "deeplabv3plus detailer": (
        lambda width, **o: DeepLabV3PlusDetailer(5, ResNet(18, width, **o), width, dropout=0.0, embedding=width, **o),
        [(2, 33, 41, 3), integers(2, 33, 41)],
    ),
    "dinov2": (lambda width, **o: DINOv2(width, 4, 2, registers=2, grid=2, **o), [(2, 28, 30, 3)]),
    "fcn": (
        lambda width, **o: FCN(5, TinyEncoder(width, **o), layers=0, dropout=0.0, **o),
        [(2, 17, 16, 3)],
    ),
    "fcn detailer": (
        lambda width, **o: FCNDetailer(5, TinyEncoder(width, **o), 2, 1, width, 0.0, embedding=2 * width, **o),
        [(2, 17, 16, 3), integers(2, 17, 16)],
    ),
    "dsnet": (lambda width, **o: DSNet(5, width, units=(1, 1, 1, 1), **o), [(2, 17, 19, 3)]),
    "largefov": (
        lambda width, **o: LargeFOVConfig(backbone=small_vgg(width), dropout=0.0).build(5, **o),
        [(2, 17, 25, 3)],
    ),
    "cam": (
        lambda width, **o: LargeFOVConfig(backbone=small_vgg(width), dropout=0.0).classifier(5, **o),
        [(2, 33, 32, 3)],
    ),
    "decoupled classifier": (
        lambda width, **o: DecoupledClassifier(5, small_vgg(width).build(32, **o), 8 * width, 2, 0.0, **o),
        [(2, 96, 64, 3)],
    ),
    "segmentation net": (
        lambda width, **o: SegmentationNet(width, 8 * width, 2, (1,) * 5, **o),
        lambda width: segmentation_inputs(width, 96),
    ),
    "deconvnet": (
        lambda width, **o: DeconvNet(5, small_vgg(width).build(32, **o), width, 8 * width, 2, (1,) * 5, **o),
        [(2, 96, 96, 3)],
    ),
    "auxiliary": (lambda width, **o: AuxiliaryNet(5, width, **o), [(2, 21, 18, 5)]),
    "discriminator": (lambda width, **o: Discriminator(5, width, **o), [(2, 64, 33, 5)]),
    "pnet": (lambda width, **o: PNet(width, **o), [(2, 17, 16, 3)]),
    "tiny": (lambda width, **o: TinyNet(5, width, dropout=0.0, **o), [(2, 17, 16, 3)]),
    "tags": (lambda width, **o: TagClassifier(TinyEncoder(width, **o), 5), [(2, 17, 16, 3)]),
}
"""Name -> a narrow net without dropout (width, dtype=...), and its inputs: two images each."""

ENCODERS = ("resnet", "vgg16", "dinov2")
"""What computes features in its dtype, where all others give float32 logits."""


def small(name, width=4, **options):
    """(module, specifications of its inputs)"""
    build, inputs = SMALL[name]
    return build(width, **options), inputs(width) if callable(inputs) else inputs


def random_inputs(inputs):
    rng = np.random.default_rng(1)
    draw = lambda x: rng.normal(size=x).astype(np.float32) if isinstance(x, tuple) else rng.integers(0, 4, x.shape)
    return [jnp.asarray(draw(x), jnp.float32 if isinstance(x, tuple) else jnp.uint8) for x in inputs]


@functools.cache
def inference(name):
    """(compiled function of variables and inputs -> outputs with float32 and with bfloat16, variables, inputs)."""
    module, inputs = small(name)
    half, _ = small(name, dtype=jnp.bfloat16)

    def run(variables, *inputs):
        return [jax.tree.leaves(at_full_size(net.apply(variables, *inputs, train=False))) for net in (module, half)]

    return jax.jit(run, compiler_options=UNOPTIMISED), random_variables(module, *inputs), random_inputs(inputs)


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_keeps_float32_variables_and_gives_close_outputs(name):
    module, inputs = small(name, dtype=jnp.bfloat16)
    outputs, variables = abstract(module, *inputs, train=True)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    expected = jnp.bfloat16 if name in ENCODERS else jnp.float32
    assert {x.dtype for x in jax.tree.leaves(jax.eval_shape(at_full_size, outputs))} == {jnp.dtype(expected)}
    run, variables, inputs = inference(name)
    for full, half in zip(*run(variables, *inputs), strict=True):
        difference = np.asarray(full) - np.asarray(half, np.float32)
        assert 0 < np.abs(difference).mean() < 0.05 * max(0.1, np.std(full))


@pytest.mark.parametrize("name", SMALL)
def test_inference_treats_images_alone(name):
    run, variables, inputs = inference(name)
    outputs, _ = run(variables, *inputs)
    others, _ = run(variables, *(x.at[0].set(0) for x in inputs))
    for output, other in zip(outputs, others, strict=True):
        np.testing.assert_allclose(other[1], output[1], atol=1e-5)
        assert np.abs(output[0] - other[0]).max() > 0.05 * np.abs(output).max()


@pytest.mark.parametrize("name", SMALL)
def test_description_is_the_same_in_every_process(name):
    assert "0x" not in repr(small(name, dtype=jnp.bfloat16)[0])


@pytest.mark.parametrize("name", SMALL)
def test_width_scales_every_layer(name):
    narrow, wide = (abstract(module, *inputs)[1]["params"] for module, inputs in (small(name, 4), small(name, 16)))

    def compare(path, a, b):
        assert a.shape[:-2] == b.shape[:-2], path
        for few, many in zip(a.shape[-2:], b.shape[-2:], strict=True):
            # Images, the classes (5), foreground or not, one score: all other channels are in proportion.
            assert many == 4 * few or (many == few and few in (3, 5, 2, 1)), path

    jax.tree.map_with_path(compare, narrow, wide)


@pytest.mark.parametrize(
    "name",
    # The detailer is a PSPNet on a ResNet; the segmentation net has a test of its own, of what it reads.
    [name for name in SMALL if name not in ("resnet", "pspnet", "segmentation net")],
)
def test_training_reaches_every_parameter_and_all_statistics(name):
    module, inputs = small(name, width=4 if name == "dsnet" else 2)
    variables, inputs = random_variables(module, *inputs), random_inputs(inputs)

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def step(variables, *inputs):
        def loss(params):
            state = {**variables, "params": params}
            outputs, new = module.apply(state, *inputs, train=True, mutable=["batch_stats"])
            arrays = jax.tree.leaves(at_full_size(outputs))
            weighted = [(y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).mean() for y in arrays]
            return sum(weighted), new

        return jax.grad(loss, has_aux=True)(variables["params"])

    def cancelled(path):
        """Whether it is the bias of a layer before a batch normalisation, which takes it away again."""
        if len(path) == 1:
            return False
        *above, layer, name = (key.key for key in path)
        beside = functools.reduce(lambda tree, key: tree[key], above, variables["params"])
        normalised = {f"bn_{layer}", layer.replace("conv", "bn")} - {layer}
        return name == "bias" and not normalised.isdisjoint(beside)

    gradient, new = step(variables, *inputs)
    for path, value in jax.tree.leaves_with_path(gradient):
        assert np.isfinite(value).all(), jax.tree_util.keystr(path)
        largest = np.abs(value).max()
        assert largest < 1e-6 if cancelled(path) else largest > 0, jax.tree_util.keystr(path)
    old = variables.get("batch_stats", {})
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), new.get("batch_stats", {}), old)
    assert all(jax.tree.leaves(changed))
