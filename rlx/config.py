"""Configs: load a file by path, override single values from the command line, write, hash and compare them.

A config file is a Python file with ``get_config(arg=None)``, which returns an ``ml_collections.ConfigDict``.
ml_collections' own flags are not used: they need absl's global flag state, and their messages name neither
the close match nor the block in which a key is missing.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from rlx import bounds
from rlx.errors import UserError, close_matches, one_line

ABSENT = "(absent)"
MAX_BYTES = 2**24  # of a config.json
LONGEST_KEY, LONGEST_VALUE, LARGEST = 200, 2**16, 2**64  # of what a command line sets
OPEN_BLOCKS = ("method",)  # their keys are the method's own keywords, which rlx.build checks
OPEN_WITHIN = ("method", "model.lora", "policies", "rl.rollout")
OPEN_WITHIN += tuple(f"{stage}.packing" for stage in ("sft", "reward", "preference", "rl"))
"""Blocks that take keys, and blocks, which they do not list; checked later. They themselves need not be listed."""
OF_ANY_RUN = ("engine", "mesh.sequence", "on_nan", "explode", "max_skips", "checksums", "data.chat_template")
"""Keys of a config that need not be listed: what a run does about faults, and who writes conversations out."""
BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


# ---------------------------------------------------------------- files


def split_spec(spec: str) -> tuple[Path, str | None]:
    """Splits ``path.py:arg`` into the path and the argument (None without a colon).

    >>> split_spec("configs/dpo_hh.py:smoke")
    (PosixPath('configs/dpo_hh.py'), 'smoke')
    """
    match = re.fullmatch(r"(.*?\.py)(?::(.*))?", spec, flags=re.DOTALL)
    if match is None:
        raise UserError(f"--config={spec} is not a Python file: write path/to/file.py or path/to/file.py:argument.")
    return Path(match[1]), match[2]


def load_module(spec: str) -> ModuleType:
    """Executes the config file of ``path.py[:arg]`` and returns its module."""
    path, _ = split_spec(spec)
    if not path.is_file():
        parent = path.parent
        if not parent.is_dir():
            raise UserError(f"config file {path} not found: there is no folder {parent}.")
        names = sorted(file.name for file in parent.glob("*.py"))
        raise UserError(f"config file {path} not found.{close_matches(path.name, names)} {_listing(parent, names)}")
    name = f"rlx_config_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up here
    exec(compile(path.read_bytes(), path, "exec"), vars(module))  # no cached bytecode: it may be a second too old
    return module


def load(spec: str) -> ConfigDict:
    """The locked config of ``path.py[:arg]``, as ``get_config(arg)`` returns it."""
    return config_of(load_module(spec), spec)


def config_of(module: ModuleType, spec: str) -> ConfigDict:
    """Calls ``get_config`` of a loaded config file with the argument in `spec`."""
    path, arg = split_spec(spec)
    function = getattr(module, "get_config", None)
    if not callable(function):
        public = [name for name, value in vars(module).items() if callable(value)]
        raise UserError(f"{path} defines no get_config(arg=None).{close_matches('get_config', public)}")
    if arg is not None and not inspect.signature(function).parameters:
        raise UserError(f"get_config of {path} takes no argument, but --config ends in ':{arg}'.")
    config = function() if arg is None else function(arg)
    if not isinstance(config, Mapping | ConfigDict):
        raise UserError(f"get_config of {path} returned {type(config).__name__}, not a ConfigDict.")
    return (ConfigDict(config) if isinstance(config, Mapping) else config).lock()


# ---------------------------------------------------------------- overrides


def override(config: ConfigDict, overrides: Mapping[str, Any], *, parse: bool = False) -> ConfigDict:
    """A locked copy of `config` with some values replaced, in the order given.

    Keys are dotted (``method.beta``) and must exist, except under ``method``, whose keywords belong to the method, in
    ``model.lora`` and ``policies``, under ``rl.rollout`` and in the block ``packing`` of a stage: what reads them
    checks them. A value keeps the type of the one it replaces; an int passes for a float, and None for anything but a
    bool.
    ``method`` itself may be replaced by a name (``{"method": "ipo"}``: ipo with its own defaults) or by a whole block.

    Args:
      config: the config; it is not changed.
      overrides: dotted key to value.
      parse: values are text from a command line, to be read as the type of the value they replace.

    Raises:
      UserError: an unknown key or a value of the wrong type.
    """
    result = ConfigDict(config.to_dict(preserve_field_references=True))
    for key, value in overrides.items():
        _set(result, key, value, parse)
    return result.lock()


def _set(config: ConfigDict, key: str, value: Any, parse: bool) -> None:
    if len(key) > LONGEST_KEY or not all(part.isidentifier() for part in key.split(".")):
        raise UserError(f"config.{one_line(key, 60)} is no key: names with dots between them, {LONGEST_KEY} letters.")
    if parse and len(value) > LONGEST_VALUE:
        raise UserError(f"config.{key}: a value of {len(value)} letters is too long; {LONGEST_VALUE} are the bound.")
    *parents, last = key.split(".")
    block, name = config, "config"
    for parent in parents:
        if parent not in block and _is_open(f"{name}.{parent}"):
            _put(block, parent, ConfigDict(), name)
        _require(block, parent, name)
        block, name = block[parent], f"{name}.{parent}"
        if not isinstance(block, ConfigDict):
            raise UserError(f"{name} is the value {_shown(block)}, not a block: it has no key '{last}'.")
    full = f"{name}.{last}"
    if last not in block and (_is_open(name) or key in OF_ANY_RUN):
        _put(block, last, _literal(value, full) if parse else value, name)
        return
    _require(block, last, name)
    old = block[last]
    if isinstance(old, ConfigDict):
        _set_block(config, block, key, value, parse)
        return
    kind = block.get_type(last)
    new = _parse(value, old, kind, full) if parse else _convert(value, old, kind, full)
    with block.ignore_type():
        block[last] = new


def _put(block: ConfigDict, key: str, value: Any, name: str) -> None:
    """Adds a key that a block does not list."""
    try:
        block[key] = value
    except (KeyError, AttributeError, TypeError, ValueError):  # names and values that ConfigDict keeps for itself
        raise UserError(f"{name} cannot have a key '{key}' with the value {_shown(value)}.") from None


def _shown(value: Any) -> str:
    try:
        return one_line(repr(value), 100)
    except (ValueError, RecursionError):  # an int of thousands of digits, or too deep
        return f"of type {type(value).__name__}"


def _is_open(name: str) -> bool:
    """Whether a block, ``config.<dotted name>``, takes keys that it does not list."""
    return any(f"{name}.".startswith(f"config.{block}.") for block in OPEN_WITHIN)


def _set_block(config: ConfigDict, block: ConfigDict, key: str, value: Any, parse: bool) -> None:
    """Replaces an open block; updates any other block key by key, so that each key is checked."""
    last = key.split(".")[-1]
    if key in OPEN_BLOCKS and isinstance(value, str):
        block[last] = ConfigDict({"name": value})
    elif key in OPEN_BLOCKS and isinstance(value, Mapping | ConfigDict):
        block[last] = ConfigDict(value) if isinstance(value, Mapping) else value
    elif isinstance(value, Mapping | ConfigDict):
        for inner, inner_value in value.items():
            _set(config, f"{key}.{inner}", inner_value, parse)
    else:
        inner: Any = block[last]
        keys = ", ".join(sorted(inner))
        raise UserError(f"config.{key} is a block and cannot become {_shown(value)}: set one of its keys ({keys}).")


def _require(block: ConfigDict, key: str, name: str) -> None:
    if key not in block:
        raise UserError(f"{name} has no key '{key}'.{close_matches(key, block)} {_listing(name, sorted(block.keys()))}")


def _listing(owner: object, names: Sequence[str]) -> str:
    return f"{owner} has: {', '.join(names)}." if names else f"{owner} is empty."


def _literal(text: Any, name: str) -> Any:
    """What a Python literal says, else the text itself; nothing is evaluated.

    Raises:
      UserError: a literal that JSON cannot hold, or a number beyond 64 bits.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of the compiler, on odd escapes
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return BOOLEANS[text.lower()] if str(text).lower() in ("true", "false") else text
    except (MemoryError, RecursionError):
        raise UserError(f"{name}: the value {_shown(text)} is nested too deeply.") from None
    _check_plain(value, name)
    return value


def _check_plain(value: Any, name: str, depth: int = 0) -> None:
    if depth > bounds.MAX_DEPTH:
        raise UserError(f"{name}: the value is nested too deeply.")
    if isinstance(value, list | tuple):
        for item in value:
            _check_plain(item, name, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise UserError(f"{name}: the keys of a dict must be strings, not {_shown(key)}.")
            _check_plain(item, name, depth + 1)
    elif isinstance(value, int) and abs(value) >= LARGEST:
        raise UserError(f"{name}: a whole number beyond 64 bits.")
    elif not (value is None or isinstance(value, str | int | float)):
        raise UserError(f"{name} takes no value of type {type(value).__name__}: {_shown(value)}.")


def _parse(text: str, old: Any, kind: type, name: str) -> Any:
    """Reads `text` as the type of the value that it replaces."""
    if kind is bool:
        if text.lower() not in BOOLEANS:
            raise UserError(_mismatch(name, old, "a bool (true or false)", text))
        return BOOLEANS[text.lower()]
    if text in ("None", "none") and kind is not bool:
        return None
    if kind in (tuple, list):
        return _parse_sequence(text, old, kind, name)
    if kind is str:
        return text
    if kind in (int, float):
        try:
            number = int(text) if kind is int and not re.search(r"[.eE]", text) else float(text)
            whole = kind is int and float(number).is_integer()
        except (ValueError, OverflowError):
            raise UserError(_mismatch(name, old, _type_name(kind), text)) from None
        if number != number or (kind is int and abs(number) >= LARGEST):
            raise UserError(_mismatch(name, old, "a number within 64 bits", text))
        return _convert(int(number) if whole else number, old, kind, name)
    return _literal(text, name)


def _parse_sequence(text: str, old: Any, kind: type, name: str) -> Any:
    value = _literal(text, name)
    if not isinstance(value, tuple | list):
        value = [part.strip() for part in text.strip("()[]").split(",") if part.strip()]
        value = value if old and isinstance(old[0], str) else [_literal(part, name) for part in value]
    return _convert(value, old, kind, name)


def _convert(value: Any, old: Any, kind: type, name: str) -> Any:
    """Checks a Python value against the type that it replaces."""
    if kind is type(None) or (value is None and kind is not bool):
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (tuple, list) and isinstance(value, tuple | list):
        kinds = {type(item) for item in old or ()}
        if kinds == {float}:
            value = [float(item) if type(item) is int else item for item in value]
        wrong = [item for item in value if len(kinds) == 1 and type(item) not in kinds]
        if wrong:
            raise UserError(_mismatch(name, old, f"a sequence of {_type_name(kinds.pop(), plural=True)}", wrong[0]))
        return kind(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(_mismatch(name, old, _type_name(kind), value))
    return value


def _mismatch(name: str, old: Any, expected: str, value: Any) -> str:
    return f"{name} takes {expected} (it is {_shown(old)}), not {_shown(value)}."


def _type_name(kind: type, plural: bool = False) -> str:
    if plural:
        return {str: "strings", int: "ints", float: "floats"}.get(kind, kind.__name__)
    return f"an {kind.__name__}" if kind is int else f"a {kind.__name__}"


# ---------------------------------------------------------------- command line


def parse_options(argv: Sequence[str], usage: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Reads ``--name=value`` and ``--name value`` arguments; the usage text declares which exist.

    In `usage`, ``--name=VALUE`` takes a value, ``--name`` is a switch, ``[--name...]`` may be left out, and
    anything else is required. ``--config.x.y=v`` is accepted wherever the usage has ``--config=``. ``--help``
    prints the usage.

    Args:
      argv: the arguments without the program's name.
      usage: the text that ``--help`` prints.

    Returns:
      Options by name (dashes become underscores; an absent one is None, an absent switch False), and the
      overrides of the config as dotted key to text.

    Raises:
      UserError: an unknown, incomplete or missing option.

    >>> usage = "--config=FILE --workdir=DIR [--list]"
    >>> parse_options(["--workdir=w", "--config", "c.py", "--config.seed=3"], usage)
    ({'config': 'c.py', 'workdir': 'w', 'list': False}, {'seed': '3'})
    """
    takes_value, required = _declared(usage)
    options: dict[str, Any] = {name: None if value else False for name, value in takes_value.items()}
    overrides: dict[str, str] = {}
    arguments = list(argv)
    while arguments:
        argument = arguments.pop(0)
        if argument in ("--help", "-h"):
            print(usage.strip())
            raise SystemExit(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        is_override = name.startswith("config.") and "config" in takes_value
        if not argument.startswith("--") or not (is_override or name in takes_value):
            raise UserError(_unknown(argument, takes_value))
        if not is_override and not takes_value[name]:
            if equals:
                raise UserError(f"--{name} is a switch and takes no value, but got {_shown(value)}.")
            options[name] = True
            continue
        if not equals:
            if not arguments or arguments[0].startswith("--"):
                raise UserError("--{0} needs a value: --{0}=...".format(one_line(name, 100)))
            value = arguments.pop(0)
        if is_override:
            overrides[name.removeprefix("config.")] = value
        else:
            options[name] = value
    missing = [name for name in required if options[name] is None]
    if missing:
        raise UserError(f"--{missing[0]} is missing: --{missing[0]}=...")
    return {name.replace("-", "_"): value for name, value in options.items()}, overrides


def _declared(usage: str) -> tuple[dict[str, bool], list[str]]:
    """The options of a usage text (True: takes a value), and those that are required."""
    found = re.findall(r"(\[)?--([a-z][a-z0-9_-]*)(?![\w.-])(=)?", usage)
    takes_value: dict[str, bool] = {}
    required = []
    for bracket, name, equals in found:
        if name not in takes_value and name != "help":  # the first mention declares; the text may say more
            takes_value[name] = bool(equals)
            required += [] if bracket else [name]
    return takes_value, required


def _unknown(argument: str, known: Iterable[str]) -> str:
    shown = one_line(argument.partition("=")[0] if argument.startswith("--") else argument, 100)
    options = [f"--{name}" for name in known]
    return f"unknown argument {shown}.{close_matches(shown, options)} Known: {' '.join(options)}."


def parse_argv(argv: Sequence[str], usage: str) -> tuple[ConfigDict, dict[str, Any]]:
    """The config that ``--config=FILE[:ARG] --config.x.y=v ...`` describes, and the other options.

    Args:
      argv: the arguments without the program's name.
      usage: see `parse_options`.

    Returns:
      The locked config with its overrides, and the options (``options["config"]`` is the file as it was
      given).
    """
    options, overrides = parse_options(argv, usage)
    return override(load(options["config"]), overrides, parse=True), options


# ---------------------------------------------------------------- JSON, hash, comparison


def to_json(config: ConfigDict | Mapping[str, Any]) -> str:
    """The config as JSON with sorted keys: equal configs give equal text."""
    plain = dict(config) if isinstance(config, Mapping) else config.to_dict()
    return json.dumps(plain, indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """The locked config that `to_json` wrote; lists come back as tuples.

    Raises:
      UserError: the text is no JSON object.
    """
    try:
        value = bounds.loads(text)
        if not isinstance(value, dict):
            raise bounds.Malformed(f"a JSON {type(value).__name__}, not an object")
        return ConfigDict(_tuples(value)).lock()
    except bounds.Malformed as error:
        raise UserError(f"no config: {error}.") from None
    except (KeyError, AttributeError, TypeError, ValueError) as error:  # names that ConfigDict keeps for itself
        raise UserError(f"no config: {one_line(error)}.") from None


def read_json(path: Path) -> ConfigDict:
    """The config in a file, see :func:`from_json`; errors name the file."""
    try:
        return from_json(bounds.read_bytes(path, MAX_BYTES).decode(errors="surrogateescape"))
    except UserError as error:
        raise UserError(f"{path} holds {error}" if str(error).startswith("no config") else str(error)) from None


def config_hash(config: ConfigDict | Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that depend on every value of the config, not on the order of keys."""
    return hashlib.sha256(to_json(config).encode()).hexdigest()[:12]


def flatten(config: ConfigDict | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key to value.

    >>> flatten({"seed": 0, "method": {"beta": 0.1}})
    {'seed': 0, 'method.beta': 0.1}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def diff(old: ConfigDict | Mapping[str, Any], new: ConfigDict | Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The dotted keys whose values differ, with (old, new); a missing side is `ABSENT`.

    >>> diff({"seed": 0, "method": {"beta": 0.1}}, {"seed": 0, "method": {"beta": 0.2}})
    {'method.beta': (0.1, 0.2)}
    """
    left, right = flatten(_tuples(json.loads(to_json(old)))), flatten(_tuples(json.loads(to_json(new))))
    pairs = {key: (left.get(key, ABSENT), right.get(key, ABSENT)) for key in sorted(left.keys() | right.keys())}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def describe(differences: Mapping[str, tuple[Any, Any]]) -> str:
    """One line that lists what `diff` found: of long values where they begin to differ, and no more than a few.

    >>> describe({"method.beta": (0.1, 0.2)})
    'method.beta: 0.1 -> 0.2'
    >>> describe({"data.records": (("ab" * 30, "c"), ("ab" * 30, "d", "e"))})
    'data.records: 2 -> 3 items, [1]: c -> d'
    """
    shown = [_describe(key, old, new) for key, (old, new) in list(differences.items())[:SHOWN]]
    more = len(differences) - len(shown)
    return ", ".join([*shown, *([f"and {more} more"] if more else [])])


SHOWN, WIDTH = 12, 48
"""Differences that `describe` lists, and characters of a value."""


def _describe(name: str, old: Any, new: Any) -> str:
    """The first difference within two values."""
    if isinstance(old, tuple | list) and isinstance(new, tuple | list):
        sizes = f"{name}: {len(old)} -> {len(new)} items" if len(old) != len(new) else ""
        short = len(str(old)) <= WIDTH and len(str(new)) <= WIDTH
        place = next((i for i, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), None)
        if not short and place is not None:
            return _describe(f"{sizes}, [{place}]" if sizes else f"{name}[{place}]", old[place], new[place])
        if not short:
            return sizes
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        key = next(key for key in sorted({*old, *new}) if old.get(key, ABSENT) != new.get(key, ABSENT))
        return _describe(f"{name}.{key}", old.get(key, ABSENT), new.get(key, ABSENT))
    before, after = str(old), str(new)
    if max(len(before), len(after)) > WIDTH:
        same = len(os.path.commonprefix([before, after]))
        before, after = (_window(text, max(0, same - WIDTH // 4)) for text in (before, after))
    return f"{name}: {before} -> {after}"


def _window(text: str, start: int) -> str:
    """A part of a text, in which dots stand for the rest."""
    return ("..." if start else "") + text[start : start + WIDTH] + ("..." if start + WIDTH < len(text) else "")


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        strange = next((key for key in value if not key.isprintable() or len(key) > LONGEST_KEY), None)
        if strange is not None:  # messages say keys as they stand
            raise bounds.Malformed(f"the key {one_line(strange, 60)!r} is no name")
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def command(main: Callable[[Sequence[str]], int | None]) -> int:
    """Runs a command with the process's arguments; a `UserError` is printed as one line and gives exit status 2."""
    try:
        return main(sys.argv[1:]) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
