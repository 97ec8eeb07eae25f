"""Three steps from image tags on VOC's animals: no mask is read in training.

Paper: Dobko, Viniavskiy and Dobosevych, "NoPeopleAllowed: The Three-Step Approach to Weakly Supervised Semantic
Segmentation". All other settings are those of three_step_voc.py; no figure of the paper is comparable. This config was
not run; three_step_voc_animals_small.py was.

Command: scarce-jax prepare voc/animals --source VOC; scarce-jax train three_step_voc_animals
"""

from scarce_jax.shipped import variables

_of_dataset = variables("three_step_lid")["of_dataset"]

config = _of_dataset("voc/animals", images=2_660, confident=2_000)
