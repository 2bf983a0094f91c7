"""Token-level operations over large vocabularies: public interface and dispatch to ``rlx_kernels``."""

from rlx.ops.covariance import token_covariance
from rlx.ops.shift import predicting, shift, unshift
from rlx.ops.statistics import TokenStatistics, linear_token_statistics, token_statistics

__all__ = [
    "TokenStatistics",
    "linear_token_statistics",
    "predicting",
    "shift",
    "token_covariance",
    "token_statistics",
    "unshift",
]
