"""Mutations of valid inputs, drawn from a seeded generator: of bytes, of lines, of JSON trees, of words."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

LARGEST = 2**21  # bytes of a case
NUMBERS = (0, -1, 1, 2**31, 2**32 - 1, 2**40, -(2**63), 2**64, 10**400, 0.5, -0.0, 1e308, 1e-320, 1e39, float("inf"))
NUMBERS += (float("-inf"), float("nan"))
TEXTS = (
    "",
    "\0",
    "\n",
    "\ud800",
    "é" * 50,
    "NaN",
    "../../etc/passwd",
    "{{ 7 * 7 }}",
    "<|endoftext|>",
    "x" * 20_000,
    "🦙",
    r"$\x$",
)
BYTES = (b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b'"', b"{", b"}", b"[", b"]", b",", b":", b"1e999", b"-")
DEEP = (10, 60, 70, 900, 20_000)


def mutate(content: bytes, rng: Random, others: list[bytes], words: tuple[bytes, ...] = ()) -> bytes:
    """One to four mutations of a valid input; ``others``: inputs to splice with, ``words``: of their grammar."""
    if rng.random() < 0.02:
        return content
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        tree = rng.random() < 0.6
        content = (_json_line(content, rng) if tree else None) or rng.choice(RAW)(content, rng, others, words)
    return content[:LARGEST]


def _json_line(content: bytes, rng: Random) -> bytes | None:
    """A mutation of one line's JSON tree (of the whole, where it is one tree); None where it holds none."""
    whole = _parsed(content)
    if whole is not None:
        return _dumped(_tree(whole[0], rng), rng)
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    parsed = _parsed(lines[place])
    if parsed is None:
        return None
    lines[place] = _dumped(_tree(parsed[0], rng), rng)
    return b"\n".join(lines)


def _parsed(text: bytes) -> tuple[Any] | None:
    try:
        return (json.loads(text.decode()),)
    except (ValueError, RecursionError):
        return None


def _dumped(tree: Any, rng: Random) -> bytes:
    try:
        text = json.dumps(tree, ensure_ascii=rng.random() < 0.5)
    except (ValueError, RecursionError):
        text = "[" * 5000
    text = text.replace("1" + "0" * 400, "9" * rng.choice((30, 400, 5000)))
    if rng.random() < 0.1 and text.startswith("{") and len(text) > 2:  # a key twice
        text = "{" + text[1:-1] + ", " + text[1:]
    return text.encode("utf-8", "surrogatepass" if rng.random() < 0.3 else "replace")


def _tree(tree: Any, rng: Random) -> Any:
    """The tree with one node changed: its parent is chosen by a walk from the root."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.2:
        return _other(tree, rng)
    node: Any = tree
    keys: list[Any] = [*tree] if isinstance(tree, dict) else [*range(len(tree))]
    key: Any = rng.choice(keys)
    roll = rng.random()
    if roll < 0.6:
        node[key] = _tree(node[key], rng)
    elif roll < 0.7:
        node.pop(key)
    elif roll < 0.8 and isinstance(key, str):
        node[rng.choice((key + "s", key[:-1], key.upper(), *TEXTS[:9]))] = node.pop(key)
    elif roll < 0.9 and isinstance(tree, list):
        tree.extend([tree[key]] * rng.choice((1, 2, 100)))
    else:
        node[key] = node[rng.choice(keys)]
    return tree


def _other(value: Any, rng: Random) -> Any:
    """A value of another type, an extreme one, or the old one deep inside."""
    roll = rng.random()
    if roll < 0.35:
        return rng.choice(NUMBERS)
    if roll < 0.6:
        return rng.choice(TEXTS)
    if roll < 0.7:
        return rng.choice((True, False, None))
    if roll < 0.8:
        return rng.choice(([], {}, [[]], [None], {"": 0}, [1, 2, 3], ["a"], list(range(1000))))
    if roll < 0.9:
        return [value] if rng.random() < 0.5 else {"content": value, "role": value}
    for _ in range(rng.choice(DEEP[:4])):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


Raw = Callable[[bytes, Random, list[bytes], tuple[bytes, ...]], bytes]


def _flip(content: bytes, rng: Random, others: list[bytes], words: tuple[bytes, ...]) -> bytes:
    found = bytearray(content or b"\0")
    for _ in range(rng.choice((1, 1, 2, 8))):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def _cut(content: bytes, rng: Random, others: list[bytes], words: tuple[bytes, ...]) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _drop(content: bytes, rng: Random, others: list[bytes], words: tuple[bytes, ...]) -> bytes:
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:start] + content[end:]


def _repeat(content: bytes, rng: Random, others: list[bytes], words: tuple[bytes, ...]) -> bytes:
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:end] + content[start:end] * rng.choice((1, 2, 50)) + content[end:]


def _splice(content: bytes, rng: Random, others: list[bytes], words: tuple[bytes, ...]) -> bytes:
    other = rng.choice(others)
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


def _insert(content: bytes, rng: Random, others: list[bytes], words: tuple[bytes, ...]) -> bytes:
    place = rng.randrange(len(content) + 1)
    new = rng.choice(words) if words and rng.random() < 0.8 else rng.choice(BYTES) * rng.choice((1, 1, 3, *DEEP))
    return content[:place] + new + content[place:]


RAW: tuple[Raw, ...] = (_flip, _cut, _drop, _repeat, _splice, _insert, _insert)
