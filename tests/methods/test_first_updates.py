"""The first update of single weights in the papers' configs, against the official solvers: loss, rate and decay.

A net is replaced by the product of its image, which is 1, and the sum of a few weights, +0.5 and -0.5 in turn: its
logit is 0. The figures are worked out by hand from official definitions, whose losses are sums where ours are means:
(the update by the gradient of the loss, the update of the same weight where that gradient is 0).
"""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from scarce_jax import methods, optim
from scarce_jax.cli.common import load_config
from scarce_jax.data.datasets import KNOWN
from scarce_jax.recipe import NetState
from tests import tiny

STATE = NetState(params={}, batch_stats={}, opt_state=())


@dataclasses.dataclass(frozen=True)
class Weights:
    """A module whose logit of one class is the sum of all weights, and that of the others is 0.

    Attributes:
      shape: of the logits.
      chosen: the class, or all of them.
      auxiliary: None of a classifier; else whether there are logits of an auxiliary head, the same.
    """

    shape: tuple[int, ...]
    chosen: int | slice
    auxiliary: bool | None

    def apply(self, variables, *inputs, **options):
        logit = sum(map(jnp.sum, jax.tree.leaves(variables["params"])))
        logits = jnp.zeros(self.shape).at[..., self.chosen].set(logit)
        outputs = logits if self.auxiliary is None else (logits, logits if self.auxiliary else None)
        return (outputs, {}) if "mutable" in options else outputs


@functools.cache
def recipe(name):
    config = dataclasses.replace(load_config(tiny.ROOT / f"configs/{name}.py"), compare=True)
    return methods.by_name(methods.name_of(config)).recipe(config, KNOWN[config.dataset])


def updates(name, stage, role, paths, gradient):
    """The first updates of the weights by a loss's gradient, and without it."""
    stage = recipe(name).stage(stage)
    weights = {tuple(path.split("/")): jnp.float32(0.5 - k % 2) for k, path in enumerate(paths)}
    params = traverse_util.unflatten_dict(weights)
    tx = optim.build(stage.optimizers[role], params, 1_000)

    @jax.jit
    def both(params, batch):
        if callable(gradient):
            grads = jax.grad(lambda p: loss(p, {role: STATE}, batch, shared, jax.random.key(0))[0])(params)
        else:
            grads = jax.tree.map(lambda x: jnp.full_like(x, gradient), params)
        return [tx.update(g, tx.init(params), params)[0] for g in (grads, jax.tree.map(jnp.zeros_like, grads))]

    (turn,) = (turn for turn in stage.turns if turn.net == role)
    loss, batch, shared = gradient(turn.loss) if callable(gradient) else (None, {}, {})
    with tiny.little_optimised():
        flat = [traverse_util.flatten_dict(updated) for updated in both(params, batch)]
    return {"/".join(path): [float(x[path]) for x in flat] for path in weights}


def tags(classes, loss):
    """One of the classes is in the image. All have the logit 0: a sum over them has the gradient classes / 2 - 1."""
    rows = {"image": np.ones((1, 8, 8, 3), np.float32), "tags": np.arange(classes + 1)[None] == 3}
    return dataclasses.replace(loss, module=Weights((1, classes), slice(None), None)), {"tagged": rows}, {}


def masks(classes, loss, auxiliary=False):
    """All pixels have the class of the weights: the gradient of a mean is 1 / classes - 1."""
    rows = {"image": np.ones((1, 8, 8, 3), np.float32)} | dict.fromkeys(
        ("coarse", "label"), np.ones((1, 8, 8), np.uint8)
    )
    module = Weights((1, 8, 8, classes), min(classes, 2) - 1, auxiliary)
    if hasattr(loss, "by_class"):  # Of figure and ground.
        module = dataclasses.replace(module, auxiliary=None)
        nets = SimpleNamespace(segmenter=module, trained_on=lambda rows, nets: ())
        return dataclasses.replace(loss, by_class=nets), {"labelled": rows}, {}
    return dataclasses.replace(loss, module=module), {"labelled": rows}, {"p_class": np.full(classes, 0.1)}


def of_classes(kind, classes, **options):
    return functools.partial(kind, classes, **options)


FC8 = ("fc8/kernel", "fc8/bias", "backbone/conv1_1/kernel", "backbone/conv1_1/bias")
CAM = ("classifier/kernel", "classifier/bias", *FC8[2:])
SCORE = ("score/kernel", "score/bias", *FC8[2:])
FIGURE = ("seg_score/kernel", "bridge/fc6/bias", "bn_pool5/scale", "bridge/bn_fc6/bias")
HEAD = ("head/kernel", "backbone/conv1/kernel")
ASPP = ("aspp_rate6/kernel", "backbone/conv1/kernel", "backbone/bn1/scale", "backbone/bn1/bias")
PLAIN = ("conv/kernel", "conv/bias")

# DeepLab's solver for Caffe: weight decay 5e-4, the last layer at 10 and 20 times the rate, biases without decay.
# With 20 tags the gradient of the summed cross-entropy is 20 / 2 - 1 = 9. 1e-3 * 10 * 9 = 0.09.
CAM_20 = [(-0.09, -2.5e-6), (-0.18, 0), (-0.009, -2.5e-7), (-0.018, 0)]
# 80 / 2 - 1 = 39, and 6 / 2 - 1 = 2.
CAM_80 = [(-0.39, -2.5e-6), (-0.78, 0), (-0.039, -2.5e-7), (-0.078, 0)]
CAM_6 = [(-0.02, -2.5e-6), (-0.04, 0), (-0.002, -2.5e-7), (-0.004, 0)]
# The sum over 321 * 321 pixels that all show an object: 103041 * (1 / 2 - 1) = -51520.5, times 5e-8 = 0.002576025.
LNET = [(0.02576025, -1.25e-10), (0.0515205, 0), (0.002576025, -1.25e-11), (0.00515205, 0)]
# A mean over pixels in Caffe too: 1 / 21 - 1 = -0.95238095, at the rate 1e-3.
LARGE_FOV = [(0.0095238095, -2.5e-6), (0.019047619, 0), (0.00095238095, -2.5e-7), (0.0019047619, 0)]
# At the rate 1e-5, by a gradient of 1.
OPPOSED = [(-1e-4, -2.5e-8), (-2e-4, 0), (-1e-5, -2.5e-9), (-2e-5, 0)]
# At the rate 0.01 by 1 / 2 - 1; biases at twice it, but batch normalisation as kernels.
SEGMENTS = [(0.005, -2.5e-6), (0.01, 0), (0.005, -2.5e-6), (0.005, 2.5e-6)]
DECONV = [(0.0095238095, -2.5e-6), (0.019047619, 0), (0.0095238095, -2.5e-6), (0.0095238095, 2.5e-6)]
# PyTorch's Adam moves by its rate times g / (|g| + 1e-8), so nearly by its rate whatever the size of g. So it does by
# the L2 penalty alone: g is 0.5e-4 in `auxiliary_cityscapes`, 2.5e-4 in `auxiliary_camvid`, 5e-6 in `three_step_lid`.
ADAM = [(5e-4, -4.999000e-4), (5e-4, 4.999000e-4)]
ADAM_CAMVID = [(5e-4, -4.999800e-4), (5e-4, 4.999800e-4)]
LID = [(-1e-3, -9.980040e-4), (-1e-3, 9.980040e-4), (-1e-4, -9.980040e-5), (-1e-4, 9.980040e-5)]

CASES = [
    ("transfer_voc_split1", "cam", "classifier", CAM, of_classes(tags, 20), CAM_20),
    ("transfer_voc_split1", "lnet", "lnet", FC8, of_classes(masks, 1), LNET),
    ("transfer_voc_split1", "segmenter", "segmenter", FC8, of_classes(masks, 21), LARGE_FOV),
    ("transfer_voc_split1", "adversarial", "segmenter", FC8, 1.0, OPPOSED),
    ("transfer_voc_split4", "cam", "classifier", CAM, of_classes(tags, 80), CAM_80),
    ("transfer_voc_animals", "cam", "classifier", CAM, of_classes(tags, 6), CAM_6),
    ("transfer_voc_split1", "pnet", "pnet", PLAIN, 1.0, [(-1e-3, -2.5e-7), (-1e-3, 2.5e-7)]),
    ("transfer_voc_split1", "adversarial", "pnet", PLAIN, 1.0, [(-1e-3, -2.5e-7), (-1e-3, 2.5e-7)]),
    ("decoupled_voc", "classifier", "classifier", SCORE, of_classes(tags, 20), CAM_20),
    ("decoupled_voc_animals", "classifier", "classifier", SCORE, of_classes(tags, 6), CAM_6),
    ("decoupled_voc", "decoupled", "segmenter", FIGURE, of_classes(masks, 2), SEGMENTS),
    ("decoupled_voc", "deconvnet", "segmenter", FIGURE, of_classes(masks, 21), DECONV),
    # 0.05 * (1 / 19 - 1); class weights divide out where all pixels have one class.
    ("auxiliary_cityscapes", "segmenter", "segmenter", PLAIN, of_classes(masks, 19),
     [(0.0473684211, -2.5e-6), (0.0473684211, 2.5e-6)]),
    # 0.075 * (1 / 11 - 1).
    ("auxiliary_camvid", "segmenter", "segmenter", PLAIN, of_classes(masks, 11),
     [(0.0681818182, -1.875e-5), (0.0681818182, 1.875e-5)]),
    ("auxiliary_cityscapes", "auxiliary", "auxiliary", PLAIN, -0.01, ADAM),
    ("auxiliary_camvid", "auxiliary", "auxiliary", PLAIN, -0.01, ADAM_CAMVID),
    ("auxiliary_cityscapes_deeplabv2", "adversarial", "discriminator", PLAIN, -0.01, [(1e-4, 0), (1e-4, 0)]),
    # 2.5e-4 * (1 / 19 - 1), ten times that in the last layer.
    ("auxiliary_cityscapes_deeplabv2", "segmenter", "segmenter", ASPP, of_classes(masks, 19),
     [(0.00236842105, -6.25e-7), (0.000236842105, 6.25e-8), (0, 0), (0, 0)]),
    # 0.01 * (1 / 19 - 1) * (1 + 0.4 of the auxiliary head) in all layers.
    ("detailer_cityscapes", "detailer", "segmenter", HEAD, of_classes(masks, 19, auxiliary=True),
     [(0.0132631579, -5e-7), (0.0132631579, 5e-7)]),
    ("three_step_lid", "classifier", "classifier", CAM, 0.01, LID),
    ("three_step_lid", "irnet", "irnet", ("displacement_dp1/kernel", "edge1/kernel"), 1.0,
     [(-0.05, -2.5e-6), (-0.005, 2.5e-7)]),
    ("three_step_lid", "segmenter", "segmenter", ("classifier/kernel", "backbone/conv1/kernel"), 1.0,
     [(-0.01, -5e-9), (-0.001, 5e-10)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "stage", "role", "paths", "gradient", "official"),
    CASES,
    ids=[f"{name}:{stage}:{role}" for name, stage, role, *_ in CASES],
)
def test_first_update_is_that_of_the_official_solver(name, stage, role, paths, gradient, official):
    found = updates(name, stage, role, paths, gradient)
    expected = dict(zip(paths, official, strict=True))
    for path, (update, decay) in found.items():
        # The update has the decay as well, which is some ten-thousandths of it.
        np.testing.assert_allclose(update, expected[path][0], rtol=1e-3, err_msg=path)
        np.testing.assert_allclose(decay, expected[path][1], rtol=1e-5, err_msg=path)


@pytest.mark.parametrize(
    ("name", "stage", "others"),
    [
        ("transfer_voc_split1", "cam", ["transfer_voc_split2", "transfer_voc_split3"]),
        ("transfer_voc_split1", "lnet", [f"transfer_voc_split{k}" for k in (2, 3, 4)]),
        ("transfer_voc_split1", "segmenter", [f"transfer_voc_split{k}" for k in (2, 3, 4)]),
        ("transfer_voc_split1", "adversarial", [f"transfer_voc_split{k}" for k in (2, 3, 4)]),
        ("auxiliary_cityscapes", "auxiliary", ["auxiliary_cityscapes_deeplabv2"]),
        ("auxiliary_cityscapes_deeplabv2", "semi", ["auxiliary_cityscapes_deeplabv2:segmenter"]),
        ("auxiliary_cityscapes", "semi", ["auxiliary_cityscapes:segmenter"]),
        ("auxiliary_camvid", "semi", ["auxiliary_camvid:segmenter"]),
        ("decoupled_voc", "decoupled", ["decoupled_voc:strong_only"]),
        ("detailer_cityscapes", "detailer", ["detailer_cityscapes:classifier", "detailer_cityscapes:student_coarse"]),
        ("detailer_cityscapes", "detailer", ["detailer_cityscapes_850", "detailer_cityscapes_850:classifier"]),
        ("three_step_lid", "segmenter", ["three_step_voc"]),
        ("three_step_lid", "irnet", ["three_step_voc"]),
    ],
)
def test_stages_of_the_same_solver_have_equal_optimizers(name, stage, others):
    for other in others:
        config, _, of_stage = other.partition(":")
        assert recipe(config).stage(of_stage or stage).optimizers == recipe(name).stage(stage).optimizers, other
