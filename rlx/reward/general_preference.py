"""The general preference model: a preference is a skew product of embeddings ``[..., 2, 2k]``, chosen first.

Unlike a difference of rewards it can represent cycles. ``where [..., 2]`` marks real responses.
"""

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.aggregate import mean
from rlx.method import Constants, Method, PyTree, Shapes, stateless, take
from rlx.preference import compare, labels, links
from rlx.reward import embedding
from rlx.types import Array, Batch, Link, Reduce, check_pairs, check_positive


def preference_score(
    embeddings: Array, *, block_weights: Array | None = None, normalize: bool = False, where: Array | None = None
) -> Array:
    r"""Skew-symmetric score of a pair, ``[..., 2, 2k] -> [...]``: positive where the first response is preferred.

    .. math:: s = \sum_j c_j\left(v_w[2j]\,v_l[2j+1] - v_w[2j+1]\,v_l[2j]\right)

    Args:
      embeddings: ``[..., 2, 2k]`` preference embeddings, chosen first.
      block_weights: ``[..., k]`` weights c of the prompt; None weighs all blocks by 1. The code has them as
        ``k * softmax(h / sqrt(hidden))`` of a linear head on the prompt.
      normalize: bring embeddings to length 1, as the paper says and its code does not.
      where: ``[..., 2]`` real responses.

    >>> print(preference_score(jnp.array([[1.0, 0.0], [0.0, 1.0]])))
    1.0
    """
    if embeddings.ndim < 2 or embeddings.shape[-2] != 2 or embeddings.shape[-1] % 2:
        raise errors.UserError(
            f"embeddings has shape {embeddings.shape}: gpm wants [..., 2, even], the chosen response first."
        )
    check_pairs(**{"where": where, "embeddings without their last axis": embeddings[..., 0]})
    embeddings = numerics.accumulate(numerics.clean(embeddings, None if where is None else where[..., None]))
    embeddings = embedding.unit(embeddings) if normalize else embeddings
    chosen, rejected = embeddings[..., 0, :], embeddings[..., 1, :]
    blocks = chosen[..., 0::2] * rejected[..., 1::2] - chosen[..., 1::2] * rejected[..., 0::2]
    return (blocks if block_weights is None else blocks * block_weights).sum(-1)


def preference_probabilities(
    embeddings: Array, *, tau: float = 0.1, block_weights: Array | None = None, normalize: bool = False
) -> Array:
    r"""Probability that each response of a group beats each other one, ``[..., K, 2k] -> [..., K, K]``.

    .. math:: P_{ij} = \sigma(s_{ij}/\tau) = 1 - P_{ji}

    with s of :func:`preference_score`; what trains it is :func:`gpm`. Cycles are possible.

    Args:
      embeddings: ``[..., K, 2k]`` preference embeddings of K responses to a prompt.
      tau: temperature, above 0.
      block_weights: ``[..., k]`` weights of the blocks, functions of the prompt.
      normalize: bring embeddings to length 1.

    Raises:
      UserError: tau is not above 0, or the embedding has an odd size.

    >>> print(np.asarray(preference_probabilities(jnp.array([[1.0, 0.0], [0.0, 1.0]]), tau=1.0)).round(2))
    [[0.5  0.73]
     [0.27 0.5 ]]
    """
    check_positive(tau=tau)
    shape = (*embeddings.shape[:-2], *2 * embeddings.shape[-2:-1], embeddings.shape[-1])
    rows, columns = embeddings[..., :, None, :], embeddings[..., None, :, :]
    pairs = jnp.stack([jnp.broadcast_to(x, shape) for x in (rows, columns)], axis=-2)
    weights = None if block_weights is None else block_weights[..., None, None, :]
    return jax.nn.sigmoid(preference_score(pairs, block_weights=weights, normalize=normalize) / tau)


def gpm(
    embeddings: Array,
    *,
    tau: float = 0.1,
    margin: float | Array = 0.0,
    block_weights: Array | None = None,
    normalize: bool = False,
    link: Link = links.logistic,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Loss of the general preference model.

    .. math:: \ell = -\log\sigma\left((s - \text{margin})/\tau\right)

    with s of :func:`preference_score`.

    Args:
      embeddings: ``[..., 2, 2k]`` preference embeddings of the responses, chosen first.
      tau: temperature, above 0 (the code uses 1 for two dimensions, 0.1 for more).
      margin: required score, a number or ``[...]``.
      block_weights: ``[..., k]`` weights of the blocks, functions of the prompt.
      normalize: bring embeddings to length 1.
      link: loss of a margin; ``links.regression(10)`` is the regression variant of the code.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: tau is not above 0, the embedding has an odd size, or the shapes disagree.

    >>> print(f"{gpm(jnp.array([[1.0, 0.0], [0.0, 1.0]]), tau=1.0):.4f}")
    0.3133

    References:
      Zhang et al., *Beyond Bradley-Terry Models: A General Preference Model*, arXiv:2410.02197.
    """
    check_positive(tau=tau)
    score = preference_score(embeddings, block_weights=block_weights, normalize=normalize, where=where)
    z = compare.beyond(score, margin) / tau
    return compare.margins(z, labels.hard, link, compare.pair_where(where), reduce)


def gpm_method(
    *,
    dimension: int = 8,
    tau: float = 0.1,
    margin: float = 0.0,
    normalize: bool = False,
    axis_name: numerics.AxisName = None,
) -> Method:
    """The general preference model with its own head: a linear map from hidden states to embeddings, without bias.

    Args:
      dimension: size of the embedding, even; 2 to 8 in the paper.
      tau: temperature, above 0.
      margin: required score.
      normalize: bring embeddings to length 1.
      axis_name: mapped axes the batch is spread over.

    Raises:
      UserError: the dimension is odd or not above 0, tau is not above 0, or the model tells no hidden size.

    >>> method = gpm_method(dimension=4)
    >>> method.init(jax.random.key(0), rlx.method.Shapes(hidden_size=16))[0]["head"].shape
    (16, 4)
    """
    if dimension <= 0 or dimension % 2:
        raise errors.UserError(f"dimension must be even and above 0 (it holds pairs of coordinates), got {dimension}.")
    check_positive(tau=tau)

    keywords = {"tau": tau, "margin": margin, "normalize": normalize}
    lifted = stateless(gpm, keywords=keywords, axis_name=axis_name)

    def init(key: Array, shapes: Shapes) -> tuple[PyTree, PyTree]:
        if shapes.hidden_size <= 0:
            raise errors.UserError(f"gpm needs the hidden size of the model, got {shapes.hidden_size}.")
        return {"head": jax.random.normal(key, (shapes.hidden_size, dimension)) / (shapes.hidden_size + 1)}, {}

    def embed(batch: Batch, params: PyTree) -> Array:
        hidden, where = numerics.accumulate(take(batch, "hidden", "gpm")), batch.get("where")
        # masked before the product, where a NaN would reach the gradient of the head
        return numerics.clean(hidden, None if where is None else where[..., None]) @ params["head"]

    def apply(constants: Constants, batch: Batch, params: PyTree) -> tuple[Array, Array]:
        pairs = {"embeddings": embed(batch, params), "where": batch.get("where")}
        return lifted.apply(constants, pairs, params)

    def preferences(batch: Batch, params: PyTree) -> Array:
        return preference_probabilities(embed(batch, params), tau=tau, normalize=normalize)

    own = {"hyperparameters": {"dimension": dimension} | keywords, "preferences": preferences}
    return lifted._replace(init=init, apply=apply, needs=("hidden",), **own)
