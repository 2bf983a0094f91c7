"""Evolution strategies with low-rank noise (EGGROLL): fitness, noise, the perturbed forward pass, the update.

A population of N members stands on the leading axis of the noise; a parameter matrix ``[a, b]`` maps ``x [b]`` to
``W x [a]``. Members 2k and 2k + 1 share a draw with opposite signs. Parameters may be any pytree; noise is then a
pytree of the same structure, :class:`LowRank` for matrices. A draw is a function of the key, the epoch and the member
alone, under jit too, so that workers need to exchange scores only.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.types import Array

PyTree = Any


class LowRank(NamedTuple):
    r"""Noise of a matrix, :math:`E_i = A_i B_i^\top / \sqrt r`: signed ``a [N, a, r]`` and ``b [N, b, r]``."""

    a: Array
    b: Array

    @property
    def scale(self) -> float:
        """:math:`1/\\sqrt r`."""
        return self.a.shape[-1] ** -0.5

    def dense(self) -> Array:
        """The matrices ``[N, a, b]``; the forward pass and the update never form them."""
        return self.scale * jnp.einsum("nar,nbr->nab", self.a, self.b)


def is_noise(x: Any) -> bool:
    """Where a pytree of noise ends."""
    return isinstance(x, LowRank)


def eggroll_fitness(scores: Array, *, group_size: int = 0, epsilon: float = 1e-5, where: Array | None = None) -> Array:
    r"""Scores of a population relative to their group: :math:`(s - \bar s)/\sqrt{\mathrm{var}(s) + \epsilon}`.

    Args:
      scores: ``[..., K]`` of the members, larger is better.
      group_size: 0 takes the mean over all members; g over every consecutive g members (those that saw the same task).
        The variance, the population's, is always over all members.
      epsilon: added to the variance.
      where: ``[..., K]`` real members.

    Returns:
      ``[..., K]``; equal scores have fitness 0. Constants.

    Raises:
      UserError: ``group_size`` does not divide the number of members.

    >>> print(eggroll_fitness(jnp.array([0.0, 2.0, 7.0, 9.0]), group_size=2, epsilon=0.0).round(3))
    [-0.275  0.275 -0.275  0.275]

    References:
      Sarkar et al., *Evolution Strategies at the Hyperscale*, arXiv:2511.16652.
    """
    members = scores.shape[-1]
    if group_size < 0 or members % (group_size or members):
        raise errors.UserError(f"group_size must divide the {members} members, or be 0 for all; got {group_size}.")
    scores = numerics.clean(jax.lax.stop_gradient(numerics.accumulate(scores)), where)
    blocks = (*scores.shape[:-1], -1, group_size or members)
    selected = None if where is None else where.reshape(blocks)
    centre = numerics.mean(scores.reshape(blocks), -1, where=selected, keepdims=True)
    centred = (scores.reshape(blocks) - centre).reshape(scores.shape)
    spread = jnp.sqrt(numerics.variance(scores, -1, where=where, keepdims=True) + epsilon)
    return numerics.clean(centred / spread, where)


def eggroll_noise(
    key: Array, parameters: PyTree, *, members: Array, rank: int | None = 1, epoch: int | Array = 0
) -> PyTree:
    """Noise of the given members: factors for matrices, full noise for everything else, antithetic in pairs.

    A leaf draws from ``fold_in(fold_in(key, epoch), member // 2)`` with a key of its own, ``[a + b, r]`` at once: B in
    front, A behind (the released layout). Even members have the sign +, odd ones -.

    Args:
      key: a jax random key.
      parameters: arrays to perturb.
      members: ``[N]`` int, numbers of the members: all of them, or the share of a device.
      rank: r; None draws full-rank normal matrices.
      epoch: number of the update; a frozen one reuses its noise.

    Raises:
      UserError: ``rank`` is below 1.

    >>> noise = eggroll_noise(jax.random.key(0), jnp.zeros((4, 3)), members=jnp.arange(2))
    >>> print(noise.a.shape, noise.b.shape, jnp.array_equal(noise.a[0], -noise.a[1]))
    (2, 4, 1) (2, 3, 1) True
    """
    if rank is not None and rank < 1:
        raise errors.UserError(f"rank must be at least 1, or None for full-rank noise, got {rank}.")
    leaves, structure = jax.tree.flatten(parameters)
    keys = [key] if len(leaves) == 1 else jax.random.split(key, len(leaves))
    noise = [_leaf_noise(k, leaf, members, rank, epoch) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, noise)


def _leaf_noise(key: Array, parameter: Array, members: Array, rank: int | None, epoch: int | Array) -> Array | LowRank:
    shape = parameter.shape if rank is None or parameter.ndim != 2 else (sum(parameter.shape), rank)
    dtype = jnp.result_type(float)
    epoch_key = jax.random.fold_in(key, epoch)
    draws = jax.vmap(lambda pair: jax.random.normal(jax.random.fold_in(epoch_key, pair), shape, dtype))(members // 2)
    sign = jnp.where(members % 2, -1.0, 1.0).astype(dtype).reshape(-1, *[1] * len(shape))
    if shape == parameter.shape:
        return sign * draws
    width = parameter.shape[1]
    return LowRank(sign * draws[:, width:], draws[:, :width])


def perturb(parameters: PyTree, noise: PyTree, *, sigma: float) -> PyTree:
    """Every member's parameters, ``[N, ...]`` per leaf, formed in full (small models; else :func:`perturbed_linear`).

    >>> print(perturb(jnp.zeros(2), jnp.array([[1.0, -1.0]]), sigma=0.5))
    [[ 0.5 -0.5]]
    """

    def member(e: Array | LowRank, parameter: Array) -> Array:
        return parameter + sigma * (e.dense() if isinstance(e, LowRank) else e)

    return jax.tree.map(member, noise, parameters, is_leaf=is_noise)


def perturbed_linear(x: Array, parameter: Array, noise: LowRank | Array, *, sigma: float) -> Array:
    r"""Every member's :math:`x (W + \sigma E_i)^\top`, without forming :math:`E_i`.

    One product with W shared by the population, and two thin ones with the factors.

    Args:
      x: ``[N, ..., b]`` inputs of the members.
      parameter: W, ``[a, b]``.
      noise: factors, or full noise ``[N, a, b]``.
      sigma: size of the noise.

    Returns:
      ``[N, ..., a]``.

    >>> noise = LowRank(jnp.ones((1, 2, 1)), jnp.ones((1, 3, 1)))
    >>> print(perturbed_linear(jnp.ones((1, 3)), jnp.zeros((2, 3)), noise, sigma=0.1))
    [[0.3 0.3]]
    """
    shared = x @ parameter.T
    if not isinstance(noise, LowRank):
        return shared + sigma * jnp.einsum("n...b,nab->n...a", x, noise)
    thin = jnp.einsum("n...b,nbr->n...r", x, noise.b)
    return shared + sigma * noise.scale * jnp.einsum("n...r,nar->n...a", thin, noise.a)


def eggroll_gradient(noise: PyTree, fitness: Array, *, sigma: float, axis_name: numerics.AxisName = None) -> PyTree:
    r"""What a descending optimiser takes for the gradient: :math:`-\frac{\sqrt N}{N} \sum_i f_i\,\sigma E_i`.

    The textbook's 1/sigma is left to the learning rate, as in the released code, and so is the root of N.

    Args:
      noise: of :func:`eggroll_noise`.
      fitness: ``[N]`` of the same members.
      sigma: size of the noise.
      axis_name: mapped axes over which members are spread; ``fitness`` must have been taken over all of them.

    >>> print(eggroll_gradient(jnp.array([[1.0], [-1.0]]), jnp.array([1.0, -1.0]), sigma=0.5))
    [-0.70710677]
    """
    fitness = numerics.accumulate(fitness)
    scale = -sigma * numerics.psum(fitness.size, axis_name) ** -0.5

    def leaf(e: Array | LowRank) -> Array:
        if isinstance(e, LowRank):
            return numerics.psum(scale * e.scale * jnp.einsum("n,nar,nbr->ab", fitness, e.a, e.b), axis_name)
        return numerics.psum(scale * jnp.tensordot(fitness, e, 1), axis_name)

    return jax.tree.map(leaf, noise, is_leaf=is_noise)


def eggroll_update(
    parameters: PyTree,
    noise: PyTree,
    scores: Array,
    *,
    sigma: float = 0.1,
    learning_rate: float = 0.1,
    group_size: int = 0,
) -> PyTree:
    r"""One step of EGGROLL: perturb with low-rank noise, score, move along the noise weighted by fitness.

    .. math:: W \leftarrow W + \eta\,\frac{\sqrt N}{N}\sum_i f_i\,\sigma E_i,\qquad E_i = \frac{A_i B_i^\top}{\sqrt r}

    Any optax optimiser takes :func:`eggroll_gradient` instead. Nothing is differentiated.

    Args:
      parameters: arrays, matrices ``[a, b]``.
      noise: of the same structure, from :func:`eggroll_noise`.
      scores: ``[N]`` what the members reached, larger is better.
      sigma: size of the noise the members had.
      learning_rate: eta.
      group_size: see :func:`eggroll_fitness`.

    Raises:
      UserError: ``group_size`` does not divide the number of members.

    >>> print(eggroll_update(jnp.zeros(1), jnp.array([[1.0], [-1.0]]), jnp.array([3.0, 1.0]), learning_rate=1.0))
    [0.14142065]

    References:
      Sarkar et al., *Evolution Strategies at the Hyperscale*, arXiv:2511.16652.
    """
    gradient = eggroll_gradient(noise, eggroll_fitness(scores, group_size=group_size), sigma=sigma)
    return jax.tree.map(lambda parameter, slope: parameter - learning_rate * slope, parameters, gradient)
