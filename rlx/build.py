"""From a config to a :class:`~rlx.method.Method`: names and keywords are checked at once."""

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from rlx import aggregate, catalog, errors, numerics
from rlx import method as methods

_AMBIENT = ("where", "reduce", "key", "axis_name")


def build(config: Mapping[str, Any] | str, *, axis_name: numerics.AxisName = None) -> methods.Method:
    """Builds the method a config names.

    Args:
      config: ``{"name": "rdpo", "epsilon": 0.2, "aggregate": "token_mean"}``, or just a name. ``aggregate`` is optional
        (:func:`rlx.aggregate.by_name`); every other key is a keyword of the method's function. A part may be named:
        ``{"name": "dpo", "link": "hinge"}`` or ``"squared(2.0)"`` (:func:`part`).
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
    reduction = config.pop("aggregate", None)
    entry = catalog.lookup(name)
    if entry.kind != "loss":
        raise errors.UserError(f"{name!r} is of kind {entry.kind}, not a loss: call rlx.{name}(...) on arrays instead.")
    keywords = dict(entry.preset) | config
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
    return lifted._replace(data=entry.data)


def part(keyword: str, value: Any, default: Any) -> Any:
    """The part that a string names, beside the default one in its module; any other value as it is.

    Args:
      keyword: for the error.
      value: a name (``hinge``), a name with numbers for a part that is made from some (``squared(2.0)``), or a value.
      default: of the keyword; only functions have parts beside them.

    Raises:
      UserError: an unknown part, or numbers that it does not take, with close matches.

    >>> from rlx.preference import links
    >>> part("link", "hinge", links.logistic) is links.hinge
    True
    """
    if not isinstance(value, str) or not inspect.isfunction(default):
        return value
    beside = {
        name: function
        for name, function in vars(inspect.getmodule(default)).items()
        if inspect.isfunction(function) and function.__module__ == default.__module__ and not name.startswith("_")
    }
    ready = {name for name, function in beside.items() if next(iter(_names(function))) == next(iter(_names(default)))}
    name, opened, numbers = value.partition("(")
    if name in ready and not opened:
        return beside[name]
    try:
        made = {other: beside[other] for other in beside if other not in ready and opened}
        return made[name](*ast.literal_eval(f"({numbers.removesuffix(')')},)"))
    except (KeyError, TypeError, ValueError, SyntaxError):
        shown = [n if n in ready else f"{n}({', '.join(_names(f))})" for n, f in beside.items()]
        hint = errors.close_matches(name, beside)
        raise errors.UserError(f"Unknown {keyword} {value!r}.{hint} Known: {', '.join(shown)}.") from None


def _names(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def check_keywords(function: Callable[..., Any], keywords: Mapping[str, Any], name: str) -> None:
    """Raises a UserError for a keyword that the function does not have, with close matches."""
    known = [keyword for keyword in methods.keywords_of(function) if keyword not in _AMBIENT]
    for keyword in keywords:
        if keyword not in known:
            hint = errors.close_matches(keyword, known)
            raise errors.UserError(
                f"{name} has no keyword {keyword!r}.{hint} It takes: {', '.join(known) or 'none'}, and aggregate."
            )
