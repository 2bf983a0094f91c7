r"""Win rates, preference matrices, and what a policy is worth in the (regularised) game that they define.

A preference matrix ``[..., K, K]`` holds :math:`P_{ij}`, the probability that action i beats action j, with
:math:`P_{ij} + P_{ji} = 1`. Policies are log-probabilities or logits ``[..., K]``, normalised here. The game with a
reference and strength beta pays

.. math:: J(p, q) = p^\top P q - \beta\,KL(p \| \pi_{ref}) + \beta\,KL(q \| \pi_{ref}),

so that :math:`J(p, p) = 1/2`. ``where [..., K]`` marks real actions.
"""

import jax.numpy as jnp

from rlx import errors, numerics
from rlx.types import Array, check_positive


def check_preferences(preferences: Array, **policies: Array) -> None:
    """Raises a UserError unless preferences are ``[..., K, K]`` for policies ``[..., K]``."""
    shape = jnp.shape(preferences)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise errors.UserError(f"preferences has shape {shape}: it wants [..., K, K], how often i beats j.")
    for name, policy in policies.items():
        if jnp.shape(policy)[-1:] != shape[-1:]:
            raise errors.UserError(
                f"{name} has shape {jnp.shape(policy)}, but preferences has shape {shape}: K differs."
            )


def preference_matrix(wins: Array) -> Array:
    """Preference matrix of counted comparisons: ``wins[..., i, j]`` times i beat j; ties count half to both.

    Pairs that never met, and the diagonal, are 1/2.

    >>> print(preference_matrix(jnp.array([[0, 3], [1, 0]])))
    [[0.5  0.75]
     [0.25 0.5 ]]
    """
    check_preferences(wins)
    wins = numerics.accumulate(wins) * ~jnp.eye(wins.shape[-1], dtype=bool)
    met = wins + wins.swapaxes(-1, -2)
    return 0.5 + numerics.safe_divide(wins - met / 2, met)


def sample_win_rates(preferences: Array, *, self_pairs: bool = False, where: Array | None = None) -> Array:
    r"""Win rate of each of K samples of a policy against the others: a K-sample estimate of :math:`P(y_i \succ \pi)`.

    Args:
      preferences: ``[..., K, K]`` probability that sample i beats sample j.
      self_pairs: also count each sample against itself (1/2), as SPPO's scripts do.
      where: ``[..., K, K]`` comparisons that were made; a sample without any has the win rate 1/2.

    Returns:
      ``[..., K]``.

    >>> print(sample_win_rates(jnp.array([[0.5, 1.0, 0.5], [0.0, 0.5, 0.5], [0.5, 0.5, 0.5]])))
    [0.75 0.25 0.5 ]
    """
    check_preferences(preferences)
    made = jnp.ones(preferences.shape, bool) if where is None else jnp.broadcast_to(where, preferences.shape)
    if not self_pairs:
        made &= ~jnp.eye(preferences.shape[-1], dtype=bool)
    # centred, so that the mean of nothing is a tie
    return 0.5 + numerics.mean(numerics.accumulate(preferences) - 0.5, -1, where=made)


def against(preferences: Array, opponent_logps: Array, *, where: Array | None = None) -> Array:
    r""":math:`P(i \succ \pi) = \sum_j P_{ij}\,\pi(j)` for an opponent ``[..., K]``, ``[..., K]``.

    >>> print(against(jnp.array([[0.5, 0.9], [0.1, 0.5]]), jnp.log(jnp.array([0.5, 0.5]))))
    [0.7 0.3]
    """
    check_preferences(preferences, opponent_logps=opponent_logps)
    opponent = numerics.softmax(opponent_logps, where=where)
    real = None if where is None else where[..., None, :] & where[..., :, None]
    return numerics.sum(numerics.accumulate(preferences) * opponent[..., None, :], -1, where=real)


def log_policy(logits: Array, *, where: Array | None = None) -> Array:
    """Log-probabilities of real actions, 0 where masked."""
    return numerics.clean(numerics.log_softmax(logits, where=where), where)


def mixture(policy_logps: Array, reference_logps: Array, coefficient: float | Array) -> Array:
    r"""Logits of :math:`\pi^{1-c}\,\pi_{ref}^{c}`: the opponent of Nash-MD."""
    return (1 - coefficient) * numerics.accumulate(policy_logps) + coefficient * numerics.accumulate(reference_logps)


def best_response(
    preferences: Array, policy_logps: Array, reference_logps: Array, *, beta: float | Array, where: Array | None = None
) -> Array:
    r"""Log-probabilities of the best response :math:`\propto \pi_{ref} \exp(P\pi/\beta)`, ``[..., K]``.

    >>> reply = best_response(jnp.array([[0.5, 0.9], [0.1, 0.5]]), jnp.zeros(2), jnp.zeros(2), beta=0.4)
    >>> print(f"{jnp.exp(reply[0] - reply[1]):.4f}")
    2.7183
    """
    won = against(preferences, policy_logps, where=where)
    return numerics.log_softmax(numerics.accumulate(reference_logps) + won / beta, where=where)


def value(
    preferences: Array,
    policy_logps: Array,
    opponent_logps: Array,
    reference_logps: Array,
    *,
    beta: float,
    where: Array | None = None,
) -> Array:
    """What the game pays a policy against an opponent, J of this module, ``[...]``."""
    policy = numerics.softmax(policy_logps, where=where)
    won = numerics.sum(policy * against(preferences, opponent_logps, where=where), -1, where=where)
    ours, theirs = (divergence(logps, reference_logps, where=where) for logps in (policy_logps, opponent_logps))
    return won - beta * ours + beta * theirs


def divergence(policy_logps: Array, other_logps: Array, *, where: Array | None = None) -> Array:
    r""":math:`KL(p \| q)`, ``[...]``, with all digits also where p and q are nearly the same.

    It is summed as :math:`p x - p + q` with :math:`x = \log p - \log q`, whose terms are not negative; near 0 as
    :math:`p\,(x + e^{-x} - 1)`, where the other form cancels.

    >>> print(f"{divergence(jnp.zeros(2), jnp.array([0.0, 1e-3])):.2e}")
    1.25e-07
    """
    logs, others = (log_policy(logps, where=where) for logps in (policy_logps, other_logps))
    p, q = (numerics.softmax(logps, where=where) for logps in (policy_logps, other_logps))
    x = jnp.where(p > 0, logs - others, 0)
    near = jnp.abs(x) < 0.03
    small = jnp.where(near, x, 0)
    # the terms of order 0 and 1 cancel exactly; what is left out is below 1e-11 of the sum
    series = small**2 * (1 / 2 - small * (1 / 6 - small * (1 / 24 - small * (1 / 120 - small * (1 / 720)))))
    return numerics.sum(jnp.where(near & (p > 0), p * series, p * x - p + q), -1, where=where)


def exploitability(
    preferences: Array,
    policy_logps: Array,
    reference_logps: Array | None = None,
    *,
    beta: float | Array = 0.0,
    where: Array | None = None,
) -> Array:
    r"""What the best response gains: :math:`\max_p J(p, \pi) - J(\pi, \pi)`, ``[...]``, 0 at the equilibrium alone.

    In the regularised game it equals :math:`\beta\,KL(\pi \| \text{best response})` and is evaluated so, which keeps
    its digits however small it is.

    Args:
      preferences: ``[..., K, K]``.
      policy_logps: ``[..., K]``.
      reference_logps: ``[..., K]``; None: the game without regularisation.
      beta: strength of the KL regularisation, above 0 with a reference.
      where: ``[..., K]`` real actions.

    Raises:
      UserError: a reference without a beta above 0, or a beta without a reference.

    >>> print(exploitability(jnp.array([[0.5, 1.0], [0.0, 0.5]]), jnp.zeros(2)))
    0.25
    """
    if reference_logps is None:
        if not (isinstance(beta, int | float) and beta == 0):
            raise errors.UserError("exploitability with a beta needs reference_logps, [..., K].")
        won = against(preferences, policy_logps, where=where)
        mean = numerics.sum(won * numerics.softmax(policy_logps, where=where), -1, where=where)
        return numerics.clean(won, where, -jnp.inf).max(-1) - mean
    check_positive(beta=beta)
    reply = best_response(preferences, policy_logps, reference_logps, beta=beta, where=where)
    return beta * divergence(policy_logps, reply, where=where)


def duality_gap(
    preferences: Array,
    policy_logps: Array,
    reference_logps: Array | None = None,
    *,
    beta: float | Array = 0.0,
    where: Array | None = None,
) -> Array:
    r""":math:`\max_p J(p, \pi) - \min_q J(\pi, q)`, ``[...]``: twice :func:`exploitability`, the game being symmetric.

    >>> print(duality_gap(jnp.array([[0.5, 1.0], [0.0, 0.5]]), jnp.zeros(2)))
    0.5
    """
    return 2 * exploitability(preferences, policy_logps, reference_logps, beta=beta, where=where)


def spo_minimaximalist(preferences: Array, *, signed: bool = False, where: Array | None = None) -> Array:
    r"""Self-play preference optimisation (minimax winner): a sample's reward is how often it beats the others.

    .. math:: r_i = \frac{1}{K-1} \sum_{j \ne i} P(y_i \succ y_j)

    Any reinforcement learning follows. The mean over the group is 1/2 (0 if signed) whatever the preferences are.

    Args:
      preferences: ``[..., K, K]`` probability that sample i beats sample j, both of one policy.
      signed: rewards in [-1, 1], the paper's convention, rather than [0, 1].
      where: ``[..., K, K]`` comparisons that were made; a sample without any gets a tie.

    Returns:
      ``[..., K]``.

    Raises:
      UserError: preferences are not square.

    >>> print(spo_minimaximalist(jnp.array([[0.5, 0.75], [0.25, 0.5]]), signed=True))
    [ 0.5 -0.5]

    References:
      Swamy et al., *A Minimaximalist Approach to Reinforcement Learning from Human Feedback*, arXiv:2401.04056.
    """
    rewards = sample_win_rates(preferences, where=where)
    return 2 * rewards - 1 if signed else rewards
