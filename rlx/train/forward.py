"""From a batch of tokens to the arrays that a method needs, computing nothing else.

Rows are ``prompt | response`` with the prompt on the first ``prompt_length`` positions, so the response is a static
slice: only its positions go through the head, and every token array here covers the response alone, ``[B, K, R]``.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rlx import errors, numerics, ops
from rlx.method import Method
from rlx.models import Model, axes
from rlx.models.base import capped
from rlx.models.moving import join
from rlx.train import packing
from rlx.train.policies import ROLES
from rlx.types import VOCABULARY, Array

Arrays = dict[str, Array]

TOKENS = tuple(f"{of}{name}" for of in ("", "kl_", "rationale_") for name in ("tokens", "valid", "where"))
"""What every batch holds; all else in it is an array of the vocabulary that the data brought along."""
STATISTICS: dict[str, tuple[tuple[str, ...], Callable[[ops.TokenStatistics], Any]]] = {
    "entropy": (("entropy",), lambda found: found.entropy),
    "renyi2": (("renyi2",), lambda found: found.renyi2),
    "top_p_entropy": (("top_p_entropy",), lambda found: found.top_p_entropy),
    "expected_discriminator": (("entropy", "entropy_change"), lambda found: _expected_discriminator(found)),
}
"""Array -> the token statistics of the policy that it is made of, and how."""
LAST = ("hidden", "embeddings", "views", "judge_logits")
"""Arrays of the state after the last token of a response: it, itself again, under dropout, and its logits."""
HEAD = ("rewards", "scores", "values", "q_values", "token_rewards")
"""Arrays of the scalar head: at the last token (``scores`` are those that a ranking loss ranks by), before each token
of the response (``values``), and after each."""
DROPOUT = 0.1
LOGITS = ("logits", "policy_logits")


def token_level(method: Method) -> bool:
    """Whether the units of a method are tokens or logits rather than whole responses."""
    shapes = {VOCABULARY[name][0].lstrip(".") for name in method.needs if name in VOCABULARY}
    return bool(shapes & {"KT", "KTV", "V"})


class Forward:
    """Computes arrays by vocabulary name for one model on one mesh.

    Batches that are packed (:mod:`rlx.train.packing`) are evaluated on their packed rows; by roles whose model has no
    such form on whole ones.

    Attributes:
      model: policy and head.
      prompt_length: positions that hold the prompt.
      mesh: where the batch is spread; None on one device and under pmap.
      models: of the roles whose model is another one.
      shared_prefix: the candidates of a row have one prompt, which is evaluated once for all of them; for roles whose
        model has no such form, as often as there are candidates.
    """

    def __init__(
        self,
        model: Model,
        *,
        prompt_length: int,
        mesh: Mesh | None = None,
        models: Mapping[str, Model] | None = None,
        shared_prefix: bool = False,
    ):
        if prompt_length < 1:
            raise errors.UserError(f"prompt_length must be at least 1 (the start token), got {prompt_length}.")
        if shared_prefix and model.shared is None:
            raise errors.UserError("shared_prefix needs a model with such a form, and this one has no Model.shared.")
        self.model, self.prompt_length, self.mesh, self.models = model, prompt_length, mesh, models or {}
        self.shared_prefix = shared_prefix

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
          auxiliary: parameters of the other policies by role (:data:`rlx.train.policies.ROLES`), or their moving part,
            which is joined with ``params``; the batch may carry cached reference log-probabilities instead.
          names: vocabulary names.

        Raises:
          UserError: a name that nothing here provides.
        """
        where = self.response(batch["where"]) & batch["candidate_where"][..., None]
        found: Arrays = {"candidate_where": batch["candidate_where"], "token_where": where}
        found |= {name: batch[name] for name in names if name in batch and name not in TOKENS}
        found |= {name: self.response(batch["tokens"]) for name in ("tokens", "targets") if name in names}
        if "lengths" in names:
            found["lengths"] = where.sum(-1)
        found |= self._policy(params, batch, where, {name for name in names if name not in found})
        for role, prefix in ROLES.items():
            wanted = {name for name in names if name.startswith(prefix) and name not in found}
            if wanted and role in auxiliary:
                found |= self._beside(role, prefix, (auxiliary[role], params), batch, where, wanted)
        self._check(names, found)
        return found

    def _check(self, names: Collection[str], found: Arrays) -> None:
        missing = sorted(name for name in names if name not in found)
        if missing:
            raise errors.UserError(
                f"Nothing provides {', '.join(missing)}: neither the data nor the forward pass. Arrays of another "
                f"policy ({', '.join(ROLES)}) need that policy; there are: {', '.join(sorted(found))}."
            )

    def _policy(self, params: Any, batch: Mapping, where: Array, wanted: set[str]) -> Arrays:
        """What the trained policy gives of ``wanted``."""
        found: Arrays = {}
        tokens = {"policy_logps", "logprobs", *STATISTICS} & wanted
        if wanted & {*tokens, *LOGITS, *LAST, *HEAD}:
            hidden, unembedding = self._apply(self.model, params, batch)
            if tokens:
                found |= self._tokens("policy_", "", hidden, unembedding, batch, where, tokens, self.model)
            for name in LOGITS:
                if name in wanted:
                    found[name] = _logits(self.model, self._predicting(hidden), unembedding)
            if wanted & {*LAST, *HEAD}:
                found |= self._states(params, hidden, unembedding, batch)
        if "policy_kl_logps" in wanted:
            found["policy_kl_logps"] = self.logps(params, batch, prefix="kl_")
        if "rationale_logps" in wanted and "rationale_tokens" in batch:
            found["rationale_logps"] = self.logps(params, batch, prefix="rationale_").squeeze(-1)
        return {name: array for name, array in found.items() if name in wanted}

    def _beside(self, role: str, prefix: str, params: Any, batch: Mapping, where: Array, wanted: set[str]) -> Arrays:
        """What another policy gives of ``wanted``; that of several opponents has their axis before the candidates'.

        ``params`` are its own and those of the policy, of which it has the leaves that stay.
        """
        model, (params, policy) = self.models.get(role, self.model), params

        def arrays(params: Any) -> Arrays:
            params = params if role in self.models else join(params, policy)
            found: Arrays = {}
            if wanted != {f"{prefix}kl_logps"}:
                hidden, unembedding = self._apply(model, params, batch)
                if {f"{prefix}logps", f"{prefix}logprobs"} & wanted:
                    found |= self._tokens(prefix, prefix, hidden, unembedding, batch, where, set(), model)
                found |= {f"{prefix}states": self._predicting(hidden)}
                if f"{prefix}logits" in wanted:
                    found[f"{prefix}logits"] = _logits(model, self._predicting(hidden), unembedding)
            if f"{prefix}kl_logps" in wanted:
                found[f"{prefix}kl_logps"] = self.logps(params, batch, prefix="kl_", model=model)
            return {name: array for name, array in found.items() if name in wanted}

        if role != "opponents":
            return arrays(params)
        return {name: jnp.moveaxis(x, 0, 1) for name, x in jax.lax.map(arrays, params).items()}

    def logps(self, params: Any, batch: Mapping, *, prefix: str = "", model: Model | None = None) -> Array:
        """Summed response log-probabilities ``[B, K]``; ``prefix`` scores the mismatched pairs of the batch, ``kl_``,
        or the written reasons, ``rationale_`` (K = 1)."""
        real = batch["candidate_where"].any(-1, keepdims=True) if prefix == "rationale_" else batch["candidate_where"]
        names = ("tokens", "valid", "where", *packing.ARRAYS)
        batch = {name: batch[f"{prefix}{name}"] for name in names if f"{prefix}{name}" in batch}
        where = self.response(batch["where"]) & real[..., None]
        model = model or self.model
        hidden, unembedding = self._apply(model, params, batch)
        return self._tokens("policy_", "", hidden, unembedding, batch, where, set(), model)["policy_logps"]

    def _apply(self, model: Model, params: Any, batch: Mapping) -> tuple[Array, Array]:
        """Hidden states from the last token of the prompt on, ``[B, K, 1 + R, D]``, and the unembedding."""
        with axes.on(self.mesh):
            return self._states_of(model, params, batch)

    def _states_of(self, model: Model, params: Any, batch: Mapping) -> tuple[Array, Array]:
        packed, tokens, valid = packing.ARRAYS[0] in batch, batch["tokens"], batch["valid"]
        if packed and self.shared_prefix:
            raise errors.UserError("a batch that is packed does not go with shared_prefix: leave out one of them.")
        if packed and (model is self.model or model.packed is not None):
            return packing.states(model, params, batch, self.mesh)
        if self.shared_prefix and model.shared is not None:
            from rlx.models import prefix  # it imports flax, which a model of the user's own need not

            rows = [axes.constrain(x, ("batch", None, "length")) for x in (tokens, valid)]
            hidden, unembedding = prefix.states(model, params, *rows, prompt_length=self.prompt_length)
            return axes.constrain(hidden, ("batch", None, "length", "features")), unembedding
        flat = [axes.constrain(x.reshape(-1, x.shape[-1]), ("batch", "length")) for x in (tokens, valid)]
        hidden, unembedding = model.apply(params, *flat)
        hidden = axes.constrain(hidden, ("batch", "length", "features"))
        return hidden.reshape(*tokens.shape, hidden.shape[-1])[..., self.prompt_length - 1 :, :], unembedding

    def _predicting(self, hidden: Array) -> Array:
        """Hidden states whose next token is a response token."""
        return ops.predicting(hidden, 1)

    def _tokens(
        self,
        sums: str,
        tokens: str,
        hidden: Array,
        unembedding: Array,
        batch: Mapping,
        where: Array,
        names: set[str],
        model: Model,
    ) -> Arrays:
        """Token log-probabilities, called ``{tokens}logprobs``, their sums ``{sums}logps``, and statistics."""
        targets = self.response(batch["tokens"])
        predicting = self._predicting(hidden)
        flat = (predicting.reshape(-1, *predicting.shape[-2:]), targets.reshape(-1, targets.shape[-1]))
        extra = {name: STATISTICS[name] for name in STATISTICS if name in names}
        statistics = tuple(dict.fromkeys(("logp", *(field for fields, _ in extra.values() for field in fields))))
        real = where.reshape(flat[1].shape)
        options = {"statistics": statistics, "top_p_rule": "strict", "mesh": self.mesh, "softcap": model.softcap}
        found = ops.linear_token_statistics(flat[0], unembedding, flat[1], where=real, **options)
        assert found.logp is not None  # asked for
        logprobs = found.logp.reshape(targets.shape)
        arrays = {f"{tokens}logprobs": logprobs, f"{sums}logps": numerics.sum(logprobs, -1, where=where)}
        return arrays | {name: make(found).reshape(targets.shape) for name, (_, make) in extra.items()}

    def _states(self, params: Any, hidden: Array, unembedding: Array, batch: Mapping) -> Arrays:
        valid = batch["valid"]
        last = valid.shape[-1] - self.prompt_length - jnp.argmax(valid[..., ::-1], axis=-1)  # counts as hidden does
        last = jnp.maximum(last, 0)
        final = jnp.take_along_axis(hidden, last[..., None, None], axis=-2).squeeze(-2)
        found = {"hidden": final, "embeddings": final, "judge_logits": _logits(self.model, final, unembedding)}
        found["views"] = _dropout(final, batch["index"])
        if self.model.head is None:
            return found
        rewards = self.model.head(params, final)
        after = self.model.head(params, hidden[..., 1:, :])
        before = self.model.head(params, self._predicting(hidden))
        return found | {
            "rewards": rewards,
            "scores": rewards,
            "values": before,
            "q_values": after,
            "token_rewards": after,
        }


def _logits(model: Model, hidden: Array, unembedding: Array) -> Array:
    return capped(hidden @ unembedding, model.softcap)


def _expected_discriminator(found: ops.TokenStatistics) -> Array:
    r"""``sum_v p_v S_v`` with ``S_v = p_v (H + log p_v)``: the entropy change of the token without its own ``S``."""
    assert found.logp is not None and found.entropy is not None and found.entropy_change is not None  # asked for
    p = jnp.exp(found.logp)
    return found.entropy_change + jnp.where(p > 0, p * (found.entropy + jnp.where(p > 0, found.logp, 0)), 0)


def _dropout(states: Array, index: Array) -> Array:
    """States ``[B, ...]`` with a tenth of their features dropped: a mask for each example of the dataset."""

    def one(state: Array, row: Array) -> Array:
        key = jax.random.fold_in(jax.random.PRNGKey(0), row)
        return jnp.where(jax.random.bernoulli(key, 1 - DROPOUT, state.shape), state / (1 - DROPOUT), 0)

    return jax.vmap(one)(states, index)


def method_arrays(method: Method, arrays: Arrays) -> Arrays:
    """What a method is called with: its arrays, and ``where`` at the level of its units."""
    where = arrays["token_where"] if token_level(method) else arrays["candidate_where"]
    return {k: v for k, v in arrays.items() if not k.endswith("_where")} | {"where": where}
