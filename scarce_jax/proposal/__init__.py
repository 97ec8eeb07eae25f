"""What to do with a folder of photographs and masks: its classes, a config that fits it, and the next commands."""

from scarce_jax.proposal.classes import propose_classes
from scarce_jax.proposal.config import Plan, config_text, plan
from scarce_jax.proposal.look import Seen, look

__all__ = ["Plan", "Seen", "config_text", "look", "plan", "propose_classes"]
