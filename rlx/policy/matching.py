"""Rewards of tool calls by matching them to the gold calls of a turn, on the host in NumPy (MatchTIR)."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from rlx import errors

Call = tuple[str, Mapping[str, Any]]
"""Name of the tool, and its arguments by name."""


class Matching(NamedTuple):
    """Predicted calls matched to gold calls.

    Attributes:
      assignment: ``[n]`` int, the gold call of every predicted one, -1 for none.
      rewards: ``[n]`` similarity of the matched pair, or the penalty.
      total: similarity of all matched pairs.
    """

    assignment: np.ndarray
    rewards: np.ndarray
    total: float


def call_similarity(predicted: Call, gold: Call) -> float:
    r"""How far a predicted call reproduces a gold one, in [0, 1].

    .. math:: S = \mathbb{1}[\text{same tool}]\;\frac{1 + J + n_{equal}}{2 + n_{gold}}

    with J the shared names of arguments over all of them, 1 when neither call has any, and the gold arguments that the
    call has with the same value. Tool names compare without regard to case.

    >>> print(call_similarity(("search", {"q": "cat", "k": 5}), ("Search", {"q": "cat"})))
    0.8333333333333334
    """
    if predicted[0].lower() != gold[0].lower():
        return 0.0
    found, wanted = Counter(list(predicted[1])), Counter(list(gold[1]))
    union = (found | wanted).total()
    names = (found & wanted).total() / union if union else 1.0
    equal = sum(name in predicted[1] and predicted[1][name] == value for name, value in gold[1].items())
    return (1 + names + equal) / (2 + len(gold[1]))


def optimal_assignment(similarity: np.ndarray) -> np.ndarray:
    """The one-to-one assignment of the largest total (Kuhn-Munkres), -1 where the pair would add nothing.

    >>> print(optimal_assignment(np.array([[0.9, 0.8], [0.85, 0.1]])))
    [1 0]
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(np.maximum(similarity, 0), maximize=True)
    assignment = np.full(len(similarity), -1)
    assignment[rows] = np.where(similarity[rows, columns] > 0, columns, -1)
    return assignment


def greedy_assignment(similarity: np.ndarray) -> np.ndarray:
    """The most similar free pair first, equal ones by row and column: what MatchTIR's code does, named hungarian.

    >>> print(greedy_assignment(np.array([[0.9, 0.8], [0.85, 0.1]])))
    [0 1]
    """
    assignment, taken = np.full(len(similarity), -1), set()
    for pair in np.argsort(-similarity, axis=None, kind="stable"):
        row, column = divmod(int(pair), similarity.shape[1])
        if similarity[row, column] > 0 and assignment[row] < 0 and column not in taken:
            assignment[row] = column
            taken.add(column)
    return assignment


def transport_plan(
    similarity: np.ndarray, *, regularization: float = 0.1, tolerance: float = 1e-6, max_iterations: int = 100_000
) -> np.ndarray:
    """The entropy-regularised plan of cost ``-similarity`` between uniform marginals (Sinkhorn), ``[n, m]``.

    It stops when the rows are within ``tolerance`` of their marginal.

    Raises:
      UserError: ``regularization`` is not above 0, or no convergence in ``max_iterations``.

    >>> print(transport_plan(np.eye(2)).round(3))
    [[0.5 0. ]
     [0.  0.5]]
    """
    if not regularization > 0:
        raise errors.UserError(f"regularization must be above 0, got {regularization}.")
    logits = similarity / regularization
    rows, columns = (-np.log(size) for size in logits.shape)
    for _ in range(max_iterations):
        logits = logits + rows - np.logaddexp.reduce(logits, 1, keepdims=True)
        logits = logits + columns - np.logaddexp.reduce(logits, 0, keepdims=True)
        if np.abs(np.exp(logits).sum(1) - np.exp(rows)).max() <= tolerance:
            return np.exp(logits)
    raise errors.UserError(
        f"Sinkhorn did not converge in {max_iterations} iterations: raise regularization (it is {regularization}) "
        "or max_iterations."
    )


ASSIGNMENTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "optimal": optimal_assignment,
    "greedy": greedy_assignment,
}


def matchtir_matching_reward(
    similarity: np.ndarray, *, matching: str = "optimal", unmatched_penalty: float = 0.0, regularization: float = 0.1
) -> Matching:
    r"""Rewards of the predicted tool calls of a turn, each matched to at most one gold call, or to all a little.

    .. math:: r_i = S_{i\,m(i)}\ \text{or the penalty},\qquad r_i = \textstyle\sum_j Z_{ij} S_{ij}\ \text{(transport)}

    A turn's reward is the mean over its calls; that of the last turn, the F1 of the answer.

    Args:
      similarity: ``[n, m]`` of predicted and gold calls (:func:`call_similarity`); pairs of 0 or less never match.
      matching: ``optimal`` (the paper's Kuhn-Munkres), ``greedy`` (the released code), or ``transport``: the plan Z of
        :func:`transport_plan`; its assignment is each row's most similar partner by weight.
      unmatched_penalty: reward of a call without a partner (-lambda of the paper, 0 in training).
      regularization: of ``transport``.

    Raises:
      UserError: ``similarity`` is not a finite matrix, or ``matching`` is unknown.

    >>> print(matchtir_matching_reward([[0.9, 0.8], [0.85, 0.0]]).rewards)
    [0.8  0.85]

    References:
      *MatchTIR: Fine-Grained Supervision for Tool-Integrated Reasoning via Bipartite Matching*, arXiv:2601.10712.
    """
    similarity = np.asarray(similarity, float)
    if similarity.ndim != 2 or not np.isfinite(similarity).all():
        raise errors.UserError(f"similarity must be a finite matrix [predicted, gold], got shape {similarity.shape}.")
    names = (*ASSIGNMENTS, "transport")
    if matching not in names:
        raise errors.UserError(f"Unknown matching {matching!r}.{errors.close_matches(matching, names)}")
    if matching == "transport" and similarity.size:
        plan = transport_plan(similarity, regularization=regularization)
        rewards = (plan * similarity).sum(1)
        return Matching(plan.argmax(1), rewards, float(rewards.sum()))
    assignment = ASSIGNMENTS.get(matching, optimal_assignment)(similarity)
    matched = assignment >= 0
    gained = similarity[np.flatnonzero(matched), assignment[matched]]
    rewards = np.full(len(similarity), float(unmatched_penalty))
    rewards[matched] = gained
    return Matching(assignment, rewards, float(gained.sum()))
