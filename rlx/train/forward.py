"""From a batch of tokens to the arrays that a method needs, computing nothing else.

Rows are ``prompt | response`` with the prompt on the first ``prompt_length`` positions, so the response is a static
slice: only its positions go through the head, and every token array here covers the response alone, ``[B, K, R]``.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from rlx import errors, numerics, ops
from rlx.method import Method
from rlx.models import Model
from rlx.train import sharding
from rlx.types import VOCABULARY, Array

Arrays = dict[str, Array]

FROM_BATCH = (
    "index",
    "labels",
    "scores",
    "preference_probs",
    "advantages",
    "old_logprobs",
    "rollout_logprobs",
    "returns",
)


def token_level(method: Method) -> bool:
    """Whether the units of a method are tokens or logits rather than whole responses."""
    return any(VOCABULARY[name][0].lstrip(".") in ("KT", "KTV") for name in method.needs if name in VOCABULARY)


class Forward:
    """Computes arrays by vocabulary name for one model on one mesh.

    Attributes:
      model: policy and head.
      prompt_length: positions that hold the prompt.
      mesh: where the batch is spread; None on one device and under pmap.
    """

    def __init__(self, model: Model, *, prompt_length: int, mesh: Mesh | None = None):
        if prompt_length < 1:
            raise errors.UserError(f"prompt_length must be at least 1 (the start token), got {prompt_length}.")
        self.model, self.prompt_length, self.mesh = model, prompt_length, mesh

    def response(self, x: Array) -> Array:
        """The response part of a token array ``[..., T]``."""
        return x[..., self.prompt_length :]

    def __call__(
        self, params: Any, batch: Mapping[str, Array], auxiliary: Mapping[str, Any], names: Collection[str]
    ) -> Arrays:
        """The arrays ``names`` (those that the batch or the policy can give) and ``candidate_where``, ``token_where``.

        Args:
          params: policy parameters, the ones that are differentiated.
          batch: tokens, valid, where ``[B, K, T]``, candidate_where ``[B, K]`` and what the data brings along.
          auxiliary: ``reference`` parameters, unless the batch carries cached reference log-probabilities.
          names: vocabulary names.

        Raises:
          UserError: a name that nothing here provides.
        """
        where = self.response(batch["where"]) & batch["candidate_where"][..., None]
        found: Arrays = {"candidate_where": batch["candidate_where"], "token_where": where}
        found |= {name: batch[name] for name in FROM_BATCH if name in batch and name in names}
        if "tokens" in names:
            found["tokens"] = self.response(batch["tokens"])
        if "lengths" in names:
            found["lengths"] = where.sum(-1)
        for role, source in (("policy", params), ("reference", auxiliary.get("reference"))):
            cached = {name: batch[name] for name in names if name.startswith(role) and name in batch}
            wanted = {name for name in _of_role(role) if name in names and name not in cached}
            found |= cached
            if wanted and source is not None:
                found |= self._policy_arrays(role, source, batch, where, wanted)
        self._check(names, found)
        return found

    def _check(self, names: Collection[str], found: Arrays) -> None:
        missing = sorted(name for name in names if name not in found)
        if missing:
            raise errors.UserError(
                f"Nothing provides {', '.join(missing)}: neither the data nor the forward pass. "
                f"Reference arrays need a reference policy; there are: {', '.join(sorted(found))}."
            )

    def _policy_arrays(self, role: str, params: Any, batch: Mapping, where: Array, wanted: set[str]) -> Arrays:
        prefix = "" if role == "policy" else f"{role}_"
        found: Arrays = {}
        if wanted & _main(role):
            hidden, unembedding = self._apply(params, batch["tokens"], batch["valid"])
            targets = self.response(batch["tokens"])
            token_names = {f"{role}_logps", f"{prefix}logprobs", "entropy"} & wanted
            if token_names:
                statistics = ("logp", "entropy") if "entropy" in wanted else ("logp",)
                found |= self._token_arrays(role, prefix, hidden, unembedding, targets, where, statistics)
            if f"{role}_logits" in wanted:
                found[f"{role}_logits"] = self._predicting(hidden) @ unembedding
            if wanted & {"rewards", "hidden", "values"}:
                found |= self._head_arrays(params, hidden, batch["valid"])
        if f"{role}_kl_logps" in wanted:
            found[f"{role}_kl_logps"] = self.logps(params, batch, prefix="kl_")
        return {name: array for name, array in found.items() if name in wanted}

    def logps(self, params: Any, batch: Mapping, *, prefix: str = "") -> Array:
        """Summed response log-probabilities ``[B, K]``; ``prefix="kl_"`` scores the mismatched pairs of the batch."""
        tokens, valid = batch[f"{prefix}tokens"], batch[f"{prefix}valid"]
        where = self.response(batch[f"{prefix}where"]) & batch["candidate_where"][..., None]
        hidden, unembedding = self._apply(params, tokens, valid)
        return self._token_arrays("policy", "", hidden, unembedding, self.response(tokens), where, ("logp",))[
            "policy_logps"
        ]

    def _apply(self, params: Any, tokens: Array, valid: Array) -> tuple[Array, Array]:
        flat = [sharding.constrain_rows(x.reshape(-1, x.shape[-1]), self.mesh) for x in (tokens, valid)]
        hidden, unembedding = self.model.apply(params, *flat)
        hidden = sharding.constrain_rows(hidden, self.mesh)
        return hidden.reshape(*tokens.shape, hidden.shape[-1]), unembedding

    def _predicting(self, hidden: Array) -> Array:
        """Hidden states whose next token is a response token."""
        return ops.predicting(hidden, self.prompt_length)

    def _token_arrays(self, role, prefix, hidden, unembedding, targets, where, statistics) -> Arrays:
        predicting = self._predicting(hidden)
        flat = (predicting.reshape(-1, *predicting.shape[-2:]), targets.reshape(-1, targets.shape[-1]))
        found = ops.linear_token_statistics(
            flat[0], unembedding, flat[1], where=where.reshape(flat[1].shape), statistics=statistics, mesh=self.mesh
        )
        assert found.logp is not None  # asked for
        logprobs = found.logp.reshape(targets.shape)
        arrays = {f"{prefix}logprobs": logprobs, f"{role}_logps": numerics.sum(logprobs, -1, where=where)}
        return arrays if found.entropy is None else arrays | {"entropy": found.entropy.reshape(targets.shape)}

    def _head_arrays(self, params: Any, hidden: Array, valid: Array) -> Arrays:
        last = valid.shape[-1] - 1 - jnp.argmax(valid[..., ::-1], axis=-1)
        final = jnp.take_along_axis(hidden, last[..., None, None], axis=-2).squeeze(-2)
        if self.model.head is None:
            return {"hidden": final}
        values = self.model.head(params, self._predicting(hidden))
        return {"hidden": final, "rewards": self.model.head(params, final), "values": values}


def _main(role: str) -> set[str]:
    prefix = "" if role == "policy" else f"{role}_"
    own = {"entropy", "rewards", "hidden", "values"} if role == "policy" else set()
    return {f"{role}_logps", f"{prefix}logprobs", f"{role}_logits"} | own


def _of_role(role: str) -> set[str]:
    return _main(role) | {f"{role}_kl_logps"}


def method_arrays(method: Method, arrays: Arrays) -> Arrays:
    """What a method is called with: its arrays, and ``where`` at the level of its units."""
    where = arrays["token_where"] if token_level(method) else arrays["candidate_where"]
    return {k: v for k, v in arrays.items() if not k.endswith("_where")} | {"where": where}
