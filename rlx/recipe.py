"""Policy-gradient methods put together from parts that a config names.

rewards -> advantage -> ratio -> surrogate -> selection and weights -> regularisers -> aggregation: every stage is a
keyword of :func:`policy_gradient`, and may be changed in a published recipe (``rlx.catalog.recipes``)::

    rlx.build({"name": "grpo", "surrogate": "cispo", "select": "high_entropy(0.2)", "aggregate": "constant(1024)"})

What the batch couples (advantages, selections, weights) is computed by ``prepare`` on the global batch, without
gradient; ``apply`` sees its rows of it. A part is a string, ``name`` or ``name(arguments)``, a function, or a list of
them where a stage takes several; :mod:`rlx.stages` finds it, and says at once what is wrong with it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from rlx import aggregate, errors, numerics, stages
from rlx.method import Constants, Method, PyTree, take
from rlx.policy import ratios
from rlx.policy.objective import policy_loss
from rlx.types import VOCABULARY, Array, Batch, Reduce

Parts = stages.Spec | Sequence[stages.Spec] | None


def policy_gradient(
    *arrays: Array,
    reward: Parts = None,
    reward_bonus: Parts = None,
    advantage: Parts = "grpo",
    shape: Parts = None,
    ratio: stages.Spec = "token",
    surrogate: stages.Spec = "clip",
    weight: Parts = None,
    select: Parts = None,
    mask: Parts = None,
    kl: str | None = None,
    old_kl: str | None = None,
    old_kl_select: Parts = None,
    entropy: float | Array = 0.0,
    key: Array | None = None,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
    axis_name: numerics.AxisName = None,
    **named: Array,
) -> Array:
    r"""The loss of a recipe, directly on arrays.

    .. math:: \ell_t = w_t\,k_t\,L(r_t, A_t, \log\pi_t) + \beta\,\mathrm{kl}_t - c\,H_t

    Args:
      arrays: those that the recipe needs (``rlx.build(...).needs``, then ``prepare_needs``), in that order:
        ``logprobs, old_logprobs [..., K, T]`` (nats), ``rewards [..., K]`` for the default.
      reward: parts that give the rewards anew: ``token_rewards`` where they read these, else ``rewards``.
      reward_bonus: parts that are added to the rewards that the estimator reads; to those of the last token.
      advantage: estimator, of kind ``advantage`` in the catalogue, with or without ``_advantage``; None: the batch has
        ``advantages``.
      shape: parts that change the advantages.
      ratio: of :mod:`rlx.policy.ratios`.
      surrogate: of :mod:`rlx.policy.surrogates`.
      weight: parts that multiply the policy term of a token.
      select: parts that tell the tokens with a policy term; the others stay in the denominator.
      mask: parts that tell the tokens that count at all.
      kl: penalty to the reference, ``estimator(strength)``: ``"k3(0.04)"``; ``"k3(0.04, corrected=True)"`` multiplies
        it by the ratio.
      old_kl: penalty to the old policy, likewise.
      old_kl_select: parts that tell the tokens with that penalty.
      entropy: strength of the entropy bonus. (An array ``[..., K, T]`` is the one that the recipe reads by that name.)
      key: of parts that draw at random.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.
      axis_name: mapped axes that the batch is spread over.
      named: arrays by name.

    Raises:
      UserError: an unknown part or array, arguments that a part does not take, or an array that is missing.

    >>> logprobs, rewards = jnp.log(jnp.full((1, 2, 3), 0.5)), jnp.array([[1.0, 0.0]])
    >>> print(policy_gradient(logprobs, logprobs, rewards, advantage="dr_grpo", reduce=None)[0, :, 0])
    [-0.5  0.5]
    """
    chosen: dict[str, Any] = {"reward": reward, "reward_bonus": reward_bonus, "advantage": advantage, "shape": shape}
    chosen |= {"ratio": ratio, "surrogate": surrogate}
    chosen |= {"weight": weight, "select": select, "mask": mask, "kl": kl, "old_kl": old_kl}
    given = named if isinstance(entropy, float | int) else {**named, "entropy": entropy}
    bonus = entropy if isinstance(entropy, float | int) else 0.0
    built = method(**chosen, old_kl_select=old_kl_select, entropy=bonus, axis_name=axis_name)
    batch = bind(built, arrays, given) | {"where": where}
    constants, _ = built.prepare(batch, {}, {}, key)
    losses, real = built.apply(constants, batch, {})
    if isinstance(reduce, aggregate.Aggregation):
        reduce = reduce.over(axis_name)
    return aggregate.finish(losses, real, reduce)


def bind(built: Method, arrays: Sequence[Array], named: dict[str, Array]) -> dict[str, Array]:
    """Arrays by name; a UserError for a name that is none, or more arrays than the recipe needs."""
    order = arrays_of(built)
    if len(arrays) > len(order):
        raise errors.UserError(f"{len(arrays)} arrays by position, but the recipe needs {len(order)}: {order}.")
    for name in named:
        if name not in VOCABULARY:
            hint = errors.close_matches(name, {*stages.STAGES, *VOCABULARY})
            raise errors.UserError(f"{name!r} is neither a stage nor an array of a recipe.{hint}")
    return dict(zip(order, arrays, strict=False)) | named


def arrays_of(built: Method) -> tuple[str, ...]:
    """The arrays of a recipe in the order of a direct call."""
    return tuple(dict.fromkeys((*built.needs, *built.prepare_needs)))


def needs(preset: Mapping[str, Any]) -> tuple[str, ...]:
    """The arrays of a published recipe."""
    return arrays_of(method(**{name: value for name, value in preset.items() if name != "reduce"}))


def method(
    *,
    reward: Parts = None,
    reward_bonus: Parts = None,
    advantage: Parts = "grpo",
    shape: Parts = None,
    ratio: stages.Spec = "token",
    surrogate: stages.Spec = "clip",
    weight: Parts = None,
    select: Parts = None,
    mask: Parts = None,
    kl: str | None = None,
    old_kl: str | None = None,
    old_kl_select: Parts = None,
    entropy: float = 0.0,
    axis_name: numerics.AxisName = None,
) -> Method:
    """The :class:`~rlx.method.Method` of a recipe; keywords are those of :func:`policy_gradient`.

    Raises:
      UserError: as there.

    >>> method(select="high_entropy(0.2)", kl="k3(0.04)").prepare_needs
    ('rewards', 'entropy')
    """
    chosen: dict[str, Any] = {"reward": reward, "reward_bonus": reward_bonus, "advantage": advantage, "shape": shape}
    chosen |= {"weight": weight, "select": select}
    chosen |= {"mask": mask, "old_kl_select": old_kl_select}
    parts = {stage: stages.parts_of(stage, value) for stage, value in chosen.items()}
    loss = Loss(
        stages.ratio_of(ratio),
        stages.surrogate_of(surrogate),
        stages.penalty_of("kl", kl),
        stages.penalty_of("old_kl", old_kl),
        stages.strength_of("entropy", entropy),
    )
    reads = stages.arrays_read(parts)

    def prepare(batch: Batch, params: PyTree, state: PyTree, key: Array | None = None) -> tuple[Constants, PyTree]:
        del params
        frozen = jax.lax.stop_gradient(dict(batch))
        return Constants({}, jax.lax.stop_gradient(constants_of(parts, frozen, key, axis_name))), state

    def apply(constants: Constants, batch: Batch, params: PyTree) -> tuple[Array, Array]:
        del params
        return loss.units(batch, constants.units)

    options = {"ratio": ratio, "surrogate": surrogate, "kl": kl, "old_kl": old_kl, "entropy": entropy}
    return Method(
        "policy_gradient",
        lambda key, shapes: ({}, {}),
        prepare,
        apply,
        aggregate.token_mean.over(axis_name),
        loss.needs,
        tuple(name for name in reads.optional if name not in loss.needs),
        reads.required,
        stages.coupling_of(parts),
        separable=True,
        hyperparameters=chosen | options,
    )


def constants_of(
    parts: dict[str, tuple[stages.Part, ...]], batch: dict[str, Any], key: Array | None, axis_name: numerics.AxisName
) -> dict[str, Array]:
    """Advantages, weights, selections and the mask of the global batch, by token."""
    where = batch.get("where")
    if where is None or "logprobs" in batch:
        shape = take(batch, "logprobs", "a recipe").shape
        where = jnp.ones(shape, bool) if where is None else jnp.broadcast_to(where, shape)
    like = batch.get("logprobs", where)  # before a batch is split, the policy runs only where a part reads it
    pool: dict[str, Any] = {"lengths": numerics.count(where, like, -1), "group_where": where.any(-1)}
    pool |= {k: v for k, v in batch.items() if k != "where"}
    run = stages.Run(pool, where, key, axis_name)
    for part in parts["reward"]:
        pool[part.changes] = run(part)
    for part in parts["reward_bonus"]:
        pool[stages.bonus_of(parts)] = run.bonus(part, stages.bonus_of(parts))
    for part in (*parts["advantage"], *parts["shape"]):
        pool["advantages"] = run.tokens(part)
    found = {"advantages": take(pool, "advantages", "a recipe"), "where": where}
    for part in parts["mask"]:
        found["where"] = found["where"] & run.selected(part)
    for stage in ("select", "old_kl_select"):
        for part in parts[stage]:
            found[stage] = found.get(stage, where) & run.selected(part)
    weights = [run.tokens(part) for part in parts["weight"]]
    weights += [pool["weights"]] if "weights" in pool else []
    for weight in weights:
        found["weights"] = found.get("weights", 1.0) * numerics.clean(numerics.accumulate(weight), where, 1.0)
    return found


class Loss(stages.LossParts):
    """The differentiated part of a recipe."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the arrays that it reads."""
        read = {
            "logprobs": True,
            "old_logprobs": self.ratio is not ratios.none or self.old_kl is not None,
            "reference_logprobs": self.kl is not None,
            "entropy": bool(self.entropy),
        }
        return tuple(name for name, wanted in read.items() if wanted)

    def units(self, batch: Batch, constants: dict[str, Array]) -> tuple[Array, Array]:
        """Losses of all tokens, and which of them count."""
        found = {name: take(batch, name, "a recipe") for name in self.needs}
        where, penalty = constants["where"], self.kl or stages.NO_PENALTY
        loss = policy_loss(
            found["logprobs"],
            found.get("old_logprobs"),
            constants["advantages"],
            constants.get("weights"),
            found.get("reference_logprobs"),
            found.get("entropy"),
            ratio=self.ratio,
            surrogate=self.surrogate,
            keep=constants.get("select"),
            **penalty.keywords,
            entropy_coefficient=self.entropy,
            where=where,
            reduce=None,
        )
        if self.old_kl is not None:
            kl = self.old_kl.of(found["logprobs"], found["old_logprobs"], where)
            loss = loss + jnp.where(constants.get("old_kl_select", where), kl, 0)
        return aggregate.units(loss, where)
