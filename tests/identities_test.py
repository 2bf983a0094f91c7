"""Identities between methods: the algebra in one line each, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import aggregate
from rlx.game import win_rate
from rlx.preference import compare, distillation, labels, links, token_scores

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


IDENTITIES = {
    "cdpo without smoothing is dpo": lambda: (rlx.cdpo(POLICY, REFERENCE, epsilon=0.0), rlx.dpo(POLICY, REFERENCE)),
    "rdpo without flips is dpo": lambda: (rlx.rdpo(POLICY, REFERENCE, epsilon=0.0), rlx.dpo(POLICY, REFERENCE)),
    "rdpo over both labellings is dpo": lambda: (
        0.7 * rlx.rdpo(POLICY, REFERENCE, epsilon=0.3)
        + 0.3 * rlx.rdpo(POLICY[:, SWAP], REFERENCE[:, SWAP], epsilon=0.3),
        rlx.dpo(POLICY, REFERENCE),
    ),
    "rdpo is affine in dpo of both sides": lambda: (
        rlx.rdpo(POLICY, REFERENCE, epsilon=0.2),
        (0.8 * rlx.dpo(POLICY, REFERENCE) - 0.2 * rlx.dpo(POLICY[:, SWAP], REFERENCE[:, SWAP])) / 0.6,
    ),
    "dpo with a soft label of one half is symmetric": lambda: (
        rlx.dpo(POLICY, REFERENCE, label=0.5),
        rlx.dpo(POLICY[:, SWAP], REFERENCE[:, SWAP], label=0.5),
    ),
    "cdpo is dpo with a soft label": lambda: (
        rlx.cdpo(POLICY, REFERENCE, epsilon=0.1),
        rlx.dpo(POLICY, REFERENCE, label=labels.soft(jnp.asarray(0.9))),
    ),
    "dpo without a reference has none": lambda: (
        rlx.dpo_reference_free(POLICY),
        rlx.dpo(POLICY, np.zeros_like(POLICY)),
    ),
    "dpo of the reference itself is log 2": lambda: (rlx.dpo(REFERENCE, REFERENCE), np.log(2)),
    "cdpo of the reference itself is log 2": lambda: (rlx.cdpo(REFERENCE, REFERENCE), np.log(2)),
    "rdpo of the reference itself is log 2": lambda: (rlx.rdpo(REFERENCE, REFERENCE), np.log(2)),
    "tdpo of the reference itself is log 2": lambda: (rlx.tdpo(LOGITS, LOGITS, TOKENS), np.log(2)),
    "ipo with a squared link is dpo's shape": lambda: (
        rlx.ipo(POLICY, REFERENCE, tau=0.1),
        rlx.dpo(POLICY, REFERENCE, beta=1.0, link=links.squared(5.0)),
    ),
    "ipo over unit lengths is the literal one": lambda: (
        rlx.ipo(POLICY, REFERENCE, ONES, length_normalize=True),
        rlx.ipo(POLICY, REFERENCE, length_normalize=False),
    ),
    "simpo without margin over unit lengths is reference-free dpo": lambda: (
        rlx.simpo(POLICY, ONES, beta=0.3, gamma=0.0),
        rlx.dpo_reference_free(POLICY, beta=0.3),
    ),
    "power without regularisation over unit lengths is reference-free dpo": lambda: (
        rlx.power(POLICY, ONES, beta=0.3, eta=0.0),
        rlx.dpo_reference_free(POLICY, beta=0.3),
    ),
    "power_dl with labels of one is power": lambda: (
        rlx.power_dl(POLICY, LENGTHS, np.ones(6)),
        rlx.power(POLICY, LENGTHS),
    ),
    "adpo_pairwise with a hard label is dpo": lambda: (
        rlx.adpo_pairwise(POLICY, REFERENCE, np.ones(6), tau=10.0),
        rlx.dpo(POLICY, REFERENCE, beta=0.1),
    ),
    "adpo_pairwise with a smoothed label is cdpo": lambda: (
        rlx.adpo_pairwise(POLICY, REFERENCE, np.full(6, 0.8), tau=10.0),
        rlx.cdpo(POLICY, REFERENCE, beta=0.1, epsilon=0.2),
    ),
    "adpo_listwise of two is adpo_pairwise": lambda: (
        rlx.adpo_listwise(POLICY, REFERENCE, SCORES[:, :2], tau=0.5, beta_r=0.7),
        rlx.adpo_pairwise(POLICY, REFERENCE, 1 / (1 + np.exp(-(SCORES[:, 0] - SCORES[:, 1]) / 0.7)), tau=0.5),
    ),
    "adpo_listwise of two with far scores is dpo": lambda: (
        rlx.adpo_listwise(POLICY, REFERENCE, np.array([[1e4, 0.0]] * 6), tau=2.0),
        rlx.dpo(POLICY, REFERENCE, beta=0.5),
    ),
    "adpo_listwise does not see a constant added to the scores": lambda: (
        rlx.adpo_listwise(LIST, LIST_REFERENCE, SCORES + 3),
        rlx.adpo_listwise(LIST, LIST_REFERENCE, SCORES),
    ),
    "bradley_terry_rm is reference-free dpo on rewards": lambda: (
        rlx.bradley_terry_rm(SCORES[:, :2], tau=0.5),
        rlx.dpo_reference_free(SCORES[:, :2], beta=2.0),
    ),
    "gpm whose rejected side is fixed is bradley_terry_rm": lambda: (
        rlx.gpm(np.stack([SCORES[:, :2], np.tile([0.0, 1.0], (6, 1))], axis=-2), tau=0.5),
        rlx.bradley_terry_rm(np.stack([SCORES[:, 0], np.zeros(6)], -1), tau=0.5),
    ),
    "gpm of equal embeddings is log 2": lambda: (rlx.gpm(np.tile(SCORES[:, None, :4], (1, 2, 1))), np.log(2)),
    "listmle of two is the logistic loss": lambda: (
        rlx.listmle(POLICY, np.array([[1.0, 0.0]] * 6)),
        logistic(POLICY[:, 0] - POLICY[:, 1]).mean(),
    ),
    "listmle does not see a constant added to the scores": lambda: (
        rlx.listmle(SCORES + 7, LIST),
        rlx.listmle(SCORES, LIST),
    ),
    "pld with a top-1 weight is cross-entropy": lambda: (
        rlx.pld(SCORES, LIST, np.arange(5).repeat(2)[:6], weighting=distillation.top1),
        -np.mean([(s - np.logaddexp.reduce(s))[t] for s, t in zip(SCORES, np.arange(5).repeat(2)[:6], strict=True)]),
    ),
    "pld with uniform weights is listmle over the classes": lambda: (
        rlx.pld(SCORES, LIST, LIST.argmax(-1), weighting=distillation.uniform),
        rlx.listmle(SCORES, LIST) / 5,
    ),
    "pld does not see a constant added to a row": lambda: (
        rlx.pld(SCORES + 5, LIST, LIST.argmax(-1)),
        rlx.pld(SCORES, LIST, LIST.argmax(-1)),
    ),
    "plackett_luce terms sum to the log-likelihood of the ranking": lambda: (
        compare.plackett_luce(jnp.asarray(uniform_list(SCORES)), jnp.tile(jnp.arange(5), (6, 1)))[0].sum(-1),
        [sum(np.logaddexp.reduce(s[k:]) - s[k] for k in range(5)) for s in uniform_list(SCORES)],
    ),
    "cross_entropy with a one-hot target is the negative log-softmax": lambda: (
        compare.cross_entropy(jnp.asarray(SCORES), jnp.asarray(FIRST, float)),
        np.logaddexp.reduce(SCORES, -1) - SCORES[:, 0],
    ),
    "kto without a reference point is apo_zero_unpaired": lambda: (
        rlx.kto(POLICY, REFERENCE, np.eye(2)[[0, 1, 1, 0, 0, 1]], reference_point=0.0),
        rlx.apo_zero_unpaired(POLICY, REFERENCE, np.eye(2)[[0, 1, 1, 0, 0, 1]]),
    ),
    "kto of a policy at its reference is one half": lambda: (
        rlx.kto(POLICY, POLICY, np.eye(2)[[0, 1, 1, 0, 0, 1]], POLICY, POLICY),
        0.5,
    ),
    "sft is the mean negative log-likelihood": lambda: (rlx.sft(LOGPROBS), -LOGPROBS.mean()),
    "ppo at ratio one is the mean negative advantage": lambda: (
        rlx.ppo_clip_loss(LOGPROBS, LOGPROBS, ADVANTAGES),
        -ADVANTAGES.mean(),
    ),
    "gspo of one token is ppo": lambda: (
        rlx.gspo_loss(LOGPROBS[..., :1], OLD[..., :1], ADVANTAGES, clip_low=0.2, clip_high=0.2),
        rlx.ppo_clip_loss(LOGPROBS[..., :1], OLD[..., :1], ADVANTAGES),
    ),
    "clip_cov that keeps all is ppo": lambda: (
        rlx.clip_cov(LOGPROBS, OLD, ADVANTAGES, clip_low=0.2, clip_high=0.2, keep=np.ones(LOGPROBS.shape, bool)),
        rlx.ppo_clip_loss(LOGPROBS, OLD, ADVANTAGES),
    ),
    "kl_cov that selects nothing is the unclipped surrogate": lambda: (
        rlx.kl_cov(LOGPROBS, OLD, ADVANTAGES, selected=np.zeros(LOGPROBS.shape, bool)),
        -(ADVANTAGES * np.exp(LOGPROBS - OLD)).mean(),
    ),
    "ppo that never clips is the unclipped surrogate": lambda: (
        rlx.ppo_clip_loss(LOGPROBS, OLD, ADVANTAGES, clip_low=1e6, clip_high=1e6),
        rlx.kl_cov(LOGPROBS, OLD, ADVANTAGES, selected=np.zeros(LOGPROBS.shape, bool)),
    ),
    "grpo advantages of a group sum to zero": lambda: (rlx.grpo_advantage(SCORES).sum(-2), np.zeros((6, 1))),
    "grpo advantages do not see a scale of the rewards": lambda: (
        rlx.grpo_advantage(3 * SCORES + 1, epsilon=0.0),
        rlx.grpo_advantage(SCORES, epsilon=0.0),
    ),
    "gae at lambda one is the return minus the value": lambda: (
        rlx.gae_advantage(SCORES, LIST, gamma=1.0, lam=1.0).advantages,
        SCORES[:, ::-1].cumsum(-1)[:, ::-1] - LIST,
    ),
    "gae at lambda zero is the one-step error": lambda: (
        rlx.gae_advantage(SCORES, LIST, gamma=0.9, lam=0.0).advantages,
        SCORES + 0.9 * np.pad(LIST[:, 1:], ((0, 0), (0, 1))) - LIST,
    ),
    "kl_in_reward without a coefficient leaves the reward": lambda: (
        rlx.kl_in_reward(SCORES, LIST, LIST_REFERENCE, beta=0.0),
        SCORES,
    ),
    "sequence_mean over rows of one length is token_mean": lambda: (
        aggregate.sequence_mean(jnp.asarray(SCORES)),
        aggregate.token_mean(jnp.asarray(SCORES)),
    ),
    "constant of the row length is token_mean": lambda: (
        aggregate.constant(5)(jnp.asarray(SCORES)),
        aggregate.token_mean(jnp.asarray(SCORES)),
    ),
    "inpo with tau equal to eta is ipo": lambda: (
        rlx.inpo(POLICY, REFERENCE, OPPONENTS, eta=0.1, tau=0.1),
        rlx.ipo(POLICY, REFERENCE, tau=0.1),
    ),
    "inpo whose last policy is the reference is ipo": lambda: (
        rlx.inpo(POLICY, REFERENCE, REFERENCE[:, None], eta=0.1, tau=0.03),
        rlx.ipo(POLICY, REFERENCE, tau=0.1),
    ),
    "mnpo with one opponent is inpo with tau its share of the reference": lambda: (
        rlx.mnpo(POLICY, REFERENCE, OPPONENTS[:, :1], eta=0.1, ratio=0.3),
        rlx.inpo(POLICY, REFERENCE, OPPONENTS[:, :1], eta=0.1, tau=0.03),
    ),
    "mnpo of one opponent twice is mnpo of it once": lambda: (
        rlx.mnpo(POLICY, REFERENCE, OPPONENTS[:, [0, 0]], weights=[0.3, 5.0]),
        rlx.mnpo(POLICY, REFERENCE, OPPONENTS[:, :1]),
    ),
    "onpo is ipo towards its auxiliary policy": lambda: (
        rlx.onpo(POLICY, REFERENCE[:, None], eta=0.4),
        rlx.ipo(POLICY, REFERENCE, tau=2.5),
    ),
    "onpo is inpo without a reference": lambda: (
        rlx.onpo(POLICY, OPPONENTS[:, :1], eta=0.4),
        rlx.inpo(POLICY, REFERENCE, OPPONENTS[:, :1], eta=2.5, tau=0.0),
    ),
    "gpo on centred win rates is sppo": lambda: (
        rlx.gpo_general_preference(POLICY, REFERENCE, WON - 0.5, beta=0.2),
        rlx.sppo(POLICY, REFERENCE, WON, beta=0.2),
    ),
    "egpo_llm on certain wins is ipo": lambda: (
        rlx.egpo_llm(POLICY, REFERENCE, np.array([[1.0, 0.0]] * 6), beta=0.2),
        rlx.ipo(POLICY, REFERENCE, tau=0.1),
    ),
    "egpo counts a pair once in four where egpo_llm counts it alone": lambda: (
        2 * rlx.egpo(POLICY, REFERENCE, WON),
        rlx.egpo_llm(POLICY, REFERENCE, WON),
    ),
    "egpo is twice the variance of what the log-ratios miss": lambda: (
        rlx.egpo(SCORES, LIST, SCORES[::-1], beta=0.5),
        2 * np.var(SCORES - LIST - SCORES[::-1] / 0.5, axis=-1).mean(),
    ),
    "egpo against the policy itself is online_ipo_omd": lambda: (
        rlx.egpo(SCORES, LIST, win_rate.against(PREFERENCES, SCORES)),
        rlx.online_ipo_omd(SCORES, LIST, PREFERENCES),
    ),
    "nash_md_regression against the reference is egpo against it": lambda: (
        rlx.nash_md_regression(SCORES, LIST, PREFERENCES, mixture_coef=1.0),
        rlx.egpo(SCORES, LIST, win_rate.against(PREFERENCES, LIST)),
    ),
    "online_ipo of two samples is egpo_llm against each other": lambda: (
        rlx.online_ipo(POLICY, REFERENCE, PREFERENCES[:, :2, :2], beta=0.2, sampled=True),
        rlx.egpo_llm(POLICY, REFERENCE, rlx.spo_minimaximalist(PREFERENCES[:, :2, :2]), beta=0.4),
    ),
    "xpo without optimism is dpo with a soft label": lambda: (
        rlx.xpo(POLICY, REFERENCE, WON[:, 0], alpha=0.0),
        rlx.dpo(POLICY, REFERENCE, label=jnp.asarray(WON[:, 0])),
    ),
    "nash_md without regularisation is a policy gradient on centred win rates": lambda: (
        rlx.nash_md(LOGPROBS, OLD, np.full((3, 4), 0.8), beta=0.0),
        -0.3 * LOGPROBS.sum(-1).mean(),
    ),
    "minimax rewards of a group sum to half its size": lambda: (
        rlx.spo_minimaximalist(PREFERENCES).sum(-1),
        np.full(6, 2.5),
    ),
    "yojo_nway of two is bradley_terry_rm": lambda: (rlx.yojo_nway(POLICY), rlx.bradley_terry_rm(POLICY)),
    "yojo_nway is infonca with all of the target on the first": lambda: (
        rlx.yojo_nway(LIST - LIST_REFERENCE),
        rlx.infonca(LIST, LIST_REFERENCE, np.where(FIRST, 1e4, 0.0) + 0 * LIST, beta=1.0),
    ),
    "worldpm is dpo on rewards": lambda: (rlx.worldpm(POLICY), rlx.dpo(POLICY, np.zeros((6, 2)), beta=1.0)),
    "secrets_rlhf2 without strengths is bradley_terry_rm": lambda: (
        rlx.secrets_rlhf2(POLICY, np.zeros(6), epsilon=0.1),
        rlx.bradley_terry_rm(POLICY, epsilon=0.1),
    ),
    "implicit_prm_pairwise is dpo": lambda: (
        rlx.implicit_prm_pairwise(POLICY, REFERENCE, beta=0.3),
        rlx.dpo(POLICY, REFERENCE, beta=0.3),
    ),
    "implicit_prm_nca is nca with a certain pair": lambda: (
        rlx.implicit_prm_nca(POLICY, REFERENCE, beta=0.3),
        rlx.nca(POLICY, REFERENCE, certain_pair(), beta=0.3),
    ),
    "nca of two is the formula of pairs": lambda: (
        rlx.nca(POLICY, REFERENCE, certain_pair(), beta=0.3, reduce=None),
        logistic(0.3 * (POLICY - REFERENCE)[:, 0]) + logistic(-0.3 * (POLICY - REFERENCE)).mean(-1),
    ),
    "infonca is adpo_listwise at the inverse temperature": lambda: (
        rlx.infonca(LIST, LIST_REFERENCE, SCORES, beta=0.2, alpha=0.5),
        rlx.adpo_listwise(LIST, LIST_REFERENCE, SCORES, tau=5.0, beta_r=0.5),
    ),
    "implicit_prm_ce of a right and a wrong response is biased nca": lambda: (
        2 * rlx.implicit_prm_ce(POLICY, REFERENCE, np.array([[1, 0]] * 6), beta=0.3),
        rlx.implicit_prm_pairwise(POLICY, REFERENCE, beta=0.3, objective="biased_nca"),
    ),
    "implicit_prm_kto below the reference is half of kto at 0": lambda: (
        rlx.implicit_prm_kto(-ONES - POLICY**2, np.zeros((6, 2)), beta=0.3),
        rlx.kto(-ONES - POLICY**2, np.zeros((6, 2)), np.array([[1, 0]] * 6), beta=0.3, reference_point=0.0),
    ),
    "step rewards add up to the response": lambda: (
        rlx.implicit_prm_step_rewards(LOGPROBS, OLD, np.broadcast_to([2, 4, 6], (3, 4, 3))).step_rewards.sum(-1),
        0.05 * (LOGPROBS - OLD).sum(-1),
    ),
    "regret_preference with optimal values of 0 is the partial return of the advantages": lambda: (
        rlx.regret_preference(LOGPROBS[:, :2], np.zeros((3, 2, 7))),
        rlx.partial_return_preference(LOGPROBS[:, :2]),
    ),
    "gpm on two dimensions of reward and 1 is bradley_terry_rm": lambda: (
        rlx.gpm(np.stack([POLICY, ONES], -1), tau=1.0),
        rlx.bradley_terry_rm(POLICY),
    ),
    "multi_objective_grpo of equal objectives is grpo": lambda: (
        rlx.multi_objective_grpo_advantage(np.stack([SCORES] * 3, -1)),
        rlx.grpo_advantage(SCORES),
    ),
    "onereward_reward_model of two tokens is bradley_terry_rm in both orders": lambda: (
        rlx.onereward_reward_model(LOGITS[:, :, 0, :2], affirmative_token=0, negative_token=1),
        (rlx.worldpm(LOGITS[:, 0, 0, :2]) + rlx.worldpm(LOGITS[:, 1, 0, 1::-1])) / 2,
    ),
    "pal at far ideal points is bradley_terry_rm along their direction": lambda: (
        rlx.pal(np.stack([POLICY, REFERENCE], -1), np.tile([1e9, 0.0], (6, 1)), loss="logistic", reduce=None).round(5),
        rlx.bradley_terry_rm(POLICY, reduce=None).round(5),
    ),
    "maxmin_rlhf of a reward and its negative stays at the reference": lambda: (
        rlx.maxmin_rlhf(np.stack([SCORES, -SCORES], 1), np.zeros((6, 5)), tolerance=1e-12).objectives.round(8),
        np.zeros((6, 2)),
    ),
    "best_of_n by correctness is pass_at_k": lambda: (
        rlx.best_of_n(FIRST * ONES[:, :1], FIRST * ONES[:, :1], k=3).per_problem,
        rlx.pass_at_k(FIRST * ONES[:, :1], k=3).per_problem,
    ),
    "majority_at_k of one sample is pass_at_k of one": lambda: (
        rlx.majority_at_k(TOKENS[..., 0], TOKENS[..., 0] == 0, k=1).per_problem,
        rlx.pass_at_k(TOKENS[..., 0] == 0, k=1).per_problem,
    ),
    "self_consistency_rate of one sample is the largest share": lambda: (
        rlx.self_consistency_rate(jax.nn.softmax(SCORES[0]), budget=1),
        jax.nn.softmax(SCORES[0]).max(),
    ),
    "bradley_terry_mle of two players is the log-odds": lambda: (
        np.diff(rlx.bradley_terry_mle(np.array([[0, 2.0], [6.0, 0]])).log_strengths)[0],
        np.log(3.0),
    ),
    "alpha_rank of a game nobody gains in is uniform": lambda: (
        rlx.alpha_rank(np.ones((5, 5))).stationary_distribution,
        np.full(5, 0.2),
    ),
    "borda of the matrix of preferences is spo_minimaximalist": lambda: (
        rlx.borda(PREFERENCES[0]) / 4,
        rlx.spo_minimaximalist(PREFERENCES[0]),
    ),
    "trustjudge of an even judge is the mean score": lambda: (rlx.trustjudge(np.full(5, 0.2)), 3.0),
    "listnet is adpo_listwise without an anchor at temperature one": lambda: (
        rlx.listnet(SCORES, LIST),
        rlx.adpo_listwise(SCORES, np.zeros_like(SCORES), LIST, tau=1.0, beta_r=1.0),
    ),
    "ranknet is lambdaloss without weights": lambda: (
        rlx.ranknet(SCORES, LIST),
        rlx.lambdaloss(SCORES, LIST, weighting="none"),
    ),
    "ranknet of two is reference-free dpo": lambda: (
        rlx.ranknet(POLICY, np.array([[1.0, 0.0]] * 6)),
        rlx.dpo_reference_free(POLICY, beta=1.0),
    ),
    "lambdaloss_allrank without weights is the sum of ranknet": lambda: (
        rlx.lambdaloss_allrank(SCORES, LIST, weighting="none", base=np.e),
        rlx.ranknet(SCORES, LIST, reduce=aggregate.total),
    ),
    "dcg of a list is lambdarank times its size": lambda: (
        rlx.lambdaloss(SCORES, -LIST),
        5 * rlx.lambdaloss(SCORES, -LIST, weighting="lambdarank"),
    ),
    "lipo_lambda of two is dpo times the discount they contest": lambda: (
        rlx.lipo_lambda(POLICY, REFERENCE, np.array([[1.0, 0.0]] * 6), beta=0.1),
        rlx.dpo(POLICY, REFERENCE, beta=0.1) * (1 / np.log(2) - 1 / np.log(3)),
    ),
    "dpo_pl of two is dpo": lambda: (rlx.dpo_pl(POLICY, REFERENCE, beta=0.1), rlx.dpo(POLICY, REFERENCE, beta=0.1)),
    "dpo_pl is listmle of the implicit rewards": lambda: (
        rlx.dpo_pl(LIST, LIST_REFERENCE, beta=0.1),
        rlx.listmle(0.1 * (LIST - LIST_REFERENCE), np.tile(-np.arange(5), (6, 1))),
    ),
    "dpo_pl of the best against the rest is adpo_listwise with far scores": lambda: (
        rlx.dpo_pl(LIST, LIST_REFERENCE, beta=0.5, top_k=1),
        rlx.adpo_listwise(LIST, LIST_REFERENCE, np.where(FIRST, 1e4, 0.0).repeat(6, 0), tau=2.0),
    ),
    "pro of two without fine-tuning is simpo with the gap as beta": lambda: (
        rlx.pro(POLICY, LENGTHS, np.array([[1.7, 0.0]] * 6), sft_weight=0.0, epsilon=0.0),
        rlx.simpo(POLICY, LENGTHS, beta=1.7, gamma=0.0),
    ),
    "irpo of two is half of dpo, summed": lambda: (
        rlx.irpo(POLICY, REFERENCE, np.array([[1.0, 0.0]] * 6), beta=0.1),
        3 * rlx.dpo(POLICY, REFERENCE, beta=0.1),
    ),
    "hinton_kd of the true class alone is pld with a top-1 weight": lambda: (
        rlx.hinton_kd(SCORES, LIST, np.arange(6) % 5, alpha=1.0),
        rlx.pld(SCORES, LIST, np.arange(6) % 5, weighting="top1"),
    ),
    "hinton_kd of the teacher alone is listnet less the entropy of the teacher": lambda: (
        rlx.hinton_kd(SCORES, LIST, np.zeros(6, int), alpha=0.0, temperature=1.0),
        rlx.listnet(SCORES, LIST) - rlx.listnet(LIST, LIST),
    ),
    "adpo_softmax of sums that are never clipped is adpo_listwise": lambda: (
        rlx.adpo_softmax(LOGPROBS, OLD, ADVANTAGES, length_normalize=False, clip_log_ratio=1e9, clip_score=1e9),
        rlx.adpo_listwise(LOGPROBS.sum(-1), OLD.sum(-1), ADVANTAGES[..., 0], tau=0.5, beta_r=0.3),
    ),
    "adpo_infonce is adpo_softmax with a sharp target": lambda: (
        rlx.adpo_infonce(LOGPROBS, OLD, ADVANTAGES),
        rlx.adpo_softmax(LOGPROBS, OLD, ADVANTAGES, beta_r=1e-6),
    ),
    "adpo_all_pairs of two is adpo_infonce": lambda: (
        rlx.adpo_all_pairs(LOGPROBS[:, :2], OLD[:, :2], ADVANTAGES[:, :2]),
        rlx.adpo_infonce(LOGPROBS[:, :2], OLD[:, :2], ADVANTAGES[:, :2]),
    ),
    "smoothed advantages of two are opposite": lambda: (
        rlx.adpo_kde_advantage(SCORES[:, :2]).sum(-2),
        np.zeros((6, 1)),
    ),
    "ndcg of the labels' own order is one": lambda: (rlx.ranking_metrics(-LIST, -LIST).ndcg, np.ones(6)),
    "a ranking of two queries steps along their difference": lambda: (
        rlx.zo_rank_gradient(SCORES[:2], np.array([1, 0])).gradient,
        SCORES[0] - SCORES[1],
    ),
    "ld_dpo with alpha one is dpo of the sums": lambda: (
        rlx.ld_dpo(TOKEN_LOGPS, TOKEN_REFERENCE, alpha=1.0),
        rlx.dpo(TOKEN_LOGPS.sum(-1), TOKEN_REFERENCE.sum(-1)),
    ),
    "ld_dpo of responses of one length is dpo whatever alpha is": lambda: (
        rlx.ld_dpo(TOKEN_LOGPS, TOKEN_REFERENCE, alpha=0.0),
        rlx.dpo(TOKEN_LOGPS.sum(-1), TOKEN_REFERENCE.sum(-1)),
    ),
    "wpo of on-policy pairs is dpo": lambda: (
        rlx.wpo(TOKEN_LOGPS, -TOKEN_LOGPS, TOKEN_REFERENCE),
        rlx.dpo(TOKEN_LOGPS.sum(-1), TOKEN_REFERENCE.sum(-1)),
    ),
    "sparsepo with masks of one is tdpo1": lambda: (
        rlx.sparsepo(said().logprobs, said().kl, MASKS, MASKS, said().reference_logprobs),
        rlx.tdpo1(LOGITS, REFERENCE_LOGITS, TOKENS),
    ),
    "sparsepo with no mask on the kl is dpo": lambda: (
        rlx.sparsepo(said().logprobs, said().kl, MASKS, 0 * MASKS, said().reference_logprobs),
        rlx.dpo(said().logprobs.sum(-1), said().reference_logprobs.sum(-1)),
    ),
    "mapo of equal activations is tdpo1": lambda: (
        rlx.mapo(LOGITS, REFERENCE_LOGITS, TOKENS, np.ones((*TOKENS.shape, 4))),
        rlx.tdpo1(LOGITS, REFERENCE_LOGITS, TOKENS),
    ),
    "cpl of single steps is reference-free dpo": lambda: (
        rlx.cpl(POLICY[..., None], alpha=0.1),
        rlx.dpo_reference_free(POLICY, beta=0.1),
    ),
    "cpl of a list of two scored segments is cpl of a pair": lambda: (
        rlx.cpl_dense(TOKEN_LOGPS, np.broadcast_to([1.0, 0.0], (6, 2)), bias=0.5, bc_coeff=0.3),
        rlx.cpl(TOKEN_LOGPS, bias=0.5, bc_coeff=0.3),
    ),
    "mcts_dpo is dpo on what follows a shared beginning": lambda: (
        rlx.mcts_dpo(TOKEN_LOGPS, TOKEN_REFERENCE, STEPS),
        rlx.dpo(TOKEN_LOGPS[..., 1:].sum(-1), TOKEN_REFERENCE[..., 1:].sum(-1)),
    ),
    "mcts_dpo of steps visited as often is dpo without a preference": lambda: (
        rlx.mcts_dpo(TOKEN_LOGPS, TOKEN_REFERENCE, STEPS, 7 * ONES),
        rlx.dpo(TOKEN_LOGPS[..., 1:].sum(-1), TOKEN_REFERENCE[..., 1:].sum(-1), label=0.5),
    ),
    "spa_self_refinement during its warm-up is dpo": lambda: (
        rlx.spa_self_refinement(LOGITS, REFERENCE_LOGITS, TOKENS, threshold=1e9, progress=0.1),
        rlx.dpo(said().logprobs.sum(-1), said().reference_logprobs.sum(-1)),
    ),
    "spa_self_refinement that trusts nothing is cdpo": lambda: (
        rlx.spa_self_refinement(LOGITS, REFERENCE_LOGITS, TOKENS, threshold=1e9, alpha=0.3),
        rlx.cdpo(said().logprobs.sum(-1), said().reference_logprobs.sum(-1), epsilon=0.3),
    ),
    "diffusion_dro is a scaled hinge of errors": lambda: (
        rlx.diffusion_dro(-POLICY, -REFERENCE, margin=5.0),
        5.0 * rlx.dpo(POLICY, REFERENCE, beta=1 / 5.0, link=links.hinge),
    ),
    "dpo_hinge is the hinge-norm loss of rso": lambda: (
        rlx.dpo_hinge(POLICY, REFERENCE, beta=0.05),
        rlx.rso_hinge_norm(POLICY, REFERENCE),
    ),
    "rso_sigmoid_norm is dpo with its gamma as beta": lambda: (
        rlx.rso_sigmoid_norm(POLICY, REFERENCE),
        rlx.dpo(POLICY, REFERENCE, beta=0.05),
    ),
    "rso_hinge is dpo_hinge without a reference": lambda: (
        rlx.rso_hinge(POLICY),
        rlx.dpo_hinge(POLICY, np.zeros_like(POLICY), beta=0.05),
    ),
    "dpo_length_normalized over unit lengths is dpo": lambda: (
        rlx.dpo_length_normalized(POLICY, REFERENCE, ONES, beta=0.1),
        rlx.dpo(POLICY, REFERENCE),
    ),
    "ipo per token is dpo_length_normalized with a squared link": lambda: (
        rlx.ipo(POLICY, REFERENCE, LENGTHS, tau=0.1, length_normalize=True),
        rlx.dpo_length_normalized(POLICY, REFERENCE, LENGTHS, beta=1.0, link=links.squared(5.0)),
    ),
    "fdpo with the reverse kl is dpo": lambda: (
        rlx.fdpo(POLICY, REFERENCE, divergence="reverse_kl"),
        rlx.dpo(POLICY, REFERENCE),
    ),
    "fdpo with alpha one is fdpo with the forward kl": lambda: (
        rlx.fdpo(POLICY, REFERENCE, divergence="alpha", alpha=1.0),
        rlx.fdpo(POLICY, REFERENCE, divergence="forward_kl"),
    ),
    "fdpo with alpha zero is dpo": lambda: (
        rlx.fdpo(POLICY, REFERENCE, divergence="alpha", alpha=0.0),
        rlx.dpo(POLICY, REFERENCE),
    ),
    "fdpo with a tiny alpha is nearly dpo": lambda: (
        rlx.fdpo(POLICY, REFERENCE, divergence="alpha", alpha=1e-13),
        rlx.dpo(POLICY, REFERENCE),
    ),
    "exo_pair is cdpo the other way round: both vanish at the label, less its entropy": lambda: (
        rlx.exo_pair(np.array([np.log(9.0), 0.0]), np.zeros(2), beta=1.0, epsilon=0.1),
        rlx.cdpo(np.array([np.log(9.0), 0.0]), np.zeros(2), beta=1.0, epsilon=0.1)
        + 0.9 * np.log(0.9)
        + 0.1 * np.log(0.1),
    ),
    "osp is dpo with a soft label": lambda: (
        rlx.osp(POLICY, REFERENCE, WON[:, 0]),
        rlx.dpo(POLICY, REFERENCE, label=jnp.asarray(WON[:, 0])),
    ),
    "nca_pair is nca with a certain pair": lambda: (
        rlx.nca_pair(POLICY, REFERENCE),
        rlx.nca(POLICY, REFERENCE, certain_pair()),
    ),
    "bco_pair at threshold 0 is the biased nca of implicit rewards": lambda: (
        rlx.bco_pair(POLICY, REFERENCE, beta=0.05, delta=0.0),
        rlx.implicit_prm_pairwise(POLICY, REFERENCE, objective="biased_nca"),
    ),
    "sppo_hard is twice sppo of certain wins": lambda: (
        rlx.sppo_hard(POLICY, REFERENCE, beta=0.2),
        2 * rlx.sppo(POLICY, REFERENCE, np.tile([1.0, 0.0], (6, 1)), beta=0.2),
    ),
    "apo_zero is apo_zero_unpaired of both responses, summed": lambda: (
        rlx.apo_zero(POLICY, REFERENCE),
        2 * rlx.apo_zero_unpaired(POLICY, REFERENCE, np.tile([1.0, 0.0], (6, 1))),
    ),
    "apo_zero of the reference itself is 1": lambda: (rlx.apo_zero(REFERENCE, REFERENCE), np.ones(())),
    "aot of one pair is dpo": lambda: (rlx.aot(POLICY[:1], REFERENCE[:1]), rlx.dpo(POLICY[:1], REFERENCE[:1])),
    "aot_unpaired of one pair is cdpo": lambda: (
        rlx.aot_unpaired(POLICY[:1], REFERENCE[:1], epsilon=0.2),
        rlx.cdpo(POLICY[:1], REFERENCE[:1], epsilon=0.2),
    ),
    "aot_unpaired does not see how responses are paired": lambda: (
        rlx.aot_unpaired(POLICY, REFERENCE),
        rlx.aot_unpaired(*(np.stack([x[:, 0], x[::-1, 1]], -1) for x in (POLICY, REFERENCE))),
    ),
    "alphapo with alpha zero is simpo": lambda: (
        rlx.alphapo_reward_shape(POLICY, LENGTHS, alpha=0.0, beta=2.0, gamma=1.0),
        rlx.simpo(POLICY, LENGTHS),
    ),
    "alphapo with alpha minus one compares probabilities": lambda: (
        rlx.alphapo_reward_shape(POLICY, ONES, alpha=-1.0, beta=2.0, gamma=0.0),
        rlx.dpo_reference_free(np.exp(POLICY), beta=2.0),
    ),
    "cpo without fine-tuning is reference-free dpo": lambda: (
        rlx.cpo(POLICY, LENGTHS, alpha=0.0),
        rlx.dpo_reference_free(POLICY),
    ),
    "orpo without fine-tuning is reference-free dpo on log-odds": lambda: (
        rlx.orpo(POLICY, ONES, beta=1.0, alpha=0.0),
        rlx.dpo_reference_free(POLICY - np.log(-np.expm1(POLICY)), beta=1.0),
    ),
    "orpo and cpo add the same fine-tuning": lambda: (
        rlx.orpo(POLICY, LENGTHS) - rlx.orpo(POLICY, LENGTHS, alpha=0.0),
        rlx.cpo(POLICY, LENGTHS) - rlx.cpo(POLICY, LENGTHS, alpha=0.0),
    ),
    "d2o of one sample is dpo": lambda: (rlx.d2o(POLICY, REFERENCE), rlx.dpo(POLICY, REFERENCE)),
    "hypo without its kl is dpo": lambda: (
        rlx.hypo(POLICY, REFERENCE, LIST, LIST_REFERENCE, kl_coef=0.0),
        rlx.dpo(POLICY, REFERENCE),
    ),
    "poft of aligned models that agree with the policy is log 2": lambda: (
        rlx.poft(POLICY, LENGTHS, (POLICY / LENGTHS)[..., None]),
        np.log(2),
    ),
    "rationale_dpo of a certain rationale is dpo": lambda: (
        rlx.rationale_dpo(POLICY, REFERENCE, np.zeros(6), link=links.linear),
        rlx.dpo(POLICY, REFERENCE),
    ),
    "upo with a given smoothing is cdpo": lambda: (
        rlx.upo(POLICY, REFERENCE, WON, alpha=0.1),
        rlx.cdpo(POLICY, REFERENCE, epsilon=0.1),
    ),
    "bidedpo of one set is dpo": lambda: (
        rlx.bidedpo_loss_balancing(POLICY, REFERENCE, np.zeros(6, int)),
        rlx.dpo(POLICY, REFERENCE),
    ),
    "differential information of the reference itself is uniform": lambda: (
        rlx.differential_information(LIST, LIST).did,
        np.full((6, 5), 0.2),
    ),
    "token credit adds up to the implicit reward of dpo": lambda: (
        logistic(
            margin(*(rlx.dpo_token_credit(x, np.zeros_like(x)).sequence_reward for x in (TOKEN_LOGPS, TOKEN_REFERENCE)))
        ),
        rlx.dpo(TOKEN_LOGPS.sum(-1), TOKEN_REFERENCE.sum(-1), reduce=None),
    ),
    "hypo of samples that have not drifted is dpo": lambda: (
        rlx.hypo(POLICY, REFERENCE, LIST, LIST, kl_coef=1.0),
        rlx.dpo(POLICY, REFERENCE),
    ),
    "upo of estimators that agree is dpo with a label of 1/(1 + B)": lambda: (
        rlx.upo(POLICY, REFERENCE, np.full((6, 10), 0.3)),
        rlx.dpo(POLICY, REFERENCE, label=1 / 7),
    ),
    "d2o does not see a sample repeated": lambda: (
        rlx.d2o(POLICY[:, [0, 0, 0, 1]], REFERENCE[:, [0, 0, 0, 1]]),
        rlx.dpo(POLICY, REFERENCE),
    ),
    "simpo is poft against the rejected response": lambda: (
        rlx.simpo(POLICY, LENGTHS, beta=2.0, gamma=1.0),
        rlx.poft(POLICY[:, :1], LENGTHS[:, :1], (POLICY / LENGTHS)[:, 1:, None], beta=2.0, gamma=-1.0),
    ),
    "nca_pair and bco_pair at threshold 0 agree over both labellings": lambda: (
        rlx.nca_pair(POLICY, REFERENCE, beta=0.1) + rlx.nca_pair(POLICY[:, SWAP], REFERENCE[:, SWAP], beta=0.1),
        rlx.bco_pair(POLICY, REFERENCE, delta=0.0) + rlx.bco_pair(POLICY[:, SWAP], REFERENCE[:, SWAP], delta=0.0),
    ),
    "bco_pair with a saturating link is kto of both responses, its threshold the reference point": lambda: (
        rlx.bco_pair(POLICY, REFERENCE, delta=0.1 * 3.0, link=links.sigmoid),
        2 * rlx.kto(POLICY, REFERENCE, np.tile([1.0, 0.0], (6, 1)), reference_point=3.0),
    ),
    "apo_zero over both labellings is 2": lambda: (
        rlx.apo_zero(POLICY, REFERENCE) + rlx.apo_zero(POLICY[:, SWAP], REFERENCE[:, SWAP]),
        2.0,
    ),
    "sppo_hard of opposite log-ratios is half of ipo": lambda: (
        rlx.sppo_hard(POLICY[:, :1] * [1, -1], np.zeros((6, 2)), beta=0.2),
        rlx.ipo(POLICY[:, :1] * [1, -1], np.zeros((6, 2)), tau=0.1) / 2,
    ),
    "aot against a flat reference is reference-free dpo": lambda: (
        rlx.aot(POLICY, np.zeros((6, 2))),
        rlx.dpo_reference_free(POLICY),
    ),
    "aot does not see which margin of the reference is whose": lambda: (
        rlx.aot(POLICY, REFERENCE),
        rlx.aot(POLICY, REFERENCE[::-1]),
    ),
    "exo_pair of the reference itself is the divergence of its label from even odds": lambda: (
        rlx.exo_pair(REFERENCE, REFERENCE, epsilon=0.1),
        -np.log(4 * 0.1 * 0.9) / 2,
    ),
    "discopop of the reference itself is half way": lambda: (rlx.discopop(REFERENCE, REFERENCE), (np.log(2) + 1) / 2),
    "fdpo with the jensen-shannon divergence is reference-free dpo on log-sigmoids": lambda: (
        rlx.fdpo(POLICY, REFERENCE, divergence="js"),
        rlx.dpo_reference_free(-logistic(POLICY - REFERENCE)),
    ),
    "cpo_hinge of wide margins is fine-tuning alone": lambda: (
        rlx.cpo_hinge(POLICY * [0.0, 1.0] - [1.0, 99.0], LENGTHS),
        1 / LENGTHS[:, 0].mean(),
    ),
    "bidedpo of two equal sets is dpo": lambda: (
        rlx.bidedpo_loss_balancing(np.tile(POLICY, (2, 1)), np.tile(REFERENCE, (2, 1)), np.arange(12) // 6),
        rlx.dpo(POLICY, REFERENCE),
    ),
}

GRADIENTS = {
    "ppo at ratio one has the policy gradient": lambda: (
        jax.grad(lambda x: rlx.ppo_clip_loss(x, LOGPROBS, ADVANTAGES))(jnp.asarray(LOGPROBS)),
        np.broadcast_to(-ADVANTAGES / LOGPROBS.size, LOGPROBS.shape),
    ),
    "power_dl at its fixed point has no preference gradient": lambda: (
        jax.grad(lambda x: rlx.power_dl(x, LENGTHS, fixed_point(), eta=0.0))(jnp.asarray(POLICY)),
        np.zeros_like(POLICY),
    ),
    "dpo has the gradient of its equation": lambda: (
        jax.grad(lambda x: rlx.dpo(x, REFERENCE, beta=0.1))(jnp.asarray(POLICY)),
        -0.1 / (1 + np.exp(0.1 * margin()))[:, None] / 6 * np.array([1.0, -1.0]),
    ),
    "rdpo never pushes a margin down": lambda: (
        np.sign(jax.grad(lambda x: rlx.rdpo(x, REFERENCE, epsilon=0.3))(jnp.asarray(POLICY))),
        np.tile([-1.0, 1.0], (6, 1)),
    ),
    "cdpo stops where the policy believes the label as much as it should": lambda: (
        jax.grad(lambda x: rlx.cdpo(x, np.zeros(2), beta=1.0, epsilon=0.1))(jnp.array([np.log(9.0), 0.0])),
        np.zeros(2),
    ),
    "tdpo1 does not move a policy at the reference along the kl": lambda: (
        jax.grad(lambda x: rlx.tdpo(x, LOGITS, TOKENS, alpha=1.0))(jnp.asarray(LOGITS)),
        jax.grad(lambda x: rlx.tdpo(x, LOGITS, TOKENS, alpha=0.0))(jnp.asarray(LOGITS)),
    ),
}


def fixed_point():
    weights = 1 / LENGTHS
    z = 2.0 * ((weights * POLICY)[:, 0] - (weights * POLICY)[:, 1] + weights[:, 0] - weights[:, 1])
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("statement", [*IDENTITIES, *GRADIENTS])
def test_identity(statement, float64):
    left, right = float64((IDENTITIES | GRADIENTS)[statement])
    np.testing.assert_allclose(np.asarray(left), np.asarray(right), rtol=1e-9, atol=1e-12)
