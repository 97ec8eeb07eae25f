"""The vocabulary of a method: stages, sources and results as values; nothing here runs anything."""

from scarce_jax.recipe.origins import FromRun, Pretrained, parse_origin
from scarce_jax.recipe.sources import Artifact, Confident, Source, id_parts
from scarce_jax.recipe.stages import (
    Epochs,
    Eval,
    Infer,
    Loss,
    Mean,
    Net,
    NetState,
    Out,
    Predict,
    Recipe,
    Records,
    Stage,
    Table,
    Train,
    Turn,
    reads,
    sources,
)
from scarce_jax.recipe.views import PLAIN, ViewMean, Views

__all__ = [
    "PLAIN",
    "Artifact",
    "Confident",
    "Epochs",
    "Eval",
    "FromRun",
    "Infer",
    "Loss",
    "Mean",
    "Net",
    "NetState",
    "Out",
    "Predict",
    "Pretrained",
    "Recipe",
    "Records",
    "Source",
    "Stage",
    "Table",
    "Train",
    "Turn",
    "ViewMean",
    "Views",
    "id_parts",
    "parse_origin",
    "reads",
    "sources",
]
