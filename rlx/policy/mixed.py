"""Policy losses on a mixture of responses: the policy's own, and others that it could not have sampled."""

import jax
import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.policy import ratios, surrogates
from rlx.policy.weights import constant
from rlx.types import Array, Reduce, check_shapes


def critique_grpo_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    refined: Array,
    *,
    epsilon: float | None = 0.2,
    clip_upper_bound: float = 100.0,
    gamma: float | None = 0.1,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""Critique-GRPO: PPO on the policy's own responses, shaped likelihood on those refined after a critique.

    .. math:: \ell_t = \max(-A r_t,\, -A\,\mathrm{clip}(r_t, 1-\epsilon, u))\ \text{on own tokens},\qquad
       \ell_t = -A\,\frac{\pi(y_t)}{\pi(y_t) + \gamma}\ \text{on refined ones}

    with :math:`u = \max(u_0, 1+\epsilon)`. The gradient of the second is largest where the policy finds a token of the
    refinement unlikely, near :math:`\pi = \gamma` and below, so that it learns what it would not have said.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant. Not read at refined tokens.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``, over the union of own and refined responses; constants.
      refined: ``[..., K, T]`` or ``[..., K, 1]`` 1 for a token of a refined response, 0 for one of the policy's own.
      epsilon: lower clip; None clips nothing.
      clip_upper_bound: u_0: as good as no upper clip.
      gamma: of the shaping function; None takes the probability itself.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree.

    >>> arrays = jnp.log(jnp.array([[0.2], [0.1]])), jnp.log(jnp.array([[0.2], [0.2]])), jnp.array([[1.0], [1.0]])
    >>> print(critique_grpo_loss(*arrays, jnp.array([[0], [1]]), reduce=None)[:, 0])
    [-1.  -0.5]

    References:
      Zhang et al., *Critique-GRPO: Advancing LLM Reasoning with Natural Language and Numerical Feedback*,
      arXiv:2506.03106.
    """
    check_shapes(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, refined=refined, where=where)
    logprobs = numerics.clean(numerics.accumulate(logprobs), where)
    advantages, theirs = constant(advantages, where), constant(refined, where) > 0.5
    own = ~theirs if where is None else where & ~theirs
    ratio = ratios.token(logprobs, old_logprobs, bound=ratios.OVERFLOW, where=own)
    clipped = surrogates.unclipped if epsilon is None else surrogates.clip(epsilon, max(clip_upper_bound - 1, epsilon))
    # p / (p + gamma) = sigmoid(log p - log gamma)
    bounded = ratios.clamp(logprobs, -jnp.inf, ratios.OVERFLOW)
    likelihood = jnp.exp(bounded) if gamma is None else jax.nn.sigmoid(logprobs - jnp.log(gamma))
    loss = jnp.where(theirs, -advantages * likelihood, clipped(ratio, advantages, logprobs))
    return aggregate.finish(loss, where, reduce)
