r"""The methods of experiments/nash_games.py: one iteration of each on a random game, by the library's own losses.

``EXACT`` methods see all actions. Regressions on all actions take one step of gradient descent on the logits, as the
code of arXiv:2503.08942 does. Losses of sampled pairs (INPO, MNPO, ONPO) are summed over all ordered pairs, each with
the probability that sampling and the preference oracle give it, and minimised: their Hessian is
:math:`4(\mathrm{diag}\,\mu - \mu\mu^\top)` for pairs of :math:`\mu`, so that one step scaled by :math:`1/(4\mu)`
reaches the minimum. ``SAMPLED`` methods take the same gradient steps on responses drawn from the policies.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rlx
from rlx import numerics
from rlx.game import tabular, win_rate
from rlx.types import Array

MEMORY = 3
"""Policies that a method may look back at."""


class Game(NamedTuple):
    """Preference matrix ``[N, N]``, reference log-probabilities ``[N]``, and how strongly the game is regularised."""

    preferences: Array
    reference: Array
    beta: Array


class Step(NamedTuple):
    """What one iteration is given: its size as mirror descent, a key, and how many responses are drawn."""

    size: Array
    key: Array
    samples: int


class Played(NamedTuple):
    """Logits of the last policies ``[MEMORY, N]``, the latest first, and of an auxiliary policy ``[N]``."""

    policies: Array
    auxiliary: Array


Update = Callable[[Game, Step, Played], Array]


def draw(seed: int, actions: int) -> tuple[np.ndarray, np.ndarray]:
    """A random game: uniform preferences above the diagonal, and reference logits N(0, 1)."""
    rng = np.random.default_rng([seed, actions])
    upper = np.triu(rng.random((actions, actions)), 1)
    lower = np.tril(1 - upper.T, -1)
    return upper + lower + np.eye(actions) / 2, rng.standard_normal(actions)


# ------------------------------------------------------------------ gradient descent on regressions over all actions


def descend(loss: Callable[[Array], Array], start: Array, game: Game, step: Step) -> Array:
    """Gradient descent on logits, with the rate at which a regression over all actions is mirror descent."""
    return start - step.size * game.beta * start.shape[-1] / 4 * jax.grad(loss)(start)


def over_actions(loss: Callable[..., Array], *, mixed: bool = False) -> Update:
    """A gradient step on a loss of the whole matrix; ``mixed``: the opponent leans on the reference as Nash-MD's."""

    def update(game: Game, step: Step, played: Played) -> Array:
        options = {"beta": game.beta} | ({"mixture_coef": step.size * game.beta} if mixed else {})
        arrays = game.reference, game.preferences
        return descend(lambda x: loss(x, *arrays, **options), played.policies[0], game, step)

    return update


def egpo(game: Game, step: Step, played: Played) -> Array:
    def advance(opponent: Array) -> Array:
        won = win_rate.against(game.preferences, opponent)
        loss = lambda x: rlx.egpo(x, game.reference, won, beta=game.beta)  # noqa: E731
        return descend(loss, played.policies[0], game, step)

    return advance(advance(played.policies[0]))


# ------------------------------------------------------------------ the minimum of losses of ordered pairs


def ordered_pairs(actions: int) -> np.ndarray:
    """``[N N, 2]``: every action as chosen with every one as rejected."""
    return np.stack(np.divmod(np.arange(actions**2), actions), -1)


def minimum(loss: Callable[..., Array], start: Array, game: Game, sampled: Array) -> Array:
    """Where the loss is least in expectation, both responses of a pair drawn from ``sampled``.

    ``loss(pairs, logps, reduce=...)``: ``pairs [P, 2]`` of actions, ``logps [P, 2]`` of the policy.
    """
    pairs = ordered_pairs(len(start))
    chances = 2 * sampled[pairs[:, 0]] * sampled[pairs[:, 1]] * game.preferences[pairs[:, 0], pairs[:, 1]]
    expected = lambda x: loss(pairs, x[pairs], reduce=lambda units, where: jnp.sum(chances * units))  # noqa: E731
    return start - numerics.safe_divide(jax.grad(expected)(start), 4 * sampled)


def inpo(game: Game, step: Step, played: Played) -> Array:
    policy = played.policies[0]

    def loss(pairs: np.ndarray, logps: Array, reduce: rlx.types.Reduce) -> Array:
        arrays = logps, game.reference[pairs], policy[pairs][:, None]
        return rlx.inpo(*arrays, eta=1 / step.size, tau=game.beta, reduce=reduce)

    return minimum(loss, policy, game, jax.nn.softmax(policy))


def mnpo(weights: Sequence[float], game: Game, step: Step, played: Played) -> Array:
    """Pairs are drawn from the mixture of the opponents, so that the win rates are those against all of them."""
    shares = np.asarray(weights) / np.sum(weights)
    opponents = played.policies[: len(weights)]

    def loss(pairs: np.ndarray, logps: Array, reduce: rlx.types.Reduce) -> Array:
        options = {"eta": 1 / step.size, "ratio": step.size * game.beta, "weights": weights}
        return rlx.mnpo(logps, game.reference[pairs], opponents[:, pairs].swapaxes(0, 1), **options, reduce=reduce)

    return minimum(loss, played.policies[0], game, shares @ jax.nn.softmax(opponents))


def onpo(game: Game, step: Step, played: Played) -> Array:
    """The second of the two regressions; :func:`auxiliary` is the first."""
    return optimistic(auxiliary(game, step, played), game, step, played)


def auxiliary(game: Game, step: Step, played: Played) -> Array:
    return optimistic(played.auxiliary, game, step, played)


def optimistic(opponent: Array, game: Game, step: Step, played: Played) -> Array:
    """The minimum is the step from the opponent whose size is eta, win rates against the policy."""

    def loss(pairs: np.ndarray, logps: Array, reduce: rlx.types.Reduce) -> Array:
        return rlx.onpo(logps, opponent[pairs][:, None], eta=step.size, reduce=reduce)

    return minimum(loss, played.policies[0], game, jax.nn.softmax(played.policies[0]))


def sppo(game: Game, step: Step, played: Played) -> Array:
    """Multiplicative weights; the loss is a sum of squares of its own for each action, at its minimum after a step."""
    policy = played.policies[0]
    won = win_rate.against(game.preferences, policy)
    return policy - jax.grad(lambda x: rlx.sppo(x, policy, won, beta=1 / step.size))(policy)


EXACT: dict[str, Update] = {
    "egpo": egpo,
    "online_ipo_omd": over_actions(rlx.online_ipo_omd),
    "inpo": inpo,
    "mnpo, last 1": functools.partial(mnpo, (1.0,)),
    "mnpo, last 2": functools.partial(mnpo, (1.0, 1.0)),
    "mnpo, last 2 as 2:1": functools.partial(mnpo, (2.0, 1.0)),
    "mnpo, last 3": functools.partial(mnpo, (1.0, 1.0, 1.0)),
    "nash_md": over_actions(rlx.nash_md_regression, mixed=True),
    "nash_md_pg": over_actions(rlx.nash_md_pg_tabular, mixed=True),
    "online_ipo": over_actions(rlx.online_ipo),
    "sppo": sppo,
    "onpo": onpo,
}

# ------------------------------------------------------------------ the same steps in closed form


def closed(step_of: Callable[..., Array], regularised: bool = True) -> Update:
    """A step of :mod:`rlx.game.tabular` as an update."""

    def update(game: Game, step: Step, played: Played) -> Array:
        if not regularised:
            return step_of(played.policies[0], game.preferences, step_size=step.size)
        options = {"step_size": step.size, "beta": game.beta}
        return step_of(played.policies[0], game.preferences, game.reference, **options)

    return update


AUXILIARY: dict[str, Update] = {"onpo": auxiliary}
"""How the auxiliary policy moves, for methods that have one."""

TWINS: dict[str, Update] = {
    "egpo": closed(tabular.extragradient),
    "online_ipo_omd": closed(tabular.omd),
    "inpo": closed(tabular.omd),
    "mnpo, last 1": inpo,
    "nash_md": closed(tabular.nash_md),
    "sppo": closed(tabular.omd, regularised=False),
}
"""What should play the same game, move by move: the closed form, or for MNPO with one opponent INPO."""

# ------------------------------------------------------------------ gradient steps on samples


def responses(key: Array, logits: Array, *shape: int) -> Array:
    """Actions drawn from a policy."""
    return jax.random.categorical(key, logits, shape=shape)


def sampled_step(game: Game, step: Step, start: Array, opponent: Array) -> Array:
    """Pairs drawn uniformly, one response of the opponent for each: the loss for language models of EGPO."""
    key, other = jax.random.split(step.key)
    pairs = jax.random.randint(key, (step.samples, 2), 0, len(start))
    won = game.preferences[pairs, responses(other, opponent, step.samples, 1)]
    loss = lambda x: rlx.egpo_llm(x[pairs], game.reference[pairs], won, beta=game.beta)  # noqa: E731
    return descend(loss, start, game, step)


def sampled_omd(game: Game, step: Step, played: Played) -> Array:
    return sampled_step(game, step, played.policies[0], played.policies[0])


def sampled_nash_md(game: Game, step: Step, played: Played) -> Array:
    opponent = win_rate.mixture(played.policies[0], game.reference, step.size * game.beta)
    return sampled_step(game, step, played.policies[0], opponent)


def sampled_egpo(game: Game, step: Step, played: Played) -> Array:
    first, second = (step._replace(key=key) for key in jax.random.split(step.key))
    half = sampled_step(game, first, played.policies[0], played.policies[0])
    return sampled_step(game, second, played.policies[0], half)


def sampled_online_ipo(game: Game, step: Step, played: Played) -> Array:
    pairs = responses(step.key, played.policies[0], step.samples, 2)
    compared = game.preferences[pairs[:, :, None], pairs[:, None, :]]
    options = {"beta": game.beta, "sampled": True}
    loss = lambda x: rlx.online_ipo(x[pairs], game.reference[pairs], compared, **options)  # noqa: E731
    return descend(loss, played.policies[0], game, step)


SAMPLED: dict[str, Update] = {
    "egpo": sampled_egpo,
    "online_ipo_omd": sampled_omd,
    "nash_md": sampled_nash_md,
    "online_ipo": sampled_online_ipo,
}
