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
    Recipe,
    Records,
    Stage,
    Table,
    Train,
    Turn,
    interned,
    reads,
    sources,
)
from scarce_jax.recipe.views import PLAIN, Views

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
    "Pretrained",
    "Recipe",
    "Records",
    "Source",
    "Stage",
    "Table",
    "Train",
    "Turn",
    "Views",
    "id_parts",
    "interned",
    "parse_origin",
    "reads",
    "sources",
]
