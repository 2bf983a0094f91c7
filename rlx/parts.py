"""Parts by name: from a string in a config, ``clip(0.2, dual=3.0)``, to a name and arguments, or to a function."""

import ast
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from rlx import errors


class Call(NamedTuple):
    """A name and what stands in its parentheses."""

    name: str
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}


def parse(text: str) -> Call:
    """Reads ``name`` or ``name(1.0, other=2)``; arguments are Python literals.

    Raises:
      UserError: it is not written like that.

    >>> parse("clip(0.2, high=0.28)")
    Call(name='clip', arguments=(0.2,), keywords={'high': 0.28})
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return Call(node.id)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            keywords = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg is not None}
            if len(keywords) == len(node.keywords):  # no **
                return Call(node.func.id, tuple(map(ast.literal_eval, node.args)), keywords)
    except (SyntaxError, ValueError):
        pass
    raise errors.UserError(
        f"Cannot read the part {text!r}: write a name, or a name with numbers in parentheses: 'clip(0.2, high=0.28)'."
    )


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
    ready = {name for name, function in beside.items() if names(function)[:1] == names(default)[:1]}
    name, opened, _ = value.partition("(")
    if name in ready and not opened:
        return beside[name]
    try:
        made = {other: beside[other] for other in beside if other not in ready and opened}
        call = parse(value)
        return made[call.name](*call.arguments, **call.keywords)
    except (KeyError, TypeError, ValueError):
        shown = [n if n in ready else f"{n}({', '.join(names(f))})" for n, f in beside.items()]
        hint = errors.close_matches(name, beside)
        raise errors.UserError(f"Unknown {keyword} {value!r}.{hint} Known: {', '.join(shown)}.") from None


def names(function: Callable[..., Any]) -> list[str]:
    """Names of all parameters of a function."""
    return list(inspect.signature(function).parameters)
