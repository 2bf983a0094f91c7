"""From the names and arguments of other libraries to the same method here: :func:`from_trl`, :func:`from_verl`.

The tables say under which name a loss stands there, what its arguments are called here, and that library's defaults,
so that the numbers are the same, however the defaults here differ.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rlx import aggregate, errors
from rlx.build import build
from rlx.catalog.policy import SEQUENCE, TOKEN
from rlx.method import Method

Convert = Callable[[Any], Any]


class Argument(NamedTuple):
    """An argument there: its keyword here (None: it has no effect on this loss), default there, and conversion."""

    keyword: str | None
    default: Any
    convert: Convert | None = None


class Rule(NamedTuple):
    """A loss there: its name here, its arguments, and keywords that its name there implies."""

    name: str
    arguments: Mapping[str, Argument]
    fixed: Mapping[str, Any] = {}


BETA = {"beta": Argument("beta", 0.1)}
SMOOTHING = {"label_smoothing": Argument("epsilon", 0.0)}
SIDES = {
    "desirable_weight": Argument("lambda_desirable", 1.0),
    "undesirable_weight": Argument("lambda_undesirable", 1.0),
}
CPO = BETA | {"cpo_alpha": Argument("alpha", 1.0)}
SIMPO = BETA | {"simpo_gamma": Argument("gamma", 0.5)} | SMOOTHING
DIVERGENCES = {
    "reverse_kl": "reverse_kl",
    "js_divergence": "js",
    "forward_kl": "forward_kl",
    "alpha_divergence": "alpha",
}
DIVERGENCE = {
    "f_divergence_type": Argument(
        "divergence", "reverse_kl", lambda name: _lookup("f_divergence_type", name, DIVERGENCES)
    ),
    # TRL's coefficient a counts from the other end: 1 - alpha of the paper
    "f_alpha_divergence_coef": Argument("alpha", 0.5, lambda a: 1 - a),
}

LEVEL = Argument(
    "ratio", "token", lambda name: _lookup("importance_sampling_level", name, {"token": TOKEN, "sequence": SEQUENCE})
)
PENALTY = {"beta": Argument("beta", 0.0), "use_bias_correction_kl": Argument("correct_kl", True)}
GRPO = PENALTY | {
    "epsilon": Argument("clip_low", 0.2),
    "epsilon_high": Argument("clip_high", 0.2),
    "delta": Argument("cap", None),
    "importance_sampling_level": LEVEL,
}
LENGTH = {
    "max_completion_length": Argument("aggregate", 256, lambda length: aggregate.constant(length, empty=True)),
}

# several rules for a name: the first that has all the arguments given. Names are those of TRL 1.x, in which `aot` is
# paired; aot_pair was its name before, when `aot` meant what is aot_unpaired now
TRL: dict[str, dict[str, Sequence[Rule]]] = {
    "dpo": {
        "sigmoid": (
            Rule("dpo", BETA),
            Rule("cdpo", BETA | SMOOTHING),
            Rule("dpo_reference_free", BETA | SMOOTHING | {"reference_free": Argument(None, False)}),
            Rule("fdpo", BETA | SMOOTHING | DIVERGENCE),
            Rule("ld_dpo", BETA | {"ld_alpha": Argument("alpha", 1.0)}),
            Rule("wpo", BETA | {"use_weighting": Argument(None, False)}),
        ),
        "hinge": (Rule("dpo_hinge", BETA),),
        "robust": (Rule("rdpo", BETA | SMOOTHING),),
        "ipo": (Rule("ipo", {"beta": Argument("tau", 0.1)}, {"length_normalize": True}),),
        "sigmoid_norm": (Rule("dpo_length_normalized", BETA),),
        "exo_pair": (Rule("exo_pair", BETA | {"label_smoothing": Argument("epsilon", 1e-3)}),),
        "nca_pair": (Rule("nca_pair", BETA),),
        "bco_pair": (Rule("bco_pair", BETA, {"delta": 0.0}),),
        "sppo_hard": (Rule("sppo_hard", BETA),),
        "aot": (Rule("aot", BETA | SMOOTHING),),
        "aot_pair": (Rule("aot", BETA | SMOOTHING),),
        "aot_unpaired": (Rule("aot_unpaired", BETA | SMOOTHING),),
        "discopop": (Rule("discopop", BETA | {"discopop_tau": Argument("tau", 0.05)}),),
        "apo_zero": (Rule("apo_zero", BETA),),
        "apo_down": (Rule("apo_down", BETA),),
        "sft": (Rule("sft", {}),),
    },
    "kto": {"kto": (Rule("kto", BETA | SIDES),), "apo_zero_unpaired": (Rule("apo_zero_unpaired", BETA | SIDES),)},
    "cpo": {
        "sigmoid": (Rule("cpo", CPO),),
        "hinge": (Rule("cpo_hinge", CPO),),
        "simpo": (Rule("simpo", SIMPO),),
        "alphapo": (Rule("alphapo_reward_shape", SIMPO | {"alpha": Argument("alpha", 0.0)}),),
    },
    "orpo": {"orpo": (Rule("orpo", BETA),)},
    "reward": {"bradley_terry": (Rule("bradley_terry_rm", {}),)},
    "grpo": {
        "grpo": (Rule("trl_grpo_loss", GRPO),),
        "bnpo": (Rule("trl_bnpo_loss", GRPO),),
        "dr_grpo": (Rule("trl_dr_grpo_loss", GRPO | LENGTH),),
        "dapo": (Rule("trl_dapo_loss", GRPO),),
        "luspo": (Rule("trl_luspo_loss", GRPO | {"importance_sampling_level": LEVEL._replace(default="sequence")}),),
        "sapo": (
            Rule(
                "trl_sapo_loss",
                PENALTY
                | {
                    "sapo_temperature_pos": Argument("tau_positive", 1.0),
                    "sapo_temperature_neg": Argument("tau_negative", 1.05),
                },
            ),
        ),
        # TRL's cap is the ratio itself, not its distance from 1
        "cispo": (Rule("trl_cispo_loss", PENALTY | {"epsilon_high": Argument("clip_high", 0.2, lambda cap: cap - 1)}),),
        "vespo": (
            Rule(
                "trl_vespo_loss",
                {
                    "beta": Argument("beta", 0.0),
                    "vespo_k_pos": Argument("k_positive", 2.0),
                    "vespo_lambda_pos": Argument("lambda_positive", 3.0),
                    "vespo_k_neg": Argument("k_negative", 3.0),
                    "vespo_lambda_neg": Argument("lambda_negative", 2.0),
                },
            ),
        ),
    },
}

CLIP = {
    "clip_ratio_low": Argument("clip_low", 0.2),
    "clip_ratio_high": Argument("clip_high", 0.2),
    "clip_ratio_c": Argument("dual_clip", 3.0),
}
BOTH_SIDES = {name: CLIP[name] for name in ("clip_ratio_low", "clip_ratio_high")}
VERL: dict[str, Rule] = {
    "vanilla": Rule("ppo_clip_loss", CLIP),
    "gspo": Rule("gspo_loss", BOTH_SIDES, {"aggregate": aggregate.sequence_mean}),
    "geo_mean": Rule("gmpo_loss", BOTH_SIDES, {"aggregate": aggregate.sequence_mean_with_empty}),
    "cispo": Rule("cispo_loss", BOTH_SIDES),
    "sapo": Rule(
        "sapo_loss",
        {"tau_pos": Argument("tau_positive", 1.0), "tau_neg": Argument("tau_negative", 1.05)},
        {"aggregate": aggregate.sequence_mean},
    ),
    "gpg": Rule("gpg_loss", {}),
    "clip_cov": Rule(
        "clip_cov",
        {
            "clip_ratio_low": Argument("clip_low", 0.2),
            "clip_ratio_high": Argument("clip_high", 0.2),
            "clip_cov_ratio": Argument("ratio", 0.0002),
            "clip_cov_lb": Argument("lower", 1.0),
            "clip_cov_ub": Argument("upper", 5.0),
        },
    ),
    "kl_cov": Rule(
        "kl_cov",
        {
            "kl_cov_ratio": Argument("ratio", 0.0002),
            "ppo_kl_coef": Argument("coefficient", 1.0),
        },
    ),
}
VERL_AGGREGATIONS = {
    "token-mean": "token_mean",
    "seq-mean-token-sum": "sequence_sum",
    "seq-mean-token-mean": "sequence_mean",
}


def from_trl(loss_type: str, *, trainer: str = "dpo", **arguments: Any) -> Method:
    """The method that TRL calls ``loss_type``, with its arguments and its defaults.

    Args:
      loss_type: TRL's name.
      trainer: whose: ``dpo``, ``kto``, ``cpo``, ``orpo``, ``reward``, ``grpo`` (the loss on given advantages:
        :func:`rlx.grpo_advantage` with ``epsilon=1e-4`` has TRL's).
      arguments: as TRL calls them (``beta``, ``label_smoothing``, ...); those left out are TRL's defaults.

    Raises:
      UserError: an unknown trainer, loss type or argument, with close matches.

    >>> method = from_trl("robust", beta=0.2, label_smoothing=0.1)
    >>> method.name, method.hyperparameters["epsilon"]
    ('rdpo', 0.1)
    """
    losses = _lookup("TRL trainer", trainer, TRL)
    rules = _lookup(f"loss_type of TRL's {trainer} trainer", loss_type, losses)
    rule = next((rule for rule in rules if set(arguments) <= set(rule.arguments)), rules[-1])
    if "epsilon" in arguments and {"epsilon", "epsilon_high"} <= set(rule.arguments):
        arguments = {"epsilon_high": arguments["epsilon"], **arguments}
    return _build(f"TRL's {loss_type!r}", rule, arguments)


def from_verl(
    loss_mode: str, *, loss_agg_mode: str = "token-mean", clip_ratio: float | None = None, **arguments: Any
) -> Method:
    """The method that verl calls ``loss_mode``, with its arguments and its defaults.

    Args:
      loss_mode: verl's ``policy_loss.loss_mode``.
      loss_agg_mode: verl's reduction; losses that have one of their own (gspo, geo_mean, sapo) ignore it, as there.
        Its ``seq-mean-token-sum-norm`` is ``aggregate.constant(L, per_row=False)``.
      clip_ratio: both bounds at once, where the loss has them.
      arguments: as verl calls them (``clip_ratio_low``, ``clip_ratio_high``, ``clip_ratio_c``, ...).

    Raises:
      UserError: an unknown loss mode, aggregation or argument, with close matches.

    >>> from_verl("vanilla", clip_ratio_high=0.28).hyperparameters["clip_high"]
    0.28
    """
    rule = _lookup("loss_mode of verl", loss_mode, VERL)
    if clip_ratio is not None:
        arguments = {"clip_ratio_low": clip_ratio, "clip_ratio_high": clip_ratio, **arguments}
    reduction = aggregate.by_name(_lookup("loss_agg_mode of verl", loss_agg_mode, VERL_AGGREGATIONS))
    built = _build(f"verl's {loss_mode!r}", rule, arguments)
    return built if "aggregate" in rule.fixed else built._replace(aggregate=reduction)


def _lookup(what: str, name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        hint = errors.close_matches(name, known)
        raise errors.UserError(f"Unknown {what}: {name!r}.{hint} Known: {', '.join(known)}.")
    return known[name]


def _build(what: str, rule: Rule, given: Mapping[str, Any]) -> Method:
    for name in given:
        if name not in rule.arguments:
            hint = errors.close_matches(name, rule.arguments)
            takes = ", ".join(rule.arguments) or "no arguments"
            raise errors.UserError(f"{what} has no argument {name!r}.{hint} It takes: {takes}.")
    keywords = dict(rule.fixed)
    for name, (keyword, default, convert) in rule.arguments.items():
        value = given.get(name, default)
        if keyword is not None:
            keywords[keyword] = value if convert is None else convert(value)
    return build({"name": rule.name, **keywords})
