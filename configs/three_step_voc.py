"""Three steps from image tags on PASCAL VOC 2012: no mask is read in training.

Paper: Dobko, Viniavskiy and Dobosevych, "NoPeopleAllowed: The Three-Step Approach to Weakly Supervised Semantic
Segmentation", which is about the LID Challenge; no figure of it is comparable. All other settings are those of
three_step_lid.py, without a class that is left out and without balancing. This config was not run.

Command: scarce-jax prepare voc --source VOC; scarce-jax train three_step_voc
"""

from scarce_jax.shipped import variables

_of_dataset = variables("three_step_lid")["of_dataset"]

config = _of_dataset("voc", images=8_995, confident=8_000)
