"""Identities of advantage estimators: most are GRPO's with another argument."""

import numpy as np

import rlx
from rlx import numerics
from tests.identities.arrays import LENGTHS, LIST, SCORES

VERDICTS = (SCORES > 0).astype(float)

IDENTITIES = {
    "rloo advantages of a group sum to zero": lambda: (rlx.rloo_advantage(SCORES).sum(-2), np.zeros((6, 1))),
    "dr_grpo is rloo scaled": lambda: (rlx.dr_grpo_advantage(SCORES), rlx.rloo_advantage(SCORES) * 4 / 5),
    "asymre without a shift is dr_grpo": lambda: (
        rlx.asymre_advantage(SCORES, shift=0.0),
        rlx.dr_grpo_advantage(SCORES),
    ),
    "opmd with the mean as baseline is rec": lambda: (rlx.opmd_advantage(SCORES), rlx.rec_advantage(SCORES)),
    "opo of equal lengths is dr_grpo": lambda: (
        rlx.opo_advantage(SCORES, np.full((6, 5), 3)),
        rlx.dr_grpo_advantage(SCORES),
    ),
    "opo of a pair weighs the other's reward by its length": lambda: (
        rlx.opo_advantage(SCORES[:, :2], LENGTHS)[:, 0, 0],
        (SCORES[:, 0] - SCORES[:, 1]) * LENGTHS[:, 1] / LENGTHS.sum(-1),
    ),
    "passk of a pair is its difference": lambda: (
        rlx.passk_advantage(SCORES[:, :2], scale=False).max(-2)[:, 0],
        np.abs(SCORES[:, 0] - SCORES[:, 1]),
    ),
    "ngrpo without virtual responses is grpo": lambda: (
        rlx.ngrpo_advantage(SCORES, num_virtual=0),
        rlx.grpo_advantage(SCORES),
    ),
    "gpg of groups that all teach is dr_grpo": lambda: (rlx.gpg_advantage(SCORES), rlx.dr_grpo_advantage(SCORES)),
    "unlikeliness without a penalty is grpo": lambda: (
        rlx.unlikeliness_advantage(LIST[..., None], SCORES, beta=0.0),
        rlx.grpo_advantage(SCORES),
    ),
    "canon between and within halves of an even group is dr_grpo": lambda: (
        rlx.canon(LIST[:, :4, None], SCORES[:, :4], mu=0.5, max_length=1),
        rlx.dr_grpo_advantage(SCORES[:, :4]),
    ),
    "seed_grpo of answers that agree is dr_grpo": lambda: (
        rlx.seed_grpo(SCORES, np.ones((6, 5), int)),
        rlx.dr_grpo_advantage(SCORES),
    ),
    "hardness that does not depend on the question is dr_grpo": lambda: (
        rlx.policy_specific_hardness_weighting(VERDICTS, alpha=0.0, offset=0.5),
        rlx.dr_grpo_advantage(VERDICTS),
    ),
    "egae of finished responses is gae": lambda: (
        rlx.tppo_egae_advantage(SCORES, LIST, np.ones(6)).advantages,
        rlx.gae_advantage(SCORES, LIST, lam=0.95).advantages,
    ),
    "reinforce_plus_plus is the whitened monte-carlo gae without values": lambda: (
        rlx.reinforce_plus_plus_advantage(SCORES),
        numerics.whiten(rlx.gae_advantage(SCORES, 0 * SCORES).advantages),
    ),
    "w-reinforce is psr and nsr": lambda: (
        rlx.psr_nsr_advantage(VERDICTS * (np.arange(5) == 4)),
        0.1 * rlx.psr_nsr_advantage(VERDICTS * (np.arange(5) == 4), mode="positive")
        + rlx.psr_nsr_advantage(VERDICTS * (np.arange(5) == 4), mode="negative"),
    ),
}
