"""POWER and POWER-DL: weighted-entropy preference optimisation, with a label per example that moves to the model's.

Candidates on the last axis ``[..., 2]``, chosen first; ``where [..., 2]`` marks real responses. No code of the authors
is known: the equations follow from the paper's objective with w = 1/|y|, the defaults are those of no paper table.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from rlx import aggregate, errors, numerics, signals
from rlx.aggregate import mean
from rlx.method import Constants, Method, PyTree, Shapes, stateless, take
from rlx.preference import compare, labels, links, scores
from rlx.types import Array, Batch, Reduce, check_pairs


def power_logit(policy_logps: Array, lengths: Array, *, beta: float = 2.0, where: Array | None = None) -> Array:
    r"""The argument of POWER's sigmoid, ``[...]``, 0 where masked.

    .. math:: z = \beta\left[w_w\log\pi(y_w) - w_l\log\pi(y_l) + w_w - w_l\right],\quad w = 1/|y|

    >>> print(power_logit(jnp.array([-1.0, -2.0]), jnp.array([1, 2]), beta=1.0))
    0.5
    """
    check_pairs(policy_logps=policy_logps, lengths=lengths, where=where)
    score = beta * scores.weighted_entropy(policy_logps, lengths)
    return numerics.clean(scores.margin(score), compare.pair_where(where))


def power(
    policy_logps: Array,
    lengths: Array,
    *,
    beta: float = 2.0,
    eta: float = 0.0005,
    label: float | Array = labels.hard,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Preference optimisation with weighted entropy and robust reward maximisation.

    .. math:: \ell = -q\log\sigma(z) - (1-q)\log\sigma(-z) - \eta\beta\,w_w\log\pi(y_w)

    with z of :func:`power_logit` and q = 1.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      lengths: ``[..., 2]`` number of response tokens; an empty response divides by 1.
      beta: strength of the weighted entropy.
      eta: weight of the reward term, whose trace is a fine-tuning term on chosen responses.
      label: probability q that the chosen response is better, a number or ``[...]``.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis is not 2.

    >>> print(f"{power(jnp.array([-1.0, -2.0]), jnp.array([1, 2]), beta=1.0, eta=0.1):.4f}")
    0.5741

    References:
      Rashidinejad and Tian, *Sail into the Headwind: Alignment via Robust Rewards and Dynamic Labels against Reward
      Hacking*, arXiv:2412.09544.
    """
    valid = compare.pair_where(where)
    z = power_logit(policy_logps, lengths, beta=beta, where=where)
    preference = compare.margins(z, label, links.logistic, valid, reduce=None)
    fine_tuning = eta * beta * numerics.clean(scores.per_token(policy_logps, lengths)[..., 0], valid)
    return aggregate.finish(preference - fine_tuning, valid, reduce)


def power_dl(
    policy_logps: Array,
    lengths: Array,
    label_table: Array,
    *,
    beta: float = 2.0,
    eta: float = 0.0005,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""POWER with dynamic labels: :func:`power` with the rows' own labels l in the place of q.

    .. math:: \ell = -l\log\sigma(z) - (1-l)\log\sigma(-z) - \eta\beta\,w_w\log\pi(y_w),\quad
       l \leftarrow (1-\gamma)\,l + \gamma\,\sigma(z)

    At the fixed point :math:`l = \sigma(z)` the preference term has no gradient. :func:`power_dl_method` keeps the
    labels, :func:`rlx.signals.dynamic_labels` updates them.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      lengths: ``[..., 2]`` number of response tokens; an empty response divides by 1.
      label_table: ``[...]`` the labels of these rows; a constant.
      beta: strength of the weighted entropy.
      eta: weight of the fine-tuning term, which the label does not touch.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis is not 2.

    >>> print(f"{power_dl(jnp.array([-1.0, -2.0]), jnp.array([1, 2]), 0.5, beta=1.0, eta=0.1):.4f}")
    0.8241

    References:
      Rashidinejad and Tian, arXiv:2412.09544.
    """
    label = labels.soft(label_table)
    return power(policy_logps, lengths, beta=beta, eta=eta, label=label, where=where, reduce=reduce)


ORDERS = {"after": lambda old, new: old, "before": lambda old, new: new}
"""When labels are updated, relative to their use in the loss of the step: which of the two the loss gets."""


def power_dl_method(
    *,
    beta: float = 2.0,
    eta: float = 0.0005,
    gamma: float = 0.1,
    update: str = "after",
    axis_name: numerics.AxisName = None,
) -> Method:
    """POWER-DL with its state: one label per row of the dataset, 1 at first, updated once per step.

    Args:
      beta: strength of the weighted entropy.
      eta: weight of the fine-tuning term.
      gamma: step of the labels towards the model's probability, in [0, 1]; 0 is POWER.
      update: ``after`` the loss of the step has used the labels, or ``before``, without which a single pass over the
        data never sees a label other than 1.
      axis_name: mapped axes the batch is spread over; the table is the same everywhere.

    Raises:
      UserError: gamma or update is not one of these.

    >>> power_dl_method(gamma=0.5).needs
    ('policy_logps', 'lengths', 'index')
    """
    if not 0 <= gamma <= 1:
        raise errors.UserError(f"gamma is a step towards the model's labels and must be in [0, 1], got {gamma}.")
    if update not in ORDERS:
        hint = errors.close_matches(update, ORDERS)
        raise errors.UserError(f"update says when labels change: 'after' or 'before' their use, got {update!r}.{hint}")
    lifted = stateless(power_dl, keywords={"beta": beta, "eta": eta}, axis_name=axis_name)
    needs = ("policy_logps", "lengths", "index")

    def init(key: Array, shapes: Shapes) -> tuple[PyTree, PyTree]:
        return {}, {"labels": signals.dynamic_labels(shapes.num_examples, gamma).init()}

    def prepare(batch: Batch, params: PyTree, state: PyTree, key: Array | None = None) -> tuple[Constants, PyTree]:
        policy_logps, lengths, index = (take(batch, name, lifted.name) for name in needs)
        old, where = state["labels"], batch.get("where")
        size, valid = len(old), compare.pair_where(where)
        index = index if valid is None else jnp.where(valid, index, size)
        probability = jax.nn.sigmoid(power_logit(policy_logps, lengths, beta=beta, where=where))
        new, table = signals.dynamic_labels(size, gamma).update(probability, old, index, axis_name)
        return Constants({}, {"label_table": ORDERS[update](signals.lookup(old, index), new)}), {"labels": table}

    def apply(constants: Constants, batch: Batch, params: PyTree) -> tuple[Array, Array]:
        return lifted.apply(Constants({}, {}), {**batch, **constants.units}, params)

    return lifted._replace(
        init=init,
        prepare=prepare,
        apply=apply,
        needs=needs,
        prepare_needs=needs,
        hyperparameters={"beta": beta, "eta": eta, "gamma": gamma, "update": update},
        partition=lambda params, state: (None, {"labels": PartitionSpec(("data", "fsdp"))}),
    )
