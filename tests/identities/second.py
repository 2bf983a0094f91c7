"""Identities of further families: rankings, rewards, evaluation, special cases of pairs."""

import jax.numpy as jnp
import numpy as np

import rlx
from rlx import aggregate
from rlx.preference import links
from tests.identities.arrays import (
    ADVANTAGES,
    FIRST,
    LENGTHS,
    LIST,
    LIST_REFERENCE,
    LOGITS,
    LOGPROBS,
    MASKS,
    OLD,
    ONES,
    POLICY,
    PREFERENCES,
    REFERENCE,
    REFERENCE_LOGITS,
    SCORES,
    STEPS,
    SWAP,
    TOKEN_LOGPS,
    TOKEN_REFERENCE,
    TOKENS,
    WON,
    certain_pair,
    logistic,
    margin,
    said,
)

IDENTITIES = {
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
