"""EPO: an entropy bonus with a penalty for entropies that leave the band around those of earlier epochs.

Tokens stand on the last axis ``[..., K, T]``; leading axes are the batch.
"""

import jax
import jax.numpy as jnp

from rlx import aggregate, errors, numerics, signals
from rlx.method import Constants, Method, PyTree, Shapes, stateless, take
from rlx.policy.clipped import ppo_clip_loss
from rlx.policy.weights import constant
from rlx.types import Array, Batch, Reduce, check_shapes


def smoothing_penalty(
    entropy: Array,
    history_entropy: Array,
    *,
    low: float = 0.8,
    high: float = 1.2,
    penalty: float = 0.1,
    per: str = "token",
    where: Array | None = None,
) -> Array:
    r"""EPO's penalty: 0 where :math:`l\,\bar H < H_t < u\,\bar H` (strictly), a constant elsewhere.

    Args:
      entropy: ``[..., K, T]`` entropy of the policy at the token (nats); a constant.
      history_entropy: ``[..., K, T]`` or ``[..., K, 1]`` mean entropy that earlier epochs had at the token's
        environment step; negative where there is none, and nothing is penalised.
      low: l.
      high: u.
      penalty: outside the band.
      per: ``token``, or ``response`` for the mean entropy of the response in the place of H.
      where: ``[..., K, T]`` response tokens.

    Returns:
      ``[..., K, T]``, a constant, 0 where masked.

    Raises:
      UserError: ``per`` is neither, or the shapes disagree.

    >>> print(smoothing_penalty(jnp.array([0.5, 1.0]), jnp.array([1.0])))
    [0.1 0. ]
    """
    check_shapes(entropy=entropy, history_entropy=history_entropy, where=where)
    if per not in ("token", "response"):
        raise errors.UserError(f"per must be 'token' or 'response', got {per!r}.")
    entropy, expected = constant(entropy, where), constant(history_entropy, where)
    if per == "response":
        entropy = jnp.broadcast_to(numerics.mean(entropy, -1, where=where, keepdims=True), entropy.shape)
    outside = ~((low * expected < entropy) & (entropy < high * expected)) & (expected >= 0)
    return numerics.clean(jnp.where(outside, penalty, 0.0).astype(entropy.dtype), where)


def phase_weight(epoch: float | Array, *, epochs: int = 150) -> Array:
    r"""Weight of the penalty over a training of E epochs: from 1 down to 0.83 in the middle, then from 0.8 to 0.04.

    .. math:: w_e = 1 - 0.2\,(1 - e^{-2e/(E/2)})\;(e \le E/2),\qquad 0.8\,e^{-3(e - E/2)/(E - E/2)}\;(e > E/2)

    >>> print(f"{phase_weight(0):.2f} {phase_weight(150):.2f}")
    1.00 0.04
    """
    epoch, half = jnp.asarray(epoch, jnp.result_type(float)), epochs // 2
    early = 1 - 0.2 * (1 - jnp.exp(-2 * jnp.minimum(epoch, half) / half))
    return jnp.where(epoch <= half, early, 0.8 * jnp.exp(-3 * (epoch - half) / (epochs - half)))


def epo(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    entropy: Array,
    history_entropy: Array,
    *,
    coefficient: float = 0.001,
    beta: float = 1.0,
    low: float = 0.8,
    high: float = 1.2,
    penalty: float = 0.1,
    per: str = "token",
    phase: float | Array = 1.0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = 3.0,
    penalties: Array | None = None,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""Entropy-regularised policy optimisation: a bonus, less what leaves the band of the entropies so far.

    .. math:: \ell_t = \ell^{PPO}_t - \lambda\,(H_t - \beta\,w_e P_t),\quad
       P_t = 0 \text{ if } l\,\bar H < H_t < u\,\bar H \text{ else } p

    P is piecewise constant: as in the released code it moves the value of the loss and has no gradient.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      entropy: ``[..., K, T]`` entropy of the policy at the token (nats).
      history_entropy: ``[..., K, T]`` or ``[..., K, 1]`` mean entropy of earlier epochs at the token's environment
        step, negative where there is none; a constant.
      coefficient: lambda.
      beta: weight of the penalty.
      low: l (recipes: 0).
      high: u (recipes: 2).
      penalty: p (recipes: 0.05 ScienceWorld, 0.1 ALFWorld).
      per: ``token`` or ``response``: whose entropy has to be in the band.
      phase: w_e (:func:`phase_weight`).
      clip_low: of PPO.
      clip_high: of PPO.
      dual_clip: of PPO; None: none.
      penalties: ``[..., K, T]`` P, constants; None computes them (:func:`smoothing_penalty`).
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number, of all terms; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree, or ``per`` or ``dual_clip`` is not allowed.

    >>> zeros, entropy = jnp.zeros((1, 2)), jnp.array([[1.0, 3.0]])
    >>> print(epo(zeros, zeros, zeros, entropy, jnp.ones((1, 1)), coefficient=1.0, reduce=None))
    [[-1.  -2.9]]

    References:
      Xu et al., *EPO: Entropy-Regularized Policy Optimization for LLM Agents Reinforcement Learning*, arXiv:2509.22576.
    """
    bounds = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
    policy = ppo_clip_loss(logprobs, old_logprobs, advantages, **bounds, where=where, reduce=None)
    if penalties is None:
        band = {"low": low, "high": high, "penalty": penalty, "per": per}
        penalties = smoothing_penalty(entropy, history_entropy, **band, where=where)
    smooth = numerics.clean(numerics.accumulate(entropy), where) - beta * phase * constant(penalties, where)
    return aggregate.finish(policy - coefficient * smooth, where, reduce)


def step_means(
    entropy: Array, turn_ids: Array, steps: int, *, where: Array | None = None, axis_name: numerics.AxisName = None
) -> tuple[Array, Array]:
    """Mean entropy of all tokens of the batch at every environment step ``[steps]``, and which steps have any.

    >>> print(step_means(jnp.array([1.0, 3.0, 2.0]), jnp.array([0, 0, 2]), 3)[0])
    [2. 0. 2.]
    """
    entropy = constant(entropy, where)
    acting = (turn_ids >= 0) & (turn_ids < steps) & (True if where is None else where)
    slots = jnp.where(acting, turn_ids, steps).ravel()

    def add(x: Array) -> Array:
        return numerics.psum(jax.ops.segment_sum(x.ravel(), slots, steps + 1)[:steps], axis_name)

    count = add(jnp.ones_like(entropy))
    return numerics.safe_divide(add(entropy), count), count > 0


def epo_method(
    *,
    steps: int = 50,
    epochs: int = 150,
    coefficient: float = 0.001,
    beta: float = 1.0,
    low: float = 0.8,
    high: float = 1.2,
    penalty: float = 0.1,
    per: str = "token",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = 3.0,
    axis_name: numerics.AxisName = None,
) -> Method:
    """:func:`epo` with its history: per environment step, the mean over all earlier batches of its mean entropy.

    ``turn_ids`` number the environment steps from 0. As released, a batch in which no episode gets past the middle step
    has no penalty, and the weight of the penalty falls over the epochs (one batch is an epoch).

    Args:
      steps: largest number of environment steps of an episode.
      epochs: of the training.
      coefficient: lambda.
      beta: weight of the penalty.
      low: of the band.
      high: of the band.
      penalty: outside the band.
      per: ``token`` or ``response``.
      clip_low: of PPO.
      clip_high: of PPO.
      dual_clip: of PPO; None: none.
      axis_name: mapped axes the batch is spread over.

    Raises:
      UserError: there are no steps or fewer than two epochs.

    >>> epo_method().needs
    ('logprobs', 'old_logprobs', 'advantages', 'entropy', 'turn_ids')
    """
    if steps < 1 or epochs < 2:
        raise errors.UserError(f"epo needs at least 1 step and 2 epochs, got steps={steps} and epochs={epochs}.")
    keywords = {"coefficient": coefficient, "beta": beta, "low": low, "high": high, "penalty": penalty, "per": per}
    keywords |= {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
    lifted, history = stateless(epo, keywords=keywords, axis_name=axis_name), signals.means_by_slot(steps)

    def init(key: Array | None, shapes: Shapes) -> tuple[PyTree, PyTree]:
        return {}, {"history": history.init(), "epoch": jnp.zeros((), jnp.int32)}

    def prepare(batch: Batch, params: PyTree, state: PyTree, key: Array | None = None) -> tuple[Constants, PyTree]:
        entropy, turns = (take(batch, name, lifted.name) for name in ("entropy", "turn_ids"))
        means, seen = step_means(entropy, turns, steps, where=batch.get("where"), axis_name=axis_name)
        past, new = history.update((means, seen), state["history"])
        late = seen[steps // 2 :].any()
        phase = jnp.where(late, phase_weight(state["epoch"], epochs=epochs), 0)
        expected = jnp.where((turns >= 0) & (turns < steps), past[jnp.clip(turns, 0, steps - 1)], -1)
        constants = Constants({"phase": phase}, {"history_entropy": expected})
        return constants, {"history": new, "epoch": state["epoch"] + 1}

    def apply(constants: Constants, batch: Batch, params: PyTree) -> tuple[Array, Array]:
        extended = {**batch, "history_entropy": constants.units["history_entropy"]}
        return lifted.apply(Constants(constants.shared, {}), extended, params)

    return lifted._replace(
        init=init,
        prepare=prepare,
        apply=apply,
        needs=(*lifted.needs[:-1], "turn_ids"),
        prepare_needs=("entropy", "turn_ids"),
        coupling="batch",
        hyperparameters={"steps": steps, "epochs": epochs, **keywords},
    )
