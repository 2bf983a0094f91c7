"""Functions by name: of a registry, of a user's module, or as they are."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from rlx.errors import UserError, close_matches


def by_name(name: Any, registry: Mapping[str, Any], kind: str) -> Any:
    """Returns what a name stands for: an entry of the registry, or ``"package.module:function"``; a function is itself.

    Args:
        name: a name, an import path or a function.
        registry: name to function.
        kind: what it is, for messages: ``verifier``.

    Raises:
        UserError: an unknown name, module or function, with close matches.

    >>> by_name("math:sqrt", {}, "verifier")(9)
    3.0
    """
    if callable(name):
        return name
    if isinstance(name, str) and ":" in name:
        return _imported(name, kind)
    if name not in registry:
        near = close_matches(str(name), registry)
        raise UserError(f"unknown {kind} {name!r}; {kind}s are {list(registry)} or 'module:function'.{near}")
    return registry[name]


def _imported(path: str, kind: str) -> Callable[..., Any]:
    module_name, _, function_name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"{kind} {path!r}: cannot import {module_name!r} ({error}); is it on PYTHONPATH?") from None
    except ValueError:  # an empty or relative name
        raise UserError(f"{kind} {path!r}: write 'package.module:function'.") from None
    found = getattr(module, function_name, None)
    if not callable(found):
        names = [name for name, value in vars(module).items() if callable(value)]
        near = close_matches(function_name, names)
        raise UserError(f"{kind} {path!r}: {module_name} has no function {function_name!r}.{near}")
    return found


def check_options(function: Callable[..., Any], options: Mapping[str, Any], owner: str) -> None:
    """Raises ``UserError`` for an option that a function does not take, or lacks, with close matches.

    >>> check_options(by_name, {"nam": 1}, "task 'x'")
    Traceback (most recent call last):
    rlx.errors.UserError: task 'x' has no option 'nam'; options are ['name', 'registry', 'kind']. Did you mean 'name'?
    """
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            near = close_matches(option, parameters)
            raise UserError(f"{owner} has no option {option!r}; options are {list(parameters)}.{near}")
