"""The vocabulary: what an array of a name means and its shape, and the Protocols of the function families."""

import numbers
from collections.abc import Mapping
from typing import Any, Protocol

import jax

from rlx import errors

Array = jax.Array
Batch = Mapping[str, Any]
"""Arrays by vocabulary name, all with the same leading batch axis."""

VOCABULARY: dict[str, tuple[str, str]] = {
    # candidates on the last axis, chosen first
    "policy_logps": ("...K", "summed log-probabilities of the responses under the policy"),
    "reference_logps": ("...K", "the same under the reference policy"),
    "anchor_logps": ("...K", "the same under the anchor policy"),
    "teacher_logps": ("...K", "the same under the teacher"),
    "opponent_logps": ("...JK", "the same under J earlier policies or opponents"),
    "policy_kl_logps": ("...K", "policy log-probabilities of mismatched completions (KTO)"),
    "reference_kl_logps": ("...K", "reference log-probabilities of mismatched completions (KTO)"),
    "policy_online_logps": ("...K", "policy log-probabilities of responses sampled from the policy at this step"),
    "reference_online_logps": ("...K", "the same under the reference policy"),
    "ensemble_logps": ("...KE", "mean token log-probability of a response under every model of an ensemble"),
    "rationale_logps": ("...", "summed log-probability of a written reason for the preference, under the policy"),
    "lengths": ("...K", "response tokens"),
    "target_lengths": ("...K", "response tokens that were asked for; broadcast where its last axis is 1"),
    "think_ends": ("...K", "index of the token that closes the thinking, negative for none"),
    "rewards": ("...K", "reward of a response"),
    "baseline_rewards": ("...", "reward of the greedy response to the prompt"),
    "finished": ("...K", "whether a response ended by itself (1) or was cut (0)"),
    "scores": ("...K", "model scores to be ranked, or teacher scores"),
    "step_values": ("...K", "search value or visit count, at least 0, of the step a response goes on with"),
    "policy_errors": ("...K", "mean squared error of the noise that the policy predicts"),
    "reference_errors": ("...K", "the same under the reference policy"),
    "correct": ("...K", "0/1 verdict"),
    "judged_correct": ("...K", "1 where a critique calls the answer right, 0 where wrong"),
    "refined_correct": ("...K", "0/1 verdict on the answer refined after a critique"),
    "difficulty": ("...K", "of the prompt: 0 easy, 1 medium, 2 hard; broadcast where its last axis is 1"),
    "high_entropy_counts": ("...K", "tokens of the response that stand in windows of high entropy"),
    "diversity": ("...", "how different the responses to a prompt are, larger for more"),
    "answers": ("...K", "number of the final answer of a response: only equality counts"),
    "labels": ("...K", "desirable (1) or not (0); graded relevance"),
    "ranks": ("...K", "rank of a candidate, 1 for the best"),
    "predicted_probs": ("...K", "the model's distribution over the candidates"),
    "target_probs": ("...K", "the distribution over the candidates that is wanted"),
    "format_status": ("...", "how far a written answer could be read: 0 wholly"),
    "preference_probs": ("...", "probability that the chosen response of a pair is better"),
    "ensemble_probs": ("...E", "that probability under every model of an ensemble"),
    "win_rates": ("...K", "probability that a response beats an opponent, or the policy it was sampled from"),
    "preferences": ("...KK", "probability that response i beats response j"),
    "hidden": ("...KD", "last hidden state of a response"),
    "views": ("...KE", "embedding of a response under another draw of dropout"),
    "ensemble_rewards": ("...KE", "reward of a response under every model of an ensemble"),
    "objective_rewards": ("...KE", "reward of a response under every objective"),
    "agent_rewards": ("...KE", "own reward of every agent that worked on a response"),
    "strengths": ("...", "mean reward margin of a pair under an ensemble, or the margin asked of it"),
    "judge_logits": ("...KV", "a judge's logits at the answer, the winner presented first, then the loser"),
    "judge_probs": ("...K", "probability that a judge says yes, a query on the axis K"),
    "ideal_points": ("...E", "ideal point of the user who judged"),
    "user_ids": ("...", "number of the user who judged"),
    "embeddings": ("...KE", "preference embedding of a response"),
    "set_ids": ("...", "which of several sets of pairs a row belongs to"),
    "index": ("...", "row in the dataset"),
    "label_table": ("...", "the row's entry of a per-example label table"),
    # tokens on the last axis
    "logprobs": ("...KT", "token log-probabilities under the policy"),
    "old_logprobs": ("...KT", "the same under the proximal policy"),
    "reference_logprobs": ("...KT", "the same under the reference policy"),
    "rollout_logprobs": ("...KT", "the same as the sampler recorded them"),
    "entropy": ("...KT", "entropy of the policy at the token"),
    "expected_discriminator": (
        "...KT",
        "expectation under the policy of S_i = pi_i (H + log pi_i) over the vocabulary",
    ),
    "top_p_entropy": ("...KT", "entropy of the policy renormalised over its nucleus (SIREN's rule, p = 0.8)"),
    "history_entropy": ("...KT", "mean entropy of earlier epochs at the token's environment step, negative: none yet"),
    "renyi2": ("...KT", "Renyi entropy of order 2 of the policy at the token, -log sum p^2"),
    "token_kl": ("...KT", "KL from the reference policy to the policy at the token"),
    "reward_masks": ("...KT", "weight, at least 0, of the token's log-ratio"),
    "kl_masks": ("...KT", "weight, at least 0, of the token's KL"),
    "activations": ("...KT", "mean over the hidden dimension of the reference's activations at the token"),
    "advantages": ("...KT", "advantage, broadcast over tokens where its last axis is 1"),
    "refined": ("...KT", "1 for a token of a response refined after a critique, 0 for one of the policy's own"),
    "weights": ("...KT", "rollout importance weights of the tokens, broadcast where the last axis is 1"),
    "values": ("...KT", "value head"),
    "old_values": ("...KT", "value head when the responses were sampled"),
    "returns": ("...KT", "value targets"),
    "token_rewards": ("...KT", "reward given at a token or step"),
    "q_values": ("...KT", "value of the action taken at a step"),
    "step_ends": ("...KS", "index of the last token of a step, negative for none"),
    "tokens": ("...KT", "token ids"),
    "segment_ids": ("...KT", "segment of a token"),
    "turn_ids": ("...KT", "turn of a token"),
    # the whole distribution on the last axis
    "logits": ("...V", "student logits over classes or tokens"),
    "teacher_logits": ("...V", "teacher logits over classes or tokens"),
    "targets": ("...", "true class or token"),
    "action_values": ("...V", "reward, advantage or any number of every action or token"),
    "policy_logits": ("...KTV", "policy logits"),
    "reference_logits": ("...KTV", "reference logits"),
    "reference_states": ("...KTD", "last hidden states of the reference policy"),
    # anchor states, rollout trees, ragged groups
    "state_ids": ("...KS", "anchor state of a step"),
    "step_rewards": ("...KS", "reward of a step in an environment"),
    "tree_parent": ("...N", "parent of a node in a rollout tree: -1 for the root, less for no node"),
    "node_values": ("...N", "value of a node of a tree"),
    "node_rewards": ("...N", "outcome reward of a leaf of a tree; that of other nodes does not count"),
    "node_ids": ("...KS", "node of the rollout tree that a step leads to, negative for none"),
    "edge_ids": ("...KS", "number i N + j of the edge that a step goes along, negative for none"),
    "edges": ("...KNN", "adjacency of a sampled graph, nonzero for an edge from i to j"),
    "top_logprobs": ("...STV", "log-probabilities of the most likely tokens at a token of a step"),
    "group_where": ("...K", "real members of a ragged group"),
}
"""Name -> (shape, meaning). K candidates, T tokens, V vocabulary, J opponents, E embedding, S steps, N nodes."""


class Reduce(Protocol):
    """Turns the losses of all units into one number; ``None`` in its place asks for the units themselves."""

    def __call__(self, loss: Array, where: Array | None = None) -> Array: ...


class Loss(Protocol):
    """Differentiable arrays, constant arrays, then keywords: arrays in, array out."""

    def __call__(self, *arrays: Array, where: Array | None = None, reduce: Reduce | None = None) -> Array: ...


class Link(Protocol):
    """The loss of a margin, before a label says which side won: ``link(m)``, decreasing in m."""

    def __call__(self, margin: Array) -> Array: ...


class Ratio(Protocol):
    """Importance ratio of every token ``[..., T]`` from log-probabilities, those of the old policy and advantages."""

    def __call__(
        self, logprobs: Array, old_logprobs: Array, advantages: Array, *, where: Array | None = None
    ) -> Array: ...


class Surrogate(Protocol):
    """Per-token loss of a policy gradient from the ratio, the advantage and the token log-probability."""

    def __call__(self, ratio: Array, advantages: Array, logprobs: Array) -> Array: ...


def check_shapes(**arrays: Array | None) -> None:
    """Raises a :class:`~rlx.errors.UserError` when arrays that must share a shape do not; ``None`` is passed over.

    An axis of length 1 broadcasts, so that advantages ``[..., K, 1]`` go with log-probabilities ``[..., K, T]``.
    """
    given = {name: jax.numpy.shape(array) for name, array in arrays.items() if array is not None}
    first, shape = next(iter(given.items()))
    for name, other in given.items():
        compatible = len(other) == len(shape) and all(a == b or 1 in (a, b) for a, b in zip(other, shape, strict=True))
        if not compatible:
            raise errors.UserError(f"{name} has shape {other}, but {first} has shape {shape}: they must agree.")


def check_pairs(**arrays: Array | None) -> None:
    """:func:`check_shapes`, and the last axis must hold the two candidates of a pair, chosen first."""
    check_shapes(**arrays)
    name, array = next((name, array) for name, array in arrays.items() if array is not None)
    shape = jax.numpy.shape(array)
    if not shape or shape[-1] != 2:
        raise errors.UserError(f"{name} has shape {shape}: a pairwise loss wants [..., 2], the chosen response first.")


def check_positive(**values: Any) -> None:
    """Raises a :class:`~rlx.errors.UserError` for a hyperparameter that is not above 0; traced values pass.

    >>> check_positive(tau=0.1)
    """
    for name, value in values.items():
        if isinstance(value, numbers.Real) and not float(value) > 0:
            raise errors.UserError(f"{name} must be above 0, got {value}.")
