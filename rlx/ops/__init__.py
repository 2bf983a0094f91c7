"""Token-level operations over large vocabularies: public interface and dispatch to ``rlx_kernels``."""

from rlx.ops.covariance import (
    batch_covariance,
    discriminators,
    entropy_discriminator,
    policy_gradient_step,
    token_covariance,
    vocabulary_covariance,
)
from rlx.ops.entropies import renyi_entropy, tempered_entropy, token_entropy, tsallis_entropy
from rlx.ops.probabilities import Distribution, distribution
from rlx.ops.shift import predicting, shift, unshift
from rlx.ops.statistics import (
    TokenStatistics,
    fused_linear_token_loss,
    linear_token_statistics,
    token_statistics,
)
from rlx.ops.truncated import nucleus, top_k_entropy, top_p_entropy
from rlx.ops.windows import trailing_entropy, window_counts, window_entropy, window_threshold

__all__ = [
    "Distribution",
    "TokenStatistics",
    "batch_covariance",
    "discriminators",
    "distribution",
    "entropy_discriminator",
    "fused_linear_token_loss",
    "linear_token_statistics",
    "nucleus",
    "policy_gradient_step",
    "predicting",
    "renyi_entropy",
    "shift",
    "tempered_entropy",
    "token_covariance",
    "token_entropy",
    "token_statistics",
    "top_k_entropy",
    "top_p_entropy",
    "trailing_entropy",
    "tsallis_entropy",
    "unshift",
    "vocabulary_covariance",
    "window_counts",
    "window_entropy",
    "window_threshold",
]
