"""Learned rewards and preferences: the model of a run, or of the stage before, judges the responses of a rollout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from rlx.data.encode import encode_prompt
from rlx.data.tokenizers import Tokenizer
from rlx.errors import UserError
from rlx.method import Method
from rlx.models import Model
from rlx.rollout.tasks import Example
from rlx.train.assemble import Run
from rlx.train.checkpoint import Checkpoints
from rlx.train.comparisons import compared, preferring
from rlx.train.forward import Forward, method_arrays
from rlx.train.kept import kept_reward_model
from rlx.train.loop import HostBatch
from rlx.train.restore import restore
from rlx.train.rollout_plan import check_use
from rlx.train.sharding import fetch, put_whole
from rlx.train.workdir import CHECKPOINTS

STAGE = "reward"
"""The name of the model that the stage before has trained."""
READ = ("tokens", "valid", "where", "candidate_where", "index")
"""Arrays of a batch that a model reads."""


class Trained(NamedTuple):
    """What a run has trained to judge responses.

    Attributes:
      model: with a scalar head, or with what ``method.preferences`` reads.
      params: ``policy`` of the model and ``method``, as a train state has them.
      method: that trained it.
      tokenizer: of its tokens.
    """

    model: Model
    params: dict[str, Any]
    method: Method
    tokenizer: Tokenizer


class RewardModel:
    """Scores responses, by a scalar head or by how often they win; called as a verifier's scorer is.

    Args:
      trained: the model; a preference model (:attr:`rlx.method.Method.preferences`) has no head, and wins alone.
      lengths: tokens of the prompt and of the response.
      mesh: where it runs.
      win_rate: the mean probability of winning against the others of the group, ``sigmoid(s_k - s_j)`` or what a
        preference model says, instead of s_k.

    Raises:
      UserError: the model has no scalar head, or a preference model shall score responses one by one.
    """

    def __init__(self, trained: Trained, lengths: tuple[int, int], mesh: Mesh, *, win_rate: bool = False):
        model, self.params, method, self.tokenizer = trained
        check_use(method, model, win_rate)
        self.lengths, self.mesh, self.win_rate = lengths, mesh, win_rate
        forward = Forward(model, prompt_length=lengths[0], mesh=mesh if mesh.size > 1 else None)
        self._score: Callable[..., Any] = jax.jit(
            lambda params, batch: forward(params["policy"], batch, {}, ("rewards",))["rewards"]
        )
        self._beats: Callable[..., Any] | None = None
        if method.preferences is not None:
            self._beats = jax.jit(partial(_preferences, method, forward))

    def __call__(
        self, responses: Sequence[Sequence[Any]], examples: Sequence[Example], where: np.ndarray | None = None
    ) -> np.ndarray:
        """Rewards ``[P, K]`` of K responses (token ids) to each of P examples; 0 where ``where [P]`` is false."""
        batch = self._batch(responses, examples)
        if self.win_rate:
            scores = self.compare(batch)["win_rates"]
        else:
            scores = np.asarray(fetch(self._score(self.params, put_whole(batch, self.mesh))), np.float32)
        return scores if where is None else np.where(where[:, None], scores, 0)

    def compare(self, batch: HostBatch) -> HostBatch:
        """A batch of the trainer with the ``preferences [P, K, K]`` between its responses, and their ``win_rates``."""
        read = put_whole({name: batch[name] for name in READ}, self.mesh)
        if self._beats is not None:
            return preferring(batch, np.asarray(fetch(self._beats(self.params, read)), np.float64))
        scores = np.asarray(fetch(self._score(self.params, read)), np.float32)
        found = compared({"rewards": scores, "candidate_where": batch["candidate_where"]}, "bradley_terry")
        return batch | {name: found[name] for name in ("preferences", "win_rates")}

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


def _preferences(method: Method, forward: Forward, params: Mapping[str, Any], batch: Mapping[str, Any]) -> jax.Array:
    assert method.preferences is not None  # the caller has looked
    arrays = method_arrays(method, forward(params["policy"], batch, {}, method.needs))
    return method.preferences(arrays, params["method"])


def finder(run: Run, lengths: tuple[int, int], params: Any) -> Callable[..., RewardModel]:
    """``(name, **options) -> RewardModel``: ``reward`` has ``params``, any other name is a run directory."""

    def find(name: str, *, win_rate: bool = False) -> RewardModel:
        if name == STAGE:
            method = next(stage.method for stage in run.stages if stage.name == STAGE)
            return RewardModel(Trained(run.model, params, method, run.tokenizer), lengths, run.mesh, win_rate=win_rate)
        trained = reward_model_of(name, run.mesh)
        if trained.tokenizer.fingerprint != run.tokenizer.fingerprint:
            raise UserError(f"the reward model {name} has another tokenizer than this run.")
        return RewardModel(trained, lengths, run.mesh, win_rate=win_rate)

    return find


def reward_model_of(path: str, mesh: Mesh | None = None) -> Trained:
    """What the stage ``reward`` of a run has trained, or else its last stage; read onto ``mesh``."""
    found = restore(path, mesh=mesh, optimizer=False)
    checkpoints = Checkpoints(found.folder / CHECKPOINTS)
    params = kept_reward_model(found.run, checkpoints, found.state.params["policy"])
    checkpoints.close()
    if params is None:
        return Trained(found.run.model, found.state.params, found.stage.method, found.run.tokenizer)
    method = next(stage.method for stage in found.run.stages if stage.name == STAGE)
    return Trained(found.run.model, params, method, found.run.tokenizer)
