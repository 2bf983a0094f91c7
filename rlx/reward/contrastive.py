"""The contrastive term of a reward model: embeddings ``[..., K, E]`` of responses; K = 1 for differences of pairs."""

import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.aggregate import mean
from rlx.reward import embedding
from rlx.types import Array, Reduce, check_positive, check_shapes


def rm_contrastive(
    embeddings: Array,
    views: Array,
    *,
    temperature: float = 0.05,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""SimCSE's loss: an embedding is nearer to its own second view than to the views of the rest of the batch.

    .. math:: \ell_i = -\log\frac{e^{\cos(h_i, h_i^+)/T}}{\sum_j e^{\cos(h_i, h_j^+)/T}}

    Secrets of RLHF II embeds responses, or the difference of a pair, and adds it to the preference loss with a weight:
    ``secrets_rlhf2(...) + weight * rm_contrastive(...)``. All leading axes and K are the batch of negatives.

    Args:
      embeddings: ``[..., K, E]`` of the responses.
      views: ``[..., K, E]`` the same under another draw of dropout; differentiable too.
      temperature: T, above 0.
      where: ``[..., K]`` real responses.
      axis_name: mapped axes the batch is spread over; negatives come from all of it.
      reduce: how responses become one number; None gives ``[..., K]``.

    Raises:
      UserError: the temperature is not above 0, or the shapes disagree.

    >>> same = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    >>> print(f"{rm_contrastive(same, same):.4f}")
    0.6931

    References:
      Wang et al., *Secrets of RLHF ... Part II*, arXiv:2401.06080; Gao et al., *SimCSE*, arXiv:2104.08821.
    """
    check_shapes(embeddings=embeddings, views=views)
    check_shapes(**{"where": where, "embeddings without their last axis": embeddings[..., 0]})
    check_positive(temperature=temperature)
    shape = embeddings.shape[:-1]
    real = jnp.ones(shape, bool) if where is None else jnp.broadcast_to(where, shape)
    anchors, others = (numerics.clean(numerics.accumulate(x), real[..., None]) for x in (embeddings, views))
    anchors, others = (embedding.unit(x).reshape(-1, x.shape[-1]) for x in (anchors, others))
    others, candidates = (numerics.gather(x, axis_name) for x in (others, real.ravel()))
    logs = numerics.log_softmax(anchors @ others.T / temperature, where=candidates)
    own = numerics.shard_slice(jnp.arange(len(others)), len(anchors), axis_name)
    loss = -jnp.take_along_axis(logs, own[:, None], -1)
    return aggregate.finish(loss.reshape(shape), where, reduce)
