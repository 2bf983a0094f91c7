"""Policies: ``build(config)`` makes the transformer of rlx or calls your own factory."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from rlx.errors import UserError, close_matches
from rlx.models.base import Decode, Model, Params, Policy

__all__ = ["Decode", "Model", "Params", "Policy", "build"]


def build(config: Mapping[str, Any]) -> Model:
    """Makes the model that ``config`` names.

    Args:
        config: ``name`` and the options of that model. ``name="transformer"`` takes the fields of
            ``rlx.models.transformer.Config``; ``name="hf"`` the folder ``path`` of a Hugging Face model and what it
            leaves open (:func:`rlx.models.huggingface.build`); ``name="package.module:factory"`` calls your own
            function with the other keys, which returns a ``Model``.

    Raises:
        UserError: the name or an option is unknown, or an option has an impossible value.

    >>> model = build({"name": "transformer", "vocab_size": 16, "hidden_size": 8, "num_heads": 2})
    >>> hidden, unembedding = model.apply(model.init(0), jnp.array([[1, 2, 3]]))
    >>> print(hidden.shape, unembedding.shape)
    (1, 3, 8) (8, 16)
    """
    options = dict(config)
    name = options.pop("name", "transformer")
    if name == "transformer":
        from rlx.models import transformer

        _check_options(name, options, [field.name for field in dataclasses.fields(transformer.Config)])
        return transformer.build(transformer.Config(**options))
    if name == "hf":
        from rlx.models import huggingface

        return huggingface.build(**options)
    factory = _import_factory(name)
    parameters = inspect.signature(factory).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        _check_options(name, options, list(parameters))
    return factory(**options)


def _check_options(name: str, options: Mapping[str, Any], known: list[str]) -> None:
    for key in options:
        if key not in known:
            raise UserError(
                f"model {name!r} has no option {key!r}.{close_matches(key, known)} Options: {', '.join(known)}"
            )


def _import_factory(name: str) -> Callable[..., Model]:
    module_name, separator, attribute = str(name).partition(":")
    if not separator:
        hint = close_matches(name, ["transformer", "hf"])
        raise UserError(f"unknown model {name!r}.{hint} Use 'transformer', 'hf' or 'package.module:factory'.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the user's module exists, something that it imports does not
        raise UserError(f"model {name!r}: there is no module {error.name!r} on the path") from error
    if not hasattr(module, attribute):
        hint = close_matches(attribute, vars(module))
        raise UserError(f"model {name!r}: module {module_name!r} has no {attribute!r}.{hint}")
    return getattr(module, attribute)
