"""Arithmetic in text, computed without ever running it: exact fractions where possible, floats after a root or pi.

Bounds: a text holds at most ``MAX_LENGTH`` characters, parentheses nest at most ``MAX_DEPTH`` deep, a power or product
has at most ``MAX_BITS`` bits. What is beyond them, or is no arithmetic, is a ``NotArithmetic``.
"""

import math
import operator
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

MAX_LENGTH = 1000
MAX_DEPTH = 32
MAX_BITS = 4096

Number = Fraction | float
_LITERAL = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3}(?![0-9.]))?|\.[0-9]+"
_TOKEN = re.compile(rf"\s*(?:{_LITERAL}|sqrt|pi|\*\*|[-+*/^()])")

_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


class NotArithmetic(ValueError):
    """A text that is no arithmetic, or has no finite value, or goes beyond the bounds."""


def evaluate(text: str, *, implicit: bool = False) -> Number:
    """Returns the value of numbers, ``+ - * / ^ ( )``, ``sqrt`` and ``pi``.

    Args:
      text: the arithmetic.
      implicit: read ``2(3)`` and ``2pi`` as products, as formulas are written; a number after anything is none.

    Raises:
      NotArithmetic: anything else stands there, a division by 0, a complex or too large value.

    >>> evaluate("(1/2 + 1/3) * 2^3"), evaluate("2pi", implicit=True) == 2 * math.pi
    (Fraction(20, 3), True)
    >>> evaluate("__import__('os')")
    Traceback (most recent call last):
    rlx.rollout.arithmetic.NotArithmetic: cannot read "__import__('os')" from its character 1
    """
    parser = _Parser(tokens(text), implicit)
    value = parser.sum()
    if parser.next is not None:
        raise NotArithmetic(f"did not expect {parser.next!r} in {text!r}")
    return value


def steps(text: str) -> list[str]:
    """Returns the sums and products that lead to the value of a text, in their order, each of two numbers.

    >>> steps("(12+7)*3-1")
    ['12+7', '19*3', '57-1']
    """
    parser = _Parser(tokens(text), implicit=False)
    parser.sum()
    return parser.steps


def tokens(text: str) -> list[str]:
    """Returns the numbers, names and signs of a text.

    >>> tokens("3*(12-4)")
    ['3', '*', '(', '12', '-', '4', ')']
    """
    if len(text) > MAX_LENGTH:
        raise NotArithmetic(f"has {len(text)} characters, more than {MAX_LENGTH}")
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise NotArithmetic(f"cannot read {text[:80]!r} from its character {place + 1}")
        found.append(match[0].strip())
        place = match.end()
    return found


def literals(text: str) -> list[Fraction]:
    """Returns the numbers as they are written, in order.

    >>> [int(number) for number in literals("3*(12-4)")]
    [3, 12, 4]
    """
    return [Fraction(token) for token in tokens(text) if token[0].isdigit() or token[0] == "."]


class _Parser:
    """Recursive descent, one method for each level of precedence: sum, product, sign, power, atom."""

    def __init__(self, found: Sequence[str], implicit: bool):
        self.found, self.implicit, self.place, self.depth = found, implicit, 0, 0
        self.steps: list[str] = []  # what has been worked out

    @property
    def next(self) -> str | None:
        return self.found[self.place] if self.place < len(self.found) else None

    def take(self, *wanted: str) -> str | None:
        """The next token, if it is one of ``wanted``."""
        token = self.next
        if token is None or token not in wanted:
            return None
        self.place += 1
        return token

    def sum(self) -> Number:
        value = self.product()
        while sign := self.take("+", "-"):
            value = self.work_out(value, sign, self.product())
        return value

    def product(self) -> Number:
        value = self.signed()
        while True:
            if sign := self.take("*", "/"):
                value = self.work_out(value, sign, self.signed())
            elif self.implicit and self.next in ("(", "sqrt", "pi"):
                value = self.work_out(value, "*", self.power())
            else:
                return value

    def work_out(self, one: Number, sign: str, other: Number) -> Number:
        """The value of two numbers with a sign between them."""
        self.steps.append(f"{one}{sign}{other}")
        return _compute(_OPERATIONS[sign], one, other)

    def signed(self) -> Number:
        negative = False
        while sign := self.take("+", "-"):
            negative ^= sign == "-"
        value = self.power()
        return -value if negative else value

    def power(self) -> Number:
        base = self.atom()
        if not self.take("^", "**"):
            return base
        self._deeper()
        exponent = self.signed()
        self.depth -= 1
        return _power(base, exponent)

    def atom(self) -> Number:
        token = self.next
        self.place += 1
        if token == "(":
            self._deeper()
            value = self.sum()
            if not self.take(")"):
                raise NotArithmetic("a parenthesis is not closed")
            self.depth -= 1
            return value
        if token == "sqrt":
            self._deeper()
            value = self.atom()
            self.depth -= 1
            return _root(value)
        if token == "pi":
            return math.pi
        if token is None or not (token[0].isdigit() or token[0] == "."):
            raise NotArithmetic("a number is missing" if token is None else f"expected a number, found {token!r}")
        return _finite(Fraction(token))

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotArithmetic(f"nests deeper than {MAX_DEPTH}")


def _finite(value: Number) -> Number:
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
            raise NotArithmetic(f"a value has more than {MAX_BITS} bits")
    elif isinstance(value, complex) or not math.isfinite(value):
        raise NotArithmetic("a value is not finite")
    return value


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if size * abs(exponent) > MAX_BITS:
            raise NotArithmetic(f"a power has more than {MAX_BITS} bits")
        return _compute(lambda x, y: x**y.numerator, base, exponent)
    return _compute(lambda x, y: float(x) ** float(y), base, exponent)


def _root(value: Number) -> Number:
    if value < 0:
        raise NotArithmetic("the root of a negative number")
    if isinstance(value, Fraction):
        top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if top * top == value.numerator and bottom * bottom == value.denominator:
            return Fraction(top, bottom)
    return _compute(lambda x, _: math.sqrt(x), value, value)


def _compute(operation: Callable[[Any, Any], Any], one: Number, other: Number) -> Number:
    """The value of an operation; floats may overflow, and so may a fraction that meets one."""
    try:
        return _finite(operation(one, other))
    except OverflowError:
        raise NotArithmetic("a value is not finite") from None
    except ZeroDivisionError:
        raise NotArithmetic("division by zero") from None
