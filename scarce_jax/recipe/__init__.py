"""The types that recipes consist of: stages, sources and results."""

from scarce_jax.recipe.origins import FromRun, Pretrained, parse_origin
from scarce_jax.recipe.recipe import Recipe, Table, reads, sources
from scarce_jax.recipe.sources import Artifact, Cache, Chosen, Confident, MostConfident, Part, Read, Source
from scarce_jax.recipe.stages import Epochs, Eval, Infer, Loss, Maps, Mean, Net, Predict, Records, Stage, Train, Turn
from scarce_jax.recipe.state import NetState, Out
from scarce_jax.recipe.unmeasured import without_measurements
from scarce_jax.recipe.views import PLAIN, ViewMean, Views
from scarce_jax.recipe.wanted import with_results

__all__ = [
    "PLAIN",
    "Artifact",
    "Cache",
    "Chosen",
    "Confident",
    "Epochs",
    "Eval",
    "FromRun",
    "Infer",
    "Loss",
    "Maps",
    "Mean",
    "MostConfident",
    "Net",
    "NetState",
    "Out",
    "Part",
    "Predict",
    "Pretrained",
    "Read",
    "Recipe",
    "Records",
    "Source",
    "Stage",
    "Table",
    "Train",
    "Turn",
    "ViewMean",
    "Views",
    "parse_origin",
    "reads",
    "sources",
    "with_results",
    "without_measurements",
]
