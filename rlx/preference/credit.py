"""What DPO credits to a token: responses on the last axis but one, tokens on the last."""

from typing import NamedTuple

import jax.numpy as jnp

from rlx import numerics
from rlx.preference import scores
from rlx.types import Array, check_shapes


class TokenCredit(NamedTuple):
    """DPO's implicit reward, token by token.

    Attributes:
      token_rewards: ``[..., T]``, 0 where masked.
      sequence_reward: ``[...]`` their sum, the implicit reward of the response.
      reward_to_go: ``[..., T]`` the sum from the token on.
    """

    token_rewards: Array
    sequence_reward: Array
    reward_to_go: Array


def dpo_token_credit(
    logprobs: Array, reference_logprobs: Array, *, beta: float = 0.1, where: Array | None = None
) -> TokenCredit:
    r"""Dense rewards that a DPO policy implies: an optimal advantage of the token-level decision process.

    .. math:: r_t = \beta\log\frac{\pi(y_t \mid s_t)}{\pi_{ref}(y_t \mid s_t)},\quad
       \sum_t r_t = \beta\log\frac{\pi(y)}{\pi_{ref}(y)}

    Differentiable in the policy; the reference is a constant.

    Args:
      logprobs: ``[..., T]`` token log-probabilities (nats).
      reference_logprobs: ``[..., T]`` the same under the reference policy.
      beta: DPO's beta.
      where: ``[..., T]`` response tokens.

    Raises:
      UserError: the shapes disagree.

    >>> print(dpo_token_credit(jnp.array([-1.0, -1.0]), jnp.array([-2.0, -4.0]), beta=1.0).reward_to_go)
    [4. 3.]

    References:
      Rafailov et al., *From r to Q\*: Your Language Model is Secretly a Q-Function*, arXiv:2404.12358.
    """
    check_shapes(logprobs=logprobs, reference_logprobs=reference_logprobs, where=where)
    rewards = numerics.clean(beta * scores.log_ratio(logprobs, reference_logprobs), where)
    to_go = jnp.flip(jnp.cumsum(jnp.flip(rewards, -1), -1), -1)
    return TokenCredit(rewards, numerics.sum(rewards, -1), to_go)
