"""Responses of a policy and what they are worth: the sampler, tasks, verifiers, environments."""

from rlx.rollout.sampler import engine, sample
from rlx.rollout.types import Engine, Rollout, Sampling

__all__ = ["Engine", "Rollout", "Sampling", "engine", "sample"]
