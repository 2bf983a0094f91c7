"""What a compiled program moves between devices: the collectives of its HLO text, loops multiplied out."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+?)(\d*)(?:e\d+m\d+\w*)?\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')


class Moved(NamedTuple):
    """Collectives of one kind in a step: how often they run, and bytes of their results on one device."""

    count: int
    size: int


def collectives(text: str) -> dict[str, Moved]:
    """What a program moves, by kind; an all-reduce counts twice its result, as a ring moves it.

    A loop counts as often as it runs: XLA's word for it, or else the bound in its condition. A collective that a TPU's
    compiler has spread over the computations that it hides behind counts where it starts.

    >>> found = collectives("ENTRY %main (x: f32[8]) -> f32[8] {\\n  %r = f32[8]{0} all-reduce(%x), channel_id=1\\n}")
    >>> found["all-reduce"]
    Moved(count=1, size=64)
    """
    computations = dict(_computations(text))
    entry = next((name for name, (first, _) in computations.items() if first), None)
    counts, sizes = Counter[str](), Counter[str]()
    if entry is not None:
        for kind, times, size in _walk(computations, entry, 1, set()):
            counts[kind] += times
            sizes[kind] += times * size
    return {kind: Moved(counts[kind], sizes[kind]) for kind in KINDS if counts[kind]}


def _computations(text: str) -> Iterator[tuple[str, tuple[bool, list[str]]]]:
    """Name -> (is it the entry, its lines)."""
    name, entry, lines = "", False, []
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            name, entry, lines = header[2], bool(header[1]), []
        elif line.startswith("}") and name:
            yield name, (entry, lines)
        else:
            lines.append(line)


def _goes_on(name: str, lines: list[str]) -> bool:
    """Whether a computation only carries on with, or ends, what another one has started."""
    return name.startswith("async_collective_fusion") or any('"AsyncCollectiveDone"' in line for line in lines)


def _walk(
    computations: dict[str, tuple[bool, list[str]]], name: str, times: int, channels: set[str]
) -> Iterator[tuple[str, int, int]]:
    """(kind, how often, bytes) of the collectives that a computation runs, its callees included."""
    lines = computations.get(name, (False, []))[1]
    for line in lines:
        found = _COLLECTIVE.search(line)
        if found and not _goes_on(name, lines):
            channel = re.search(r"channel_id=(\d+)", line)
            key = channel[1] if channel else line
            if key not in channels:
                channels.add(key)
                yield found[2], times, _size(found[1], bool(found[3])) * (2 if found[2] == "all-reduce" else 1)
            continue
        loops = _trips(computations, line) if " while(" in line else 1
        inner = set() if loops > 1 else channels
        called = _CALLED.findall(line) + [x.strip(" %") for b in _BRANCHES.findall(line) for x in b.split(",")]
        for callee in called:
            yield from _walk(computations, callee, times * loops, inner)


def _trips(computations: dict[str, tuple[bool, list[str]]], line: str) -> int:
    known = _TRIPS.search(line)
    if known:
        return int(known[1])
    condition = _CONDITION.search(line)
    body = "\n".join(computations.get(condition[1], (False, []))[1]) if condition else ""
    bounds = [int(number) for number in re.findall(r"[su]32\[\]\S* constant\((\d+)\)", body)]
    return max(bounds, default=1)


def _size(shape: str, started: bool) -> int:
    """Bytes of a result; an asynchronous start has its operand first, then its result, then what it waits for."""
    arrays = [(kind, bits, dims) for kind, bits, dims in _ARRAY.findall(shape) if kind != "u" or dims]
    if started and shape.startswith("("):
        arrays = arrays[len(arrays) // 2 :]
    return sum(math.prod(map(int, filter(None, dims.split(",")))) * _bytes(bits) for _, bits, dims in arrays)


def _bytes(bits: str) -> int:
    return max(1, int(bits or 8) // 8)
