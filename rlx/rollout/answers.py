r"""Final answers: found in a response, read, and compared, without ever running a piece of them.

``equal("\\frac{1}{2}", "0.5")``: numbers are exact fractions wherever they can be, else equal to nine digits; tuples,
intervals, sets, lists, unions and matrices are compared part by part; all else as text without its looks.
"""

import math
import re
from fractions import Fraction
from typing import NamedTuple

from rlx.rollout import latex
from rlx.rollout.numbers import Number, number

MAX_LENGTH = 1000  # characters of a final answer
MAX_RESPONSE = 200_000  # characters from the end of a response in which it is looked for
MAX_PARTS = 64
MAX_DEPTH = 8

_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_BOXED = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])[ \t]*")
_TAGS = re.compile(r"<answer>([^<]*)</answer>", re.IGNORECASE)
_PHRASE = re.compile(r"\banswer(?:[ \t]+is(?:[ \t]*:)?|[ \t]*[:=])[ \t]*([^\n]+)", re.IGNORECASE)
_NAMED = re.compile(r"\s*\\?[A-Za-z]{1,2}(?:_\w)?\s*(?:\([a-z]\)\s*)?(?:=|\\in\b)\s*(?=\S)")
_ATOM = re.compile(r"(?<![A-Za-z0-9])\(([A-Za-z0-9.]+)\)")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class Parts(NamedTuple):
    """Several answers.

    Attributes:
      kind: the brackets around them; ``{}`` where the order does not count, ``,`` for a bare list.
      items: the answers.
    """

    kind: str
    items: tuple["Answer", ...]


Answer = Number | Parts | str


def extract(text: str) -> str | None:
    r"""Returns what a response gives as its final answer, or None if it gives none.

    That is what stands last of ``\boxed{}``, ``#### x`` and ``<answer>x</answer>``, else after the last "answer is" or
    "Answer:". A number that merely stands at the end is no answer: a reward for it would be one for luck.

    >>> extract("16 - 7 = 9.\n#### 1,800"), extract(r"so \boxed{\frac{1}{2}}."), extract("The answer is $18.50. Done.")
    ('1,800', '\\frac{1}{2}', '$18.50')
    >>> extract("9 * 2 = 18") is None
    True
    """
    text = text[-MAX_RESPONSE:]
    places = [(match.start(), match[1]) for match in (*_HASHES.finditer(text), *_TAGS.finditer(text))]
    places += [(match.start(), _inside(text, match.end())) for match in list(_BOXED.finditer(text))[-1:]]
    if places:
        found = max(places)[1]
    else:
        phrases = _PHRASE.findall(text)
        found = re.split(r"\.(?:\s|$)", phrases[-1], maxsplit=1)[0] if phrases else ""
    found = found.strip().strip("*").strip()
    return found if 0 < len(found) <= MAX_LENGTH else None


def _inside(text: str, start: int) -> str:
    """The group at ``start``, or the symbol there; nothing where the brace is never closed."""
    try:
        if text[start : start + 1] == "{":
            return text[start + 1 : latex.group(text, start) - 1]
    except latex.NotReadable:
        return ""
    match = re.compile(r"[^\s$]*").match(text, start)
    return match[0] if match else ""


def parse(text: str) -> Answer | None:
    r"""Returns the meaning of a final answer; None of one that is empty or longer than ``MAX_LENGTH``.

    >>> parse("$1,800"), parse("(1, 2]").kind, parse("x = 3 \\text{ or } 4").kind, parse("\\text{Sunday}")
    (Number(value=Fraction(1800, 1), percent=False, open=False), '(]', ',', 'sunday')
    """
    if len(text) > MAX_LENGTH:
        return None
    try:
        line = latex.plain(text)
    except latex.NotReadable:
        line = text
    line = line.strip().strip("*").strip()
    return _read(line, 0) if line else None


def _read(line: str, depth: int) -> Answer:
    line = re.sub(r"^[\s:=]+|[\s.,;:!]+$", "", line)
    found = number(line)
    if found is not None:
        return found
    if depth >= MAX_DEPTH:
        return _text(line)
    return _relation(line, depth) or _brackets(line, depth) or _list(line, depth) or _text(line)


def _relation(line: str, depth: int) -> Answer | None:
    """``x = 5`` and ``x \\in [0, 1]`` say what follows, ``2/3 ~ 0.67`` what comes first, ``1 \\pm 2`` two things."""
    if (named := _NAMED.match(line)) and "=" not in line[named.end() :]:
        return _read(line[named.end() :], depth + 1)
    for sign in "~=":
        first, found, rest = line.partition(sign)
        if found and sign == "~" and not first.strip("$ "):
            return _read(rest, depth + 1)
        if found and (value := number(first)) is not None:
            return value if _agree(value, rest, sign) else None
    if line.count(r"\pm") == 1 and not any(c in line for c in ",{"):
        both = [number(line.replace(r"\pm", sign)) for sign in "+-"]
        if all(both):
            return Parts(",", tuple(value for value in both if value))
    return None


def _agree(value: Number, rest: str, sign: str) -> bool:
    """Whether what follows ``=`` or ``~`` is the same number: ``2/3 ~ 0.67`` gives one answer, ``2 = 3`` none."""
    other = number(rest)
    if other is None:
        return False
    return _same_number(value, other) if sign == "=" else _close(value.value, other.value, 0.05)


def _brackets(line: str, depth: int) -> Answer | None:
    matrix = line.startswith("matrix(")
    inner = line.removeprefix("matrix")
    line = line if matrix else re.sub(r"(?<=[\])])\s*U\s*(?=[\[(])", " U ", line)
    if not matrix and len(pieces := _split(line, " U ")) > 1:
        return Parts("{}", tuple(_read(piece, depth + 1) for piece in pieces))
    if not inner or inner[0] not in _CLOSING or _closes(inner) != len(inner) - 1:
        return None
    if matrix:
        rows = [_split(row, ",") for row in _split(inner[1:-1], ";")]
        return Parts("matrix", tuple(Parts("row", tuple(_read(x, depth + 1) for x in row)) for row in rows))
    pieces = _split(inner[1:-1], ",")
    if len(pieces) == 1 and inner[0] != "[":
        return _read(pieces[0], depth + 1)
    return Parts(inner[0] + inner[-1], tuple(_read(piece, depth + 1) for piece in pieces))


def _list(line: str, depth: int) -> Answer | None:
    pieces = [piece for part in _split(line, ",") for piece in re.split(r"\b(?:and|or)\b|;", part) if piece.strip()]
    return Parts(",", tuple(_read(piece, depth + 1) for piece in pieces)) if len(pieces) > 1 else None


def _split(line: str, separator: str) -> list[str]:
    """Pieces between separators that stand in no brackets; at most ``MAX_PARTS``."""
    pieces, level, start = [], 0, 0
    for place, character in enumerate(line):
        level += (character in "([{") - (character in ")]}")
        if level == 0 and line.startswith(separator, place) and len(pieces) < MAX_PARTS:
            pieces.append(line[start:place])
            start = place + len(separator)
    return [*pieces, line[start:]]


def _closes(line: str) -> int:
    """Place of the bracket that closes the first one; intervals may end with another kind."""
    level = 0
    for place, character in enumerate(line):
        level += (character in "([{") - (character in ")]}")
        if level == 0:
            return place if (line[0] == "{") == (character == "}") else -1
    return -1


def _text(line: str) -> str:
    """Text without its looks: no spaces, no parentheses around one symbol, words in small letters."""
    if re.fullmatch(r"[A-Za-z\s.,()'-]*", line):
        line = line.lower()
    line = re.sub(r"\s+|\*|\\(?=[ ;])", "", line.replace("$", ""))
    while (shorter := _ATOM.sub(r"\1", line)) != line:
        line = shorter
    return line.strip(".,")


def equal(answer: str | None, reference: str) -> bool:
    r"""Returns whether an answer means what the reference means.

    A sum or product that is still to be worked out is not equal to its value: ``16 - 7`` is no answer where 9 is asked.
    The unit of the one may lack in the other; ``50%`` equals both ``50`` and ``0.5``.

    >>> equal("1,234.50 dollars", r"\$1234.5"), equal("2/4", r"\frac12"), equal("(3, 4)", "(4, 3)"), equal("4,3", "3,4")
    (True, True, False, True)
    >>> equal("16 - 7", "9"), equal(None, "9")
    (False, False)
    """
    if answer is None:
        return False
    mine, theirs = parse(answer), parse(reference)
    return mine is not None and theirs is not None and _same(mine, theirs)


def _same(answer: Answer, reference: Answer) -> bool:
    if isinstance(answer, Number) and isinstance(reference, Number):
        return _same_number(answer, reference)
    if isinstance(answer, Parts) and isinstance(reference, Parts):
        return _same_parts(answer, reference)
    for one, other in ((answer, reference), (reference, answer)):
        if isinstance(one, Parts) and len(one.items) == 1 and one.kind == "{}":
            return _same(one.items[0], other)
    return isinstance(answer, str) and answer == reference


def _same_number(answer: Number, reference: Number) -> bool:
    if answer.open and not reference.open and isinstance(answer.value, Fraction):
        return False
    pairs = [(answer.value, reference.value)]
    if answer.percent != reference.percent:
        pairs.append((answer.value / 100 if answer.percent else answer.value * 100, reference.value))
    return any(_close(one, other) for one, other in pairs)


def _close(one: Fraction | float, other: Fraction | float, tolerance: float = 0.0) -> bool:
    """Equal fractions, or floats within the tolerance, which is at least a relative 1e-9 for them."""
    if isinstance(one, Fraction) and isinstance(other, Fraction) and not tolerance:
        return one == other
    try:
        return math.isclose(one, other, rel_tol=max(tolerance, 1e-9), abs_tol=1e-12)
    except OverflowError:  # a fraction beyond floats
        return False


def _same_parts(answer: Parts, reference: Parts) -> bool:
    if len(answer.items) != len(reference.items):
        return False
    kinds = {answer.kind, reference.kind}
    if kinds <= {",", "{}"}:
        left = list(reference.items)
        for item in answer.items:
            match = next((place for place, other in enumerate(left) if _same(item, other)), None)
            if match is None:
                return False
            del left[match]
        return True
    same_kind = len(kinds) == 1 or kinds == {",", "()"}
    return same_kind and all(map(_same, answer.items, reference.items))
