"""Identities of the algebra: pairs, lists, tokens and games."""

import jax
import jax.numpy as jnp
import numpy as np

import rlx
from rlx import aggregate
from rlx.game import win_rate
from rlx.preference import compare, distillation, labels, links
from tests.identities.arrays import (
    ADVANTAGES,
    FIRST,
    LENGTHS,
    LIST,
    LIST_REFERENCE,
    LOGITS,
    LOGPROBS,
    OLD,
    ONES,
    OPPONENTS,
    POLICY,
    PREFERENCES,
    REFERENCE,
    SCORES,
    SWAP,
    TOKENS,
    WON,
    certain_pair,
    logistic,
    uniform_list,
)

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
}
