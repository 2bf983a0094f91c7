r"""Exact self-play on a preference matrix: one step of each method in closed form, trajectories, and the equilibrium.

Policies are log-probabilities ``[..., K]`` of all K actions, ``preferences [..., K, K]`` is the matrix of
:mod:`rlx.game.win_rate`. A step of mirror descent with size s on the game regularised towards a reference is

.. math:: \log\pi' = (1 - s\beta) \log\pi + s\beta \log\pi_{ref} + s\,P(\cdot \succ \text{opponent}) + \text{const}.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.game import win_rate
from rlx.types import Array, check_positive


def mirror_descent(
    policy_logps: Array,
    preferences: Array,
    opponent_logps: Array,
    reference_logps: Array | None = None,
    *,
    step_size: float | Array,
    beta: float | Array = 0.0,
) -> Array:
    """A step of mirror descent against any opponent; without a reference, of multiplicative weights.

    Args:
      policy_logps: ``[..., K]``, where the step starts.
      preferences: ``[..., K, K]``.
      opponent_logps: ``[..., K]``, whom the win rates are measured against.
      reference_logps: ``[..., K]``; None leaves the regularisation out.
      step_size: of the step; at most 1/beta.
      beta: strength of the KL regularisation.

    Returns:
      ``[..., K]`` log-probabilities.

    >>> start, preferences = jnp.zeros(2), jnp.array([[0.5, 1.0], [0.0, 0.5]])
    >>> print(jnp.exp(mirror_descent(start, preferences, start, step_size=2 * jnp.log(3.0))))
    [0.75 0.25]
    """
    kept, pulled = policy_logps, 0.0
    if reference_logps is not None:
        kept, pulled = (1 - step_size * beta) * policy_logps, step_size * beta * reference_logps
    return numerics.log_softmax(kept + pulled + step_size * win_rate.against(preferences, opponent_logps))


def omd(
    policy_logps: Array,
    preferences: Array,
    reference_logps: Array | None = None,
    *,
    step_size: float | Array,
    beta: float | Array = 0.0,
) -> Array:
    """Online mirror descent: the opponent is the policy itself (INPO and online IPO follow it, SPPO without reference).

    >>> start, preferences = jnp.zeros(2), jnp.array([[0.5, 1.0], [0.0, 0.5]])
    >>> print(jnp.exp(omd(start, preferences, start, step_size=1.0, beta=1.0)))
    [0.62245935 0.37754068]
    """
    return mirror_descent(policy_logps, preferences, policy_logps, reference_logps, step_size=step_size, beta=beta)


def nash_md(
    policy_logps: Array,
    preferences: Array,
    reference_logps: Array,
    *,
    step_size: float | Array,
    beta: float | Array,
) -> Array:
    """Nash-MD: the opponent, and where the step starts, is the mixture of policy and reference, share step_size * beta.

    >>> start, preferences = jnp.log(jnp.array([0.9, 0.1])), jnp.array([[0.5, 1.0], [0.0, 0.5]])
    >>> print(jnp.exp(nash_md(start, preferences, jnp.zeros(2), step_size=1.0, beta=1.0)))
    [0.62245935 0.37754068]
    """
    opponent = win_rate.mixture(policy_logps, reference_logps, step_size * beta)
    return mirror_descent(policy_logps, preferences, opponent, reference_logps, step_size=step_size, beta=beta)


def extragradient(
    policy_logps: Array,
    preferences: Array,
    reference_logps: Array | None = None,
    *,
    step_size: float | Array,
    beta: float | Array = 0.0,
) -> Array:
    """Extragradient (EGPO): a step against where a first step would lead, from where that one started."""
    options = {"step_size": step_size, "beta": beta}
    half = omd(policy_logps, preferences, reference_logps, **options)
    return mirror_descent(policy_logps, preferences, half, reference_logps, **options)


class SelfPlay(NamedTuple):
    """A trajectory of self-play.

    Attributes:
      policies: ``[iterations, ..., K]`` probabilities, the initial policy first.
      duality_gaps: ``[iterations, ...]`` of the game without regularisation.
      converged: ``[...]`` whether the last gap is at most the tolerance.
    """

    policies: Array
    duality_gaps: Array
    converged: Array


def onpo_tabular(
    initial_logps: Array,
    preferences: Array,
    *,
    eta: float = 0.5,
    iterations: int = 1000,
    optimistic: bool = True,
    tolerance: float = 1e-3,
) -> SelfPlay:
    r"""Optimistic Nash policy optimisation in exact self-play, or plain mirror descent.

    .. math:: \pi'_{t+1} \propto \pi'_t\,e^{\eta r_t},\quad \pi_{t+1} \propto \pi'_{t+1}\,e^{\eta r_t},\quad
       r_t = P\pi_t,\quad \pi'_1 = \pi_1

    The plain form is :math:`\pi_{t+1} \propto \pi_t\,e^{\eta r_t}`. It runs for ``iterations`` policies, whatever the
    gap; ``converged`` says whether the last one is within the tolerance.

    Args:
      initial_logps: ``[..., K]`` log-probabilities or logits of the first policy.
      preferences: ``[..., K, K]`` probability that action i beats action j.
      eta: step size, above 0; the theory wants at most 1/2.
      iterations: policies in the trajectory, the initial one included.
      optimistic: False plays plain mirror descent (multiplicative weights).
      tolerance: of the last duality gap.

    Raises:
      UserError: eta is not above 0, there is no iteration, or the shapes disagree.

    >>> cycle = jnp.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
    >>> played = onpo_tabular(jnp.array([1.0, 0.0, 0.0]), cycle)
    >>> print(played.converged, onpo_tabular(jnp.array([1.0, 0.0, 0.0]), cycle, optimistic=False).converged)
    True False

    References:
      Zhang et al., *Improving LLM General Preference Alignment via Optimistic Online Mirror Descent*, arXiv:2502.16852.
    """
    win_rate.check_preferences(preferences, initial_logps=initial_logps)
    check_positive(eta=eta, iterations=iterations)
    start = numerics.log_softmax(initial_logps)
    preferences = numerics.accumulate(preferences)

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        auxiliary, policy = carry
        following = mirror_descent(auxiliary, preferences, policy, step_size=eta)
        played = mirror_descent(following, preferences, policy, step_size=eta) if optimistic else following
        return (following, played), (jnp.exp(policy), win_rate.duality_gap(preferences, policy))

    _, (policies, gaps) = jax.lax.scan(step, (start, start), length=iterations)
    return SelfPlay(policies, gaps, gaps[-1] <= tolerance)


class Equilibrium(NamedTuple):
    """The equilibrium of a regularised game.

    Attributes:
      policy_logps: ``[..., K]`` log-probabilities.
      exploitability: ``[...]`` what a best response would gain.
      converged: ``[...]`` whether that is at most the tolerance.
      steps: taken until all games had converged, or were given up.
    """

    policy_logps: Array
    exploitability: Array
    converged: Array
    steps: Array


def nash_equilibrium(
    preferences: Array,
    reference_logps: Array,
    *,
    beta: float = 0.1,
    step_size: float | None = None,
    tolerance: float = 1e-10,
    max_steps: int = 100_000,
) -> Equilibrium:
    r"""The Nash equilibrium of a preference game that is regularised towards a reference policy.

    It is the policy that is its own best response, :math:`\pi \propto \pi_{ref}\,e^{P\pi/\beta}`, found by
    extragradient steps from the reference, which converge linearly. They stop when the exploitability of every game is
    at most ``tolerance``, or after ``max_steps``; a game that has not converged by then says so in ``converged``.

    Args:
      preferences: ``[..., K, K]`` probability that action i beats action j.
      reference_logps: ``[..., K]`` log-probabilities or logits of the reference.
      beta: strength of the KL regularisation, above 0. The number of steps grows as 1/beta.
      step_size: of the extragradient steps; None: :math:`1/(1 + \beta)`, below the inverse of the game's
        Lipschitz constant :math:`1/2 + \beta`.
      tolerance: on the exploitability (in units of preference).
      max_steps: at most.

    Raises:
      UserError: beta is not above 0, or the shapes disagree.

    >>> found = nash_equilibrium(jnp.array([[0.5, 0.9], [0.1, 0.5]]), jnp.zeros(2), beta=0.4)
    >>> print(jnp.exp(found.policy_logps), found.converged)
    [0.7310... 0.2689...] True

    References:
      Munos et al., *Nash Learning from Human Feedback*, arXiv:2312.00886;
      Zhou et al., *Extragradient Preference Optimization*, arXiv:2503.08942.
    """
    win_rate.check_preferences(preferences, reference_logps=reference_logps)
    check_positive(beta=beta)
    preferences, reference = numerics.accumulate(preferences), numerics.log_softmax(reference_logps)
    size = 1 / (1 + beta) if step_size is None else step_size
    reference = jnp.broadcast_to(reference, preferences.shape[:-1])

    def gap(policy: Array) -> Array:
        return win_rate.exploitability(preferences, policy, reference, beta=beta)

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        return (carry[2] < max_steps) & ~(carry[1] <= tolerance).all()

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        policy = extragradient(carry[0], preferences, reference, step_size=size, beta=beta)
        return policy, gap(policy), carry[2] + 1

    policy, gaps, steps = jax.lax.while_loop(unfinished, step, (reference, gap(reference), jnp.zeros((), jnp.int32)))
    return Equilibrium(policy, gaps, gaps <= tolerance, steps)
