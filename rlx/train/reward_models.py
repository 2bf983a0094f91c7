"""Learned rewards: a run's reward model, or that of the stage before, scores the responses of a rollout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from rlx.data.encode import encode_prompt
from rlx.data.tokenizers import Tokenizer
from rlx.errors import UserError
from rlx.models import Model
from rlx.rollout.tasks import Example
from rlx.train.assemble import Run
from rlx.train.comparisons import compared
from rlx.train.forward import Forward
from rlx.train.sharding import put_batch

STAGE = "reward"
"""The name of the model that the stage before has trained."""


class RewardModel:
    """Scores responses by a scalar head; called as a verifier's scorer is.

    Args:
      model: with a head.
      params: of the model.
      tokenizer: of prompts; responses come as ids.
      lengths: tokens of the prompt and of the response.
      mesh: where it runs.
      win_rate: the mean probability ``sigmoid(s_k - s_j)`` of winning against the others of the group, instead of s_k.

    Raises:
      UserError: the model has no scalar head.
    """

    def __init__(
        self,
        model: Model,
        params: Any,
        tokenizer: Tokenizer,
        lengths: tuple[int, int],
        mesh: Mesh,
        *,
        win_rate: bool = False,
    ):
        if model.head is None:
            raise UserError("a reward model needs a scalar head: train it with config.model.head='scalar'.")
        self.params, self.tokenizer, self.lengths, self.mesh, self.win_rate = params, tokenizer, lengths, mesh, win_rate
        forward = Forward(model, prompt_length=lengths[0], mesh=mesh if mesh.size > 1 else None)
        self._score: Callable[..., Any] = jax.jit(lambda p, batch: forward(p, batch, {}, ("rewards",))["rewards"])

    def __call__(
        self, responses: Sequence[Sequence[Any]], examples: Sequence[Example], where: np.ndarray | None = None
    ) -> np.ndarray:
        """Rewards ``[P, K]`` of K responses (token ids) to each of P examples; 0 where ``where [P]`` is false."""
        batch = self._batch(responses, examples)
        scores = np.asarray(self._score(self.params, put_batch(batch, self.mesh)), np.float32)
        if self.win_rate:
            group = {"rewards": scores, "candidate_where": np.ones(scores.shape, bool)}
            scores = compared(group, "bradley_terry")["win_rates"]
        return scores if where is None else np.where(where[:, None], scores, 0)

    def _batch(self, responses: Sequence[Sequence[Any]], examples: Sequence[Example]) -> dict[str, np.ndarray]:
        """Prompts padded on the left, responses with EOS where there is room for it."""
        before, after = self.lengths
        shape = (len(responses), max(map(len, responses)), before + after)
        tokens, valid = np.full(shape, self.tokenizer.pad_id, np.int32), np.zeros(shape, bool)
        for p, (group, example) in enumerate(zip(responses, examples, strict=True)):
            prompt = encode_prompt(example.prompt, self.tokenizer, before)
            for k, response in enumerate(group):
                row = [*prompt, *[*response, self.tokenizer.eos_id][:after]]
                place = slice(before - len(prompt), before - len(prompt) + len(row))
                tokens[p, k, place], valid[p, k, place] = row, True
        where = valid & (np.arange(before + after) >= before)
        rows = {"candidate_where": np.ones(shape[:2], bool), "index": np.arange(shape[0], dtype=np.int32)}
        return {"tokens": tokens, "valid": valid, "where": where} | rows


def finder(run: Run, lengths: tuple[int, int], trained: Any) -> Callable[..., RewardModel]:
    """``(name, **options) -> RewardModel``: ``reward`` is ``trained``, any other name is a run directory."""

    def find(name: str, *, win_rate: bool = False) -> RewardModel:
        if name == STAGE:
            return RewardModel(run.model, trained, run.tokenizer, lengths, run.mesh, win_rate=win_rate)
        model, params, tokenizer = reward_model_of(name)
        if tokenizer.fingerprint != run.tokenizer.fingerprint:
            raise UserError(f"the reward model {name} has another tokenizer than this run.")
        return RewardModel(model, params, run.tokenizer, lengths, run.mesh, win_rate=win_rate)

    return find


def reward_model_of(path: str) -> tuple[Model, Any, Tokenizer]:
    """Model, parameters and tokenizer of a run: those of its stage ``reward``, or else of its last policy."""
    from rlx.train.checkpoint import Checkpoints
    from rlx.train.restore import restore  # it reads runs, and so stands above this module
    from rlx.train.trainer import REWARD_MODEL
    from rlx.train.workdir import CHECKPOINTS

    found = restore(path)
    last = found.state.params["policy"]
    checkpoints = Checkpoints(found.folder / CHECKPOINTS)
    kept = checkpoints.restore_policy(REWARD_MODEL, last)
    checkpoints.close()
    return found.run.model, last if kept is None else kept, found.run.tokenizer
