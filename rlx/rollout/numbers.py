"""One number in text: signs, thousands, currency, percent, units, fractions, mixed and scientific numbers, roots."""

import re
from fractions import Fraction
from typing import NamedTuple

from rlx.rollout.arithmetic import NotArithmetic, evaluate


class Number(NamedTuple):
    """A number: ``percent`` if it is written with a percent sign, ``open`` if it is a sum still to be worked out."""

    value: Fraction | float
    percent: bool = False
    open: bool = False


_COUNTING = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_WORDS: dict[str, int] = {word: value for value, word in enumerate(_COUNTING.split())}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_CURRENCY = re.compile(r"[$\N{POUND SIGN}\N{EURO SIGN}\N{YEN SIGN}]")
_ABOUT = re.compile(r"^\s*(?:about|approximately|approx\.?|roughly|exactly|only|equal to|a total of)\s+", re.IGNORECASE)
_PERCENT = re.compile(r"\s*(?:%|\bper\s?cent(?:age points?)?)\s*$", re.IGNORECASE)
_GROUPED = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
_MIXED = re.compile(r"([-+]?\s*)([0-9]{1,12}) ([0-9]{1,12})/([0-9]{1,12})")
_TIMES_TEN = re.compile(r"(?<=[0-9])\s*(?:x|\*)\s*10\s*\^\s*\(?\s*([+-]?[0-9]{1,3})\s*\)?(?![0-9.])")
# what `latex` makes of a mixed number, and operators between two values
_MIXED_SUM = re.compile(r"\([0-9]+\+\(\([0-9]+\)/\([0-9]+\)\)\)")
_OPERATOR = re.compile(r"[0-9)]\s*[-+*]|[0-9)]\s*/\s*[^/]*[0-9)]\s*/|[0-9)]\s*\(")
_POWER = r"(?:\s?\^\s?\(?[23]\)?|[\N{SUPERSCRIPT TWO}\N{SUPERSCRIPT THREE}])?"
_WORD = rf"[A-Za-z][A-Za-z.'-]*{_POWER}"
_UNIT = re.compile(rf"(?:(?<=[0-9)])(?!\s*pi\b)|(?<=\bpi(?= )))(\s*)({_WORD}(?:(?:\s+|\s?/\s?){_WORD})*)$")
# abbreviations that may follow a number without a space, and those of one letter after one
_SHORT = "cm mm km dm kg mg lb lbs oz ml mi mph kmh ft in yd hr hrs min sec am pm usd deg degrees m g"
_LETTERS = "mgshlL"
# words that are no unit: what they say changes the number, or there is more than one
_NO_UNIT = (
    "and or to than minus plus times over divided by pi sqrt inf not if out hundred dozen half third quarter thirds "
    "quarters halves point squared cubed matrix"
)
MAX_LENGTH = 1000


def number(text: str) -> Number | None:
    """Returns the number that a plain line holds (see ``latex.plain``), or None if it holds anything else.

    >>> number("-$1,234.50"), number("6 1/6 feet"), number("3.2 x 10^3").value, number("5 or 6"), number("15%").percent
    (Number(value=Fraction(-2469, 2), percent=False, open=False), Number(value=Fraction(37, 6), percent=False,
    open=False), Fraction(3200, 1), None, True)
    """
    if not 0 < len(text) <= MAX_LENGTH:
        return None
    if (counted := _WORDS.get(text.strip().lower())) is not None:
        return Number(Fraction(counted))
    line = _CURRENCY.sub(" ", _ABOUT.sub("", text)).strip(" .*")
    line, percent = _cut(_PERCENT, line)
    if _GROUPED.search(line) and "," not in _GROUPED.sub("", line) and not re.search(r"[(\[{]", line):
        line = _GROUPED.sub(lambda match: match[0].replace(",", ""), line)
    line, scale = _without_unit(line)
    line = re.sub(r"^([-+])\s+", r"\1", line)
    if mixed := _MIXED.fullmatch(line):
        line = f"{mixed[1]}({mixed[2]}+(({mixed[3]})/({mixed[4]})))"
    line = _TIMES_TEN.sub(r"e\1", line)
    try:
        value = evaluate(f"({line})*{scale}" if scale > 1 else line, implicit=True)
    except NotArithmetic:
        return None
    return Number(value, percent, bool(_OPERATOR.search(_MIXED_SUM.sub("1", line))))


def _cut(pattern: re.Pattern, line: str) -> tuple[str, bool]:
    shorter = pattern.sub("", line)
    return shorter, shorter != line


def _without_unit(line: str) -> tuple[str, int]:
    """The line without the words after the number, and what ``million`` multiplies it with."""
    match = _UNIT.search(line)
    if match is None:
        return line, 1
    words = [re.sub(r"[^A-Za-z]", "", word) for word in re.split(r"[\s/^(]+", match[2])]
    words = [word for word in words if word]
    if not match[1] and words[0].lower() not in _SHORT.split():
        return line, 1
    if any(word.lower() in _NO_UNIT.split() for word in words) or (len(words[0]) == 1 and words[0] not in _LETTERS):
        return line, 1
    return line[: match.start()].rstrip(), _SCALES.get(words[0].lower(), 1)
