"""The length-controlled win rate of AlpacaEval 2: what a fitted model predicts when lengths are equal."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rlx.errors import UserError


class Weights(NamedTuple):
    """Fitted coefficients of a model: of the length difference, of the instruction's difficulty, and its own."""

    length: float
    difficulty: float
    model: float


class WinRate(NamedTuple):
    """The length-controlled win rate.

    Attributes:
      win_rate: per cent.
      standard_error: per cent.
      predictions: ``[n]`` probability that the model wins when the lengths are equal.
      raw_predictions: ``[n]`` the same at the actual lengths.
      length_difference: ``[n]`` of the baseline over the model, in its standard deviations.
    """

    win_rate: float
    standard_error: float
    predictions: np.ndarray
    raw_predictions: np.ndarray
    length_difference: np.ndarray


def alpaca_eval_length_controlled(
    baseline_lengths: Any, model_lengths: Any, difficulty: Any, weights: Weights, *, where: Any = None
) -> WinRate:
    r"""Length-controlled win rate of a model over the baseline, from fitted coefficients.

    .. math:: P(\text{win}) = \sigma\big( w_l \tanh(\Delta / \text{std}(\Delta)) + w_d\,\text{difficulty} + w_m \big),
              \quad \text{LC} = 100 \cdot \text{mean}\,P\big|_{w_l = 0}

    Prediction only: the fit of the official code needs a table of difficulties and of gamed baselines that its authors
    host.

    Args:
      baseline_lengths: ``[n]`` characters of the baseline's outputs.
      model_lengths: ``[n]`` characters of the model's.
      difficulty: ``[n]`` of the instructions.
      weights: the fitted coefficients of the model.
      where: ``[n]`` the instructions that exist.

    Raises:
      UserError: the shapes differ, or there are fewer than two instructions.

    >>> found = alpaca_eval_length_controlled([10, 20], [30, 20], [0.0, 0.0], Weights(1.0, 1.0, 0.0))
    >>> print(found.win_rate, found.raw_predictions)
    50.0 [0.291... 0.5... ]

    References:
      Dubois et al., *Length-Controlled AlpacaEval: A Simple Way to Debias Automatic Evaluators*, arXiv:2404.04475.
    """
    arrays = [np.asarray(x, np.float64) for x in (baseline_lengths, model_lengths, difficulty)]
    where = np.ones(arrays[0].shape, bool) if where is None else np.asarray(where, bool)
    if len({x.shape for x in (*arrays, where)}) != 1 or where.ndim != 1 or where.sum() < 2:
        shapes = [x.shape for x in (*arrays, where)]
        raise UserError(f"alpaca_eval_length_controlled needs vectors of one length, two or more entries: {shapes}.")
    baseline, model, difficulty = (x[where] for x in arrays)
    difference = baseline - model
    spread = difference.std(ddof=1)
    scaled = difference / (spread if spread > 0 else 1.0)
    equal = weights.difficulty * difficulty + weights.model
    fair, raw = (1 / (1 + np.exp(-z)) for z in (equal, equal + weights.length * np.tanh(scaled)))
    error = 100 * float(fair.std(ddof=1)) / np.sqrt(len(fair))
    return WinRate(100 * float(fair.mean()), float(error), fair, raw, scaled)


def pairwise_win_rate(difficulty: Any, weights: Weights, other: Weights) -> float:
    """Predicted share of instructions on which one fitted model beats another at equal lengths.

    >>> pairwise_win_rate([0.3, -0.2], Weights(0.5, 1.0, 0.1), Weights(0.2, 1.0, 0.1))
    0.5
    """
    gain = (weights.difficulty - other.difficulty) * np.asarray(difficulty, np.float64) + weights.model - other.model
    return float(np.mean(1 / (1 + np.exp(-gain))))
