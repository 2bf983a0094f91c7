"""Arrays that the identities are stated on."""

import numpy as np

from rlx.preference import token_scores

RNG = np.random.default_rng(0)
POLICY, REFERENCE, LENGTHS = -RNG.exponential(9, (6, 2)), -RNG.exponential(9, (6, 2)), RNG.integers(1, 9, (6, 2))
SCORES, LIST, LIST_REFERENCE = RNG.normal(size=(6, 5)), -RNG.exponential(9, (6, 5)), -RNG.exponential(9, (6, 5))
ONES = np.ones((6, 2))
SWAP = [1, 0]
LOGPROBS, OLD, ADVANTAGES = -RNG.exponential(1, (3, 4, 7)), -RNG.exponential(1, (3, 4, 7)), RNG.normal(size=(3, 4, 1))
LOGITS, REFERENCE_LOGITS, TOKENS = (
    RNG.normal(size=(6, 2, 3, 5)),
    RNG.normal(size=(6, 2, 3, 5)),
    RNG.integers(0, 5, (6, 2, 3)),
)
FIRST = np.arange(5)[None] == 0
OPPONENTS, WON = -RNG.exponential(9, (6, 3, 2)), RNG.random((6, 2))
UPPER = np.triu(RNG.random((6, 5, 5)), 1)
PREFERENCES = UPPER + np.tril(1 - UPPER.swapaxes(1, 2), -1) + np.eye(5) / 2
TOKEN_LOGPS, TOKEN_REFERENCE, MASKS = -RNG.exponential(1, (6, 2, 3)), -RNG.exponential(1, (6, 2, 3)), np.ones((6, 2, 3))
STEPS = np.array([[5, 1, 7], [5, 2, 7]]) + np.zeros((6, 1, 1), int)


def logistic(margin):
    return np.logaddexp(0, -margin)


def margin(policy=POLICY, reference=REFERENCE):
    d = policy - reference
    return d[..., 0] - d[..., 1]


def certain_pair():
    """Scores of pairs whose first response is certainly the better one."""
    return np.tile([1e4, 0.0], (6, 1))


def said():
    """What both policies say of the tokens."""
    return token_scores.distributions(LOGITS, REFERENCE_LOGITS, TOKENS)


def uniform_list(values):
    """Scores of a list whose best entry comes first."""
    return -np.sort(-values, axis=-1)
