"""Adapters of evaluation statistics: counts become samples with a mask, votes a matrix, verdicts words."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlx.evaluation import (
    aggregation,
    alpha_rank,
    condorcet,
    judging,
    length_controlled,
    off_policy,
    ratings,
    sampling,
    swiss,
    tournaments,
    voting,
)

Hyper = dict[str, Any]
Inputs = dict[str, Any]
Outputs = dict[str, Any]
WORDS = {"larger": 1, "equal": 0, "smaller": -1}


def pass_at_k(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Where a problem has fewer than k samples the official formula gives 1, and rlx refuses."""
    c = np.asarray(inputs["num_correct"])
    n = np.broadcast_to(inputs["num_samples"], c.shape)
    if (n < hyper["k"]).any():
        chances = sampling.any_correct(n, c, k=hyper["k"])
        return {"per_problem": chances, "pass_at_k": chances.mean()}
    place = np.arange(n.max())
    found = sampling.pass_at_k(place < c[:, None], k=hyper["k"], where=place < n[:, None])
    return {"per_problem": found.per_problem, "pass_at_k": found.mean}


def best_of_n(hyper: Hyper, inputs: Inputs) -> Outputs:
    rewards, correct, answers = (np.asarray(inputs[name]) for name in ("rewards", "correct", "answers"))
    sizes = range(1, len(rewards) + 1)
    return {
        "best_of": {str(k): float(sampling.best_of_n(rewards, correct, k=k).mean) for k in sizes},
        "majority": {str(k): float(sampling.majority_at_k(answers, correct, k=k).mean) for k in sizes},
        "oracle_pass_at_1": correct.mean(),
    }


def best_of_majority(hyper: Hyper, inputs: Inputs) -> Outputs:
    answers, rewards = (np.asarray(inputs[name]) for name in ("answers", "answer_rewards"))
    found = voting.best_of_majority(answers, rewards, alpha=hyper["alpha"], k=hyper["k"])
    return {
        "frequencies": {str(answer): share for answer, share in found.frequencies.items()},
        "survivors": found.survivors,
        "best_of_majority": found.submitted,
        "best_of_n": voting.best_of_majority(answers, rewards, alpha=0, k=hyper["k"]).submitted,
        "majority_topk": voting.most_frequent(answers, k=hyper["k"]),
    }


def elo(hyper: Hyper, inputs: Inputs) -> Outputs:
    return ratings.elo(inputs["player_a"], inputs["player_b"], inputs["score_a"], **hyper)._asdict()


def bradley_terry_mle(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Ties are given in both halves of their matrix."""
    fit = ratings.bradley_terry_mle(inputs["wins"], inputs.get("ties"))
    spread = ratings.intervals(fit, z=hyper["z"])
    return {
        "log_strengths": fit.log_strengths,
        "covariance": fit.covariance,
        "standard_errors": fit.standard_errors,
        "ci_lower": spread.low,
        "ci_upper": spread.high,
        "elo_scaled": ratings.elo_scale(fit.log_strengths, scale=hyper["scale"], base=hyper["base"]),
        "win_probability": ratings.win_probability(fit.log_strengths),
    }


def votes_of(inputs: Inputs) -> tuple[np.ndarray, float]:
    """The matrix of preferences and the number of votes."""
    votes = [np.asarray(vote).tolist() for vote in inputs["votes"]]
    weights = np.asarray(inputs.get("vote_weights", np.ones(len(votes))), np.float64)
    return aggregation.preference_matrix(votes, weights, alternatives=int(inputs["num_alternatives"])), weights.sum()


def soft_condorcet(hyper: Hyper, inputs: Inputs) -> Outputs:
    matrix, count = votes_of(inputs)
    preferences, temperature = jnp.asarray(matrix / count), hyper["temperature"]
    found = condorcet.soft_condorcet(
        preferences,
        temperature=temperature,
        learning_rate=hyper["learning_rate"],
        iterations=hyper["iterations"],
        bounds=(hyper["rating_lower_bound"], hyper["rating_upper_bound"]),
    ).ratings

    def loss(at: jax.Array) -> jax.Array:
        return condorcet.soft_condorcet_loss(at, preferences, temperature=temperature)

    value, gradient = jax.value_and_grad(loss)(inputs["ratings"])
    return {
        "loss": value,
        "gradient": gradient,
        "ratings_after_descent_from_zero": found,
        "ranking": np.argsort(-np.asarray(found), kind="stable"),
    }


def alpha_rank_(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Masses that differ by rounding alone are ranked by index, as ties are."""
    names = {
        "use_local_selection_model": "local_selection",
        "use_inf_alpha": "infinite_alpha",
        "inf_alpha_eps": "epsilon",
    }
    populations = [value for name, value in sorted(inputs.items()) if name.startswith("payoffs_player")]
    payoffs = inputs["payoffs"] if "payoffs" in inputs else jnp.stack(populations)
    found = alpha_rank.alpha_rank(payoffs, **{names.get(name, name): value for name, value in hyper.items()})
    return found._asdict() | {
        "ranking": np.argsort(-np.round(np.asarray(found.stationary_distribution), 12), kind="stable")
    }


def rank_aggregation(hyper: Hyper, inputs: Inputs) -> Outputs:
    if "votes" not in inputs:
        return benchmark(np.asarray(inputs["scores_metric_instance_system"]))
    matrix, _ = votes_of(inputs)
    best = aggregation.kemeny(matrix, most=100_000)
    return {
        "borda_scores": aggregation.borda(matrix),
        "kemeny_score": best.score,
        "kemeny_optimal_rankings": best.rankings,
        "preference_matrix": matrix,
        "copeland_scores": aggregation.copeland(matrix),
    }


def benchmark(scores: np.ndarray) -> Outputs:
    two, one = (aggregation.two_level_borda(scores, levels=levels) for levels in (2, 1))
    means = scores.mean((0, 1))
    return {
        "two_level_borda_counts": two.counts,
        "two_level_rank_positions": two.positions,
        "one_level_borda_counts": one.counts,
        "one_level_rank_positions": one.positions,
        "mean_scores": means,
        "mean_rank_positions": aggregation.positions(means),
    }


def llm_swiss_round(hyper: Hyper, inputs: Inputs) -> Outputs:
    scores = np.asarray(inputs["round_scores"])
    if "eliminations" in hyper:
        several = [swiss.llm_swiss_round(scores, eliminations=count).expected_wins for count in hyper["eliminations"]]
        slope = swiss.failure_sensitivity(scores, eliminations=hyper["eliminations"])
        return {"expected_win_score_by_eliminations": several, "least_squares_slope": slope}
    found = swiss.llm_swiss_round(scores, eliminations=hyper["eliminations_per_round"])
    return {"expected_win_score": found.expected_wins, "ranking": found.ranking}


def sharpe_ratio_at_k(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The code: sample deviation, never below 0; the paper: the population's, unclipped; neither at k = 1."""
    values = inputs["estimated_values"], inputs["true_values"], float(inputs["behaviour_value"])
    sizes = range(1, hyper["max_k"] + 1)
    code = [off_policy.sharpe_ratio_at_k(*values, k=k, ddof=1, clip=(0, np.inf)) for k in sizes]
    paper = [off_policy.sharpe_ratio_at_k(*values, k=k) for k in sizes]
    return {
        **{name: [getattr(found, name) for found in paper] for name in ("best", "worst", "mean")},
        "std_sample": [found.std for found in code],
        "std_population": [found.std for found in paper],
        "sharpe_code": [found.sharpe_ratio for found in code],
        "sharpe_population_unclipped": [found.sharpe_ratio for found in paper],
    }


def scope_selective_judging(hyper: Hyper, inputs: Inputs) -> Outputs:
    """A threshold of -inf, nothing is accepted, is null in the file."""
    arrays = (inputs[name] for name in ("p_forward_a", "p_reverse_a", "errors"))
    found = judging.scope_selective_judging(*arrays, alpha=hyper["alpha"])
    return {
        "mean_probability": found.probability,
        "uncertainty": found.uncertainty,
        "threshold": found.threshold if np.isfinite(found.threshold) else np.nan,
        "num_accepted": found.accepted.sum(),
        "decision_a": found.decision.astype(int),
    }


def trustjudge(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Named scores only, those with probability 0 or 1 left out as the official code does."""
    if "score_probabilities" not in inputs:
        table = {
            f"{a},{b},{c}": judging.consistent(WORDS[a], WORDS[b], WORDS[c])
            for a in WORDS
            for b in WORDS
            for c in WORDS
        }
        return {"consistent": table}
    named = inputs["score_probabilities"]
    p = np.array([float(named.get(str(score), 0)) for score in range(1, hyper["scale"] + 1)])
    options = {"temperature": hyper["temperature"], "epsilon": hyper["eps"]}
    orders = [[inputs[f"order{i}_probabilities"].get(label, 0.0) for label in "ABC"] for i in (1, 2)]
    verdict = judging.trustjudge_verdict(*orders, tolerance=hyper["tolerance"])
    return {
        "distribution_sensitive_score": judging.trustjudge(p, where=(p > 0) & (p < 1), **options),
        "geval_score": p @ np.arange(1, len(p) + 1),
        "merged": dict(zip("ABC", verdict.weights.tolist(), strict=True)),
        "decision": {sign: word for word, sign in WORDS.items()}[int(verdict.sign)],
    }


def self_consistency_rate(hyper: Hyper, inputs: Inputs) -> Outputs:
    if "answers" in inputs:
        return {"majority": voting.most_frequent(inputs["answers"])[0]}
    shares = np.asarray(inputs["answer_probabilities"])
    rates = {str(budget): voting.self_consistency_rate(shares, budget=budget) for budget in hyper["budgets"]}
    return {"infinite_budget_majority": int(np.argmax(shares)), "self_consistency_rate": rates}


def alpaca_eval_length_controlled(hyper: Hyper, inputs: Inputs) -> Outputs:
    model, baseline = (length_controlled.Weights(**inputs[f"weights_{name}"]) for name in ("model", "baseline"))
    difficulty = inputs["instruction_difficulty"]
    arrays = inputs["length_1"], inputs["length_2"], difficulty
    found = length_controlled.alpaca_eval_length_controlled(*arrays, model)
    return {
        "standardised_length_difference": found.length_difference,
        "train_predictions": found.raw_predictions,
        "length_controlled_predictions": found.predictions,
        "length_controlled_winrate": found.win_rate,
        "standard_error": found.standard_error,
        "pairwise_predicted_winrate": length_controlled.pairwise_win_rate(difficulty, model, baseline),
    }


def arena_rl(hyper: Hyper, inputs: Inputs) -> Outputs:
    if hyper["scheme"] == "swiss_rewards":
        rewards = tournaments.swiss_rewards(inputs["points"], inputs["buchholz"])
        return {"advantages": tournaments.tournament_advantages(None, len(rewards), scheme=lambda *_: rewards)}
    return arena(getattr(tournaments, hyper["scheme"]))(hyper, inputs)


def arena(scheme: tournaments.Scheme) -> Callable[[Hyper, Inputs], Outputs]:
    def adapter(hyper: Hyper, inputs: Inputs) -> Outputs:
        scores = inputs["score_first"], inputs["score_second"]
        return {"advantages": tournaments.arena_rl(*scores, scheme=scheme, epsilon=hyper.get("epsilon", 1e-6))}

    return adapter


def rlccf_vote(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Equal counts of the plain majority go to the lowest id."""
    found = voting.rlccf_vote(inputs["answers"])
    plain = voting.most_frequent(np.sort(np.asarray(inputs["answers"]), None))[0]
    return found._asdict() | {"plain_majority_label": plain}


ADAPTERS = {
    "pass_at_k": pass_at_k,
    "best_of_n": best_of_n,
    "best_of_majority": best_of_majority,
    "elo": elo,
    "bradley_terry_mle": bradley_terry_mle,
    "soft_condorcet": soft_condorcet,
    "alpha_rank": alpha_rank_,
    "rank_aggregation": rank_aggregation,
    "llm_swiss_round": llm_swiss_round,
    "sharpe_ratio_at_k": sharpe_ratio_at_k,
    "scope_selective_judging": scope_selective_judging,
    "trustjudge": trustjudge,
    "self_consistency_rate": self_consistency_rate,
    "alpaca_eval_length_controlled": alpaca_eval_length_controlled,
    "arena_rl": arena_rl,
    "arenarl_anchor_advantage": arena(tournaments.anchor),
    "arenarl_round_robin_advantage": arena(tournaments.round_robin),
    "arenarl_single_elimination_advantage": arena(tournaments.single_elimination),
    "rlccf_vote": rlccf_vote,
}
TOLERANCES = {
    "alpha_rank/stationary_distribution": (
        1e-9,
        1e-12,
        "the reference solves by eigenvectors: small masses are its rounding noise, even slightly negative",
    ),
}
# of a group of one the reference has no standard deviation: its advantage is 0
INSTEAD_OF_NAN = {name: 0.0 for name in ADAPTERS if name.startswith("arena")}


def sorts(name: str) -> Callable[[Outputs, Any], bool]:
    """A ranking is right that sorts what it ranks within 1e-12: ties and rounding leave the order open."""

    def judge(outputs: Outputs, ranking: Any) -> bool:
        return bool((np.diff(np.asarray(outputs[name])[np.asarray(ranking)]) <= 1e-12).all())

    return judge


JUDGED = {
    "alpha_rank/ranking": sorts("stationary_distribution"),
    "llm_swiss_round/ranking": sorts("expected_win_score"),
}
