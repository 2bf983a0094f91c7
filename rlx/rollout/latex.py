r"""Formulas as one plain line: ``\frac{1}{2}`` is ``((1)/(2))``, ``x^{2}`` is ``x^(2)``, ``\text{ cm}`` is `` cm``.

A matrix is ``matrix(1, 2; 3, 4)``, a mixed number ``(6+((1)/(6)))``.
What changes only the look (sizes, spaces, ``\left``, dollars of math mode) goes away; unknown commands keep their name.
"""

import re
import unicodedata

MAX_DEPTH = 32  # braces within braces

_CHARACTERS = {
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{MULTIPLICATION SIGN}": "*",
    "\N{DIVISION SIGN}": "/",
    "\N{MIDDLE DOT}": "*",
    "\N{DOT OPERATOR}": "*",
    "\N{SQUARE ROOT}": r"\sqrt ",
    "\N{GREEK SMALL LETTER PI}": r"\pi ",
    "\N{INFINITY}": r"\infty ",
    "\N{UNION}": r"\cup ",
    "\N{DEGREE SIGN}": r"\degree ",
    "\N{ALMOST EQUAL TO}": r"\approx ",
    "\N{PLUS-MINUS SIGN}": r"\pm ",
    "\N{VULGAR FRACTION ONE HALF}": " 1/2",
    "\N{VULGAR FRACTION ONE QUARTER}": " 1/4",
    "\N{VULGAR FRACTION THREE QUARTERS}": " 3/4",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
}
# groups of three digits
_THOUSANDS = re.compile(r"(?<=[0-9])(?:\{,\}|,\\!|\\,|\\!,)(?=[0-9]{3}(?![0-9]))")
_LOOK = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|quad|qquad|[!,;: >])(?![a-zA-Z])")
_TEXT = r"text(?:bf|it|rm|tt|sf|normal|up)?|mbox|hbox|mathrm|mathbf|mathit|mathsf|operatorname|boxed|fbox"
_TEXT_GROUP = re.compile(rf"\\(?:{_TEXT})\s*(?=\{{)")
_FRACTION = re.compile(r"\\[dtc]?frac(?![a-zA-Z])")
_MATRIX = re.compile(r"\\(begin|end)\{[pbvBV]?(?:small)?matrix\}")
_DEGREE = re.compile(r"\^?\s*(?:\{\s*)?\\(?:circ|degrees?)(?![a-zA-Z])\s*\}?")
_PLAIN = [
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\pi(?![a-zA-Z])"), " pi "),
    (re.compile(r"\\infty(?![a-zA-Z])"), " inf "),
    (re.compile(r"\\cup(?![a-zA-Z])"), " U "),
    (re.compile(r"\\(?:approx|simeq)(?![a-zA-Z])"), "~"),
    (re.compile(r"\\l?dots(?![a-zA-Z])"), "..."),
]


class NotReadable(ValueError):
    """Braces that do not match, or nest too deeply."""


def group(text: str, start: int) -> int:
    r"""Returns the place after the brace that closes the one at ``start``; escaped braces do not count.

    Raises:
      NotReadable: it is never closed, or the braces nest deeper than ``MAX_DEPTH``.

    >>> text = r"{a{b}\}}c"
    >>> text[group(text, 0) :]
    'c'
    """
    depth, place = 0, start
    while place < len(text):
        character = text[place]
        place += 2 if character == "\\" else 1
        depth += (character == "{") - (character == "}")
        if depth > MAX_DEPTH:
            raise NotReadable(f"braces nest deeper than {MAX_DEPTH}")
        if depth == 0:
            return place
    raise NotReadable("a brace is not closed")


def plain(text: str) -> str:
    r"""Returns a formula or words as one plain line.

    Raises:
      NotReadable: braces that do not match, or nest too deeply.

    >>> plain(r"-\dfrac{1}{\sqrt{2}}"), plain(r"\left( 3, \frac{\pi}2 \right)"), plain(r"1,\!722 \text{ cm}^2")
    ('-((1)/(sqrt(2)))', '( 3, (( pi )/(2)) )', '1722 cm^2')
    """
    for character, meaning in _CHARACTERS.items():
        text = text.replace(character, meaning)
    text = unicodedata.normalize("NFKC", text).replace("\N{FRACTION SLASH}", "/")
    text = _THOUSANDS.sub("", text).replace(r"\$", "$").replace(r"\%", "%")
    if _MATRIX.search(text):
        text = _MATRIX.sub(lambda match: "matrix(" if match[1] == "begin" else ")", text)
        text = text.replace("\\\\", ";").replace("&", ",")
    text = _DEGREE.sub(r" degrees ", text)
    text = _LOOK.sub(lambda match: "" if match[0] in (r"\!", r"\left", r"\right") else " ", text)
    for pattern, meaning in _PLAIN:
        text = pattern.sub(meaning, text)
    text = _groups(_TEXT_GROUP.sub("\x00", text).replace(r"\{", "\x01").replace(r"\}", "\x02"), 0)
    text = text.replace("\x01", "{").replace("\x02", "}").replace("$", " $ ")
    return re.sub(r"\s+", " ", text).strip()


def _groups(text: str, depth: int) -> str:
    r"""Writes fractions, roots, powers and groups with parentheses; ``\text{}`` and lone groups lose their braces."""
    if depth > MAX_DEPTH:
        raise NotReadable(f"groups nest deeper than {MAX_DEPTH}")
    out, place = [], 0
    while place < len(text):
        if match := _FRACTION.match(text, place):
            top, place = _argument(text, match.end(), depth)
            bottom, place = _argument(text, place, depth)
            out.append(_mixed(out, f"(({top})/({bottom}))"))
        elif text.startswith(r"\sqrt", place):
            index, place = _index(text, place + 5)
            inside, place = _argument(text, place, depth)
            out.append(f"({inside})^(1/{index})" if index else f"sqrt({inside})")
        elif text[place] in "^_" and text[place + 1 :].lstrip()[:1] == "{":
            inside, after = _argument(text, place + 1, depth)
            out.append(text[place] + (inside if inside.isalnum() else f"({inside})"))
            place = after
        elif text[place] == "{":
            end = group(text, place)
            out.append(_groups(text[place + 1 : end - 1], depth + 1))
            place = end
        elif text[place] == "}":
            raise NotReadable("a brace is closed that was not opened")
        else:
            out.append("" if text[place] == "\x00" else text[place])
            place += 1
    return "".join(out)


def _argument(text: str, place: int, depth: int) -> tuple[str, int]:
    r"""The argument of a command, in braces or one symbol (``\frac12``, ``\sqrt\pi``), and the place after it."""
    while place < len(text) and text[place] == " ":
        place += 1
    if place >= len(text):
        raise NotReadable("a command lacks its argument")
    if text[place] == "{":
        end = group(text, place)
        return _groups(text[place + 1 : end - 1], depth + 1), end
    symbol = re.match(r"\\[a-zA-Z]+|pi\b|.", text[place:], re.DOTALL)
    assert symbol is not None  # there is a character
    if symbol[0] in (r"\sqrt", r"\frac"):
        raise NotReadable(f"braces are missing around {symbol[0]}")
    return symbol[0], place + symbol.end()


def _index(text: str, place: int) -> tuple[str, int]:
    """The index of a root, ``[3]``, if there is one."""
    match = re.compile(r"\s*\[\s*([0-9]{1,3})\s*\]").match(text, place)
    return (match[1], match.end()) if match else ("", place)


def _mixed(before: list[str], fraction: str) -> str:
    """A proper fraction after a whole number is added to it: 6 1/6 is 37/6, and not 6 * 1/6."""
    written = "".join(before)
    whole = re.search(r"(?:^|[^0-9.^_a-zA-Z])([0-9]{1,9}) ?$", written)
    parts = re.fullmatch(r"\(\(([0-9]{1,9})\)/\(([0-9]{1,9})\)\)", fraction)
    if whole is None or parts is None or int(parts[1]) >= int(parts[2]):
        return fraction
    before[:] = [f"{written[: whole.start(1)]}({whole[1]}+"]
    return f"{fraction})"
