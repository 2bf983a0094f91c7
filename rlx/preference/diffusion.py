"""Diffusion policies: denoising errors stand in the place of log-probabilities. Candidates ``[..., 2]``, expert first.

``where [..., 2]`` marks real images; ``reduce=None`` gives one value per pair, 0 where masked.
"""

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.aggregate import mean
from rlx.preference import compare, labels, scores
from rlx.types import Array, Link, Reduce, check_pairs, check_shapes


def denoising_error(prediction: Array, noise: Array, *, axes: int = 3) -> Array:
    r"""Mean squared error of a predicted noise over the last ``axes`` axes: channels and pixels of an image.

    .. math:: e = \operatorname{mean}_i (\hat\epsilon_i - \epsilon_i)^2

    Half-precision inputs are compared in float32: differences of errors are of the order of 1e-3.

    Args:
      prediction: ``[..., C, H, W]`` noise that a network predicts.
      noise: ``[..., C, H, W]`` its target, a constant: the noise that was added, or, for an image that the policy
        generates, the noise that it predicted on the way there.
      axes: number of axes of an image.

    Returns:
      ``[...]``.

    >>> print(denoising_error(jnp.ones((2, 3, 4, 4)), jnp.zeros((2, 3, 4, 4))))
    [1. 1.]
    """
    check_shapes(prediction=prediction, noise=noise)
    difference = numerics.accumulate(prediction) - jax.lax.stop_gradient(numerics.accumulate(noise))
    return numerics.mean(jnp.square(difference), tuple(range(-axes, 0)))


def short_of(required: float) -> Link:
    r""":math:`\max(0, r - m)`, slope one half at the kink.

    >>> print(short_of(0.5)(jnp.array([0.0, 1.0])))
    [0.5 0. ]
    """
    return lambda margin: jnp.maximum(required - margin, 0)


def diffusion_dro(
    policy_errors: Array,
    reference_errors: Array,
    *,
    margin: float = 0.001,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Diffusion denoising ranking: the policy shall gain more on an expert's image than on its own.

    .. math:: \ell = \max(\Delta_{expert} - \Delta_{sample} + \text{margin}, 0),\quad \Delta = e_\pi - e_{ref}

    with the errors e of :func:`denoising_error` at one time step of one prompt: of a preferred image, noised, and of a
    state that the policy visits while it generates. A pair that keeps the margin has no gradient.

    Args:
      policy_errors: ``[..., 2]`` errors of the network in training, the expert's image first.
      reference_errors: ``[..., 2]`` errors of the frozen initial network; a constant.
      margin: by how much the gain on the expert must be the greater.
      where: ``[..., 2]`` real images.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis is not 2.

    >>> print(f"{diffusion_dro(jnp.array([0.5, 0.75]), jnp.array([0.5, 0.5]), margin=0.5):.2f}")
    0.25

    References:
      Wu et al., *Ranking-based Preference Optimization for Diffusion Models from Implicit User Feedback*,
      arXiv:2510.18353.
    """
    check_pairs(policy_errors=policy_errors, reference_errors=reference_errors, where=where)
    score = -scores.log_ratio(policy_errors, reference_errors)
    return compare.pairs(score, labels.hard, short_of(margin), where, reduce)
