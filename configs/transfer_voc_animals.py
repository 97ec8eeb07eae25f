"""Label and prediction transfer on VOC's animals: cat, cow and person are strong; dog, horse and sheep are weak.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation". The categories are divided as in its split-set
1, which has others too. All other settings are those of transfer_voc_split1.py, with fewer steps. No figure of the
paper is comparable. This config was not run.

Command: scarce-jax prepare voc/animals --source VOC; scarce-jax train transfer_voc_animals --compare
"""

import dataclasses

from scarce_jax.data.budget import Budget
from scarce_jax.optim import Schedule
from scarce_jax.shipped import variables

_split1 = variables("transfer_voc_split1")
_config = _split1["config"]

_segmenter = dataclasses.replace(_config.segmenter.optim, schedule=Schedule(kind="step", boundaries=(1_500, 3_000)))

config = dataclasses.replace(
    _config,
    dataset="voc/animals",
    budget=Budget(strong_categories=("cat", "cow", "person")),
    cam=dataclasses.replace(_config.cam, steps=3_000, optim=_split1["of_tags"](6)),
    lnet=dataclasses.replace(_config.lnet, steps=3_000),
    segmenter=dataclasses.replace(_config.segmenter, steps=4_500, optim=_segmenter),
    pnet=dataclasses.replace(_config.pnet, steps=500),
    adversarial=dataclasses.replace(_config.adversarial, steps=4_000),
    paper={},
)
