"""Self-supervised preference optimisation: responses of the model itself, spoiled by degrees, and told apart."""

import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.aggregate import mean
from rlx.preference import compare
from rlx.types import Array, Reduce, check_shapes


def spo_degree(
    logits: Array,
    targets: Array,
    *,
    alignment: float | Array = 0.0,
    weight: float = 0.1,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Classification of how much of a response was taken away, beside a preference loss.

    .. math:: \ell = \ell_{align} - w \log\mathrm{softmax}(z)_k

    Responses of the model lose more or less of their key content; a module on the model's states says which degree k
    of K it was. Neither the module nor the degrees nor the weight of the paper are known here, so that the logits are
    the caller's, and the default of the weight is no more than a start.

    Args:
      logits: ``[..., K]`` of the degrees.
      targets: ``[...]`` int, the degree.
      alignment: ``[...]`` units of a preference loss (``reduce=None``), which the classification is added to.
      weight: w of the classification.
      where: ``[...]`` real responses.
      reduce: how responses become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(f"{spo_degree(jnp.zeros(4), jnp.array(2), weight=1.0):.4f}")
    1.3863

    References:
      Li et al., *Self-supervised Preference Optimization: Enhance Your Language Model with Preference Degree
      Awareness*, arXiv:2409.17791.
    """
    check_shapes(**{"targets": targets, "where": where, "logits without their last axis": logits[..., 0]})
    right = targets[..., None] == jnp.arange(logits.shape[-1])
    logits = numerics.clean(logits, None if where is None else where[..., None])
    classification = compare.cross_entropy(logits, right.astype(numerics.accumulate(logits).dtype))
    if jnp.ndim(alignment):
        check_shapes(targets=targets, alignment=jnp.asarray(alignment))
        alignment = numerics.clean(jnp.asarray(alignment), where)
    return aggregate.finish(alignment + weight * classification, where, reduce)
