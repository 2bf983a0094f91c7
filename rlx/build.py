"""From a config to a :class:`~rlx.method.Method`: names and keywords are checked at once."""

from collections.abc import Callable, Mapping
from typing import Any

from rlx import aggregate, catalog, errors, numerics
from rlx import method as methods
from rlx.parts import part

_AMBIENT = ("where", "reduce", "key", "axis_name")


def build(config: Mapping[str, Any] | str, *, axis_name: numerics.AxisName = None) -> methods.Method:
    """Builds the method a config names.

    Args:
      config: ``{"name": "rdpo", "epsilon": 0.2, "aggregate": "token_mean"}``, or just a name. ``aggregate`` is optional
        (:func:`rlx.aggregate.by_name`); every other key is a keyword of the method's function. A part may be named:
        ``{"name": "dpo", "link": "hinge"}`` or ``"squared(2.0)"`` (:func:`rlx.parts.part`).
      axis_name: mapped axes (pmap, shard_map) the batch is spread over.

    Raises:
      UserError: unknown name or keyword (with close matches), or a name that is not a loss.

    >>> build({"name": "rdpo", "epsilon": 0.2}).needs
    ('policy_logps', 'reference_logps')
    """
    config = {"name": config} if isinstance(config, str) else dict(config)
    if "name" not in config:
        raise errors.UserError(f"The method config {config} has no 'name'; see METHODS.md for all names.")
    name = config.pop("name")
    entry = catalog.lookup(name)
    preset = dict(entry.preset)
    reduction = config.pop("aggregate", preset.pop("reduce", preset.pop("aggregate", None)))
    if entry.kind != "loss":
        raise errors.UserError(f"{name!r} is of kind {entry.kind}, not a loss: call rlx.{name}(...) on arrays instead.")
    keywords = preset | config
    function = entry.method or entry.function
    check_keywords(function, keywords, name)
    defaults = methods.keywords_of(function)
    keywords = {keyword: part(keyword, value, defaults[keyword]) for keyword, value in keywords.items()}
    chosen = None if reduction is None else aggregate.by_name(reduction)
    if entry.method is not None:
        built = entry.method(**keywords, axis_name=axis_name)
        return built._replace(name=name, data=entry.data, aggregate=(chosen or built.aggregate).over(axis_name))
    lifted = methods.stateless(
        entry.function,
        name=name,
        keywords=keywords,
        coupled=entry.coupled,
        coupling=entry.coupling,
        aggregation=chosen,
        axis_name=axis_name,
    )
    required = [array for keyword, array in entry.requires.items() if lifted.hyperparameters.get(keyword)]
    optional = tuple(array for array in lifted.optional if array not in required)
    return lifted._replace(needs=(*lifted.needs, *required), optional=optional, data=entry.data)


def check_keywords(function: Callable[..., Any], keywords: Mapping[str, Any], name: str) -> None:
    """Raises a UserError for a keyword that the function does not have, with close matches."""
    known = [keyword for keyword in methods.keywords_of(function) if keyword not in _AMBIENT]
    for keyword in keywords:
        if keyword not in known:
            hint = errors.close_matches(keyword, known)
            raise errors.UserError(
                f"{name} has no keyword {keyword!r}.{hint} It takes: {', '.join(known) or 'none'}, and aggregate."
            )
