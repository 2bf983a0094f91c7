"""Final answers: what is found, what is equal, and agreement with the references of real rows."""

from fractions import Fraction

import pytest

from rlx.rollout import answers, latex
from rlx.rollout.arithmetic import NotArithmetic, evaluate, literals, steps
from rlx.rollout.numbers import number

EQUAL = [
    ("1,234", "1234"),
    ("$18.00", "18"),
    ("-$1,000", "-1000"),
    ("$-5", "-5"),
    ("\\$32,\\!348", "32348"),
    ("1{,}000", "1000"),
    ("18 duck eggs per day", "18"),
    ("15\\mbox{ cm}^2", "15"),
    ("5 m", "5"),
    ("164 \\pi \\mbox{ square feet}", "164\\pi"),
    ("78\\%", "78"),
    ("78%", "0.78"),
    ("0.78", "78 percent"),
    ("\\frac12", "1/2"),
    ("\\dfrac{3}{6}", "0.5"),
    ("-\\frac{35}{9}", "\\frac{-35}{9}"),
    ("- \\frac 32", "-1.5"),
    ("6\\frac{1}{6}\\text{ feet}", "37/6"),
    ("-6 1/6", "-37/6"),
    ("2\N{VULGAR FRACTION ONE HALF}", "2.5"),
    ("\N{MINUS SIGN}3", "-3"),
    ("1.5\\times 10^{3}", "1500"),
    ("3.2 x 10^-2", "0.032"),
    ("1e3", "1000"),
    ("5 million", "5000000"),
    ("twelve", "12"),
    ("120^\\circ", "120 degrees"),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\pi/2)"),
    ("[3,7] \\cup [8,9)", "[8,9)\\cup[3, 7]"),
    ("\\{1\\pm\\sqrt{5},-2\\}", "-2, 1 \\pm \\sqrt5"),
    ("1 \\pm \\sqrt{19}", "1-\\sqrt{19}, 1+\\sqrt{19}"),
    ("-2 \\text{ or } -12", "-12,-2"),
    ("2, 3, \\text{ and } 4", "2,3,4"),
    ("x=5", "5"),
    ("x \\in [-2,7]", "[-2,7]"),
    ("\\$\\dfrac23 \\approx \\$0.67", "2/3"),
    ("0.56 = 56\\%", "0.56"),
    ("\\text{(C)}", "C"),
    ("Sunday.", "\\text{Sunday}"),
    ("2\\sqrt{35}/35", "\\frac{2\\sqrt{35}}{35}"),
    ("\\sqrt[3]{8}", "2"),
    ("1+\\sqrt5", "\\sqrt{5}+1"),
    ("\\begin{pmatrix} 12/5 \\\\ 1 \\end{pmatrix}", "\\begin{bmatrix} 2.4 \\\\ 1 \\end{bmatrix}"),
    ("x^{2}+1", "x^2 + 1"),
    ("1323_{4}", "1323_4"),
    ("(-\\infty, 0]", "(-\N{INFINITY},0]"),
    ("8\\!:\\!34 \\text{ p.m.}", "8:34 p.m."),
]

UNEQUAL = [
    ("5 or 6", "5"),
    ("5, 6", "5"),
    ("18 19", "18"),
    ("18 = 19", "18"),
    ("9*2", "18"),
    ("20 - 2", "18"),
    ("(3,4)", "(4,3)"),
    ("[1,2)", "[1,2]"),
    ("(1,2)", "[1,2]"),
    ("0.333", "1/3"),
    ("1.414", "\\sqrt2"),
    ("5x", "5"),
    ("46", "46r"),
    ("40", "40_9"),
    ("1,2", "12"),
    ("1,23", "123"),
    ("\\begin{pmatrix} 1 & 2 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
    ("", "5"),
    ("50 million", "50"),
    ("5 hundred", "5"),
    ("odd", "even"),
    ("nan", "5"),
    ("inf", "5"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_answers(one: str, other: str):
    assert answers.equal(one, other)
    assert answers.equal(other, one)


@pytest.mark.parametrize(("one", "other"), UNEQUAL)
def test_unequal_answers(one: str, other: str):
    assert not answers.equal(one, other)


HOSTILE = [
    "(" * 400 + "1" + ")" * 400,
    "{" * 400 + "1" + "}" * 400,
    "\\frac{" * 150 + "1",
    "\\sqrt" * 150,
    "9^9^9^9^9",
    "10^(10^10)",
    "1e999999999",
    "2^-999999",
    "1/0",
    "0^-1",
    "(-1)^0.5",
    "9" * 990,
    "5" * 5000,
    "1,1," * 240,
    "__import__('os').system('true')",
    "\\boxed{\\boxed{",
    "[" * 500,
    " " * 999 + "2",
    "\\sqrt{\\pi}" + "9" * 700,
    "pi^300 + 10^400",
    "(10^1000)sqrt(2) million",
    "-" * 901 + "1",
    "\x00\x01\ud800",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_no_answer_and_ends(text: str):
    assert not answers.equal(text, "1")
    answers.equal("1", text)
    answers.extract("\\boxed{" + text)


def test_the_last_statement_counts():
    assert answers.extract("#### 5\n#### 6") == "6"
    assert answers.extract("\\boxed{5} or \\boxed{6}") == "6"
    assert answers.extract("\\boxed{5}\n#### 6") == "6"
    assert answers.extract("#### 6\nso \\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert answers.extract("<answer>7</answer>") == "7"
    assert answers.extract("Answer: **12**\n") == "12"
    assert answers.extract("The final answer is: 3.5. Good.") == "3.5"
    assert answers.extract("\\boxed{1}\n####\n") is None
    assert answers.extract("\\boxed{1}, no: \\boxed{2") is None
    assert answers.extract("2 + 2 = 4") is None
    assert answers.extract("#### " + "1" * 2000) is None


def test_arithmetic_is_exact_and_bounded():
    assert evaluate("-2^2") == -4
    assert evaluate("2^3^2") == 512
    assert steps("3-2*(1-6)") == ["1-6", "2*-5", "3--10"]
    assert [evaluate(step) for step in steps("3-2*(1-6)")][-1] == 13
    assert evaluate("1/3 + 1/6") == Fraction(1, 2)
    assert evaluate("sqrt(9/4)") == Fraction(3, 2)
    assert literals("3*(12-.5)") == [3, 12, Fraction(1, 2)]
    for text in ("1 2", "2(3)", "1 +", "()", "(1", "1)", "a", "1.2.3", "2^99999", "sqrt(-1)", "(-8)^(1/3)"):
        with pytest.raises(NotArithmetic):
            evaluate(text)
    assert number("1.2.3") is None


def test_braces_that_do_not_match_are_an_error_of_latex_and_text_for_answers():
    for text in ("{", "}", "\\frac{1}", "\\sqrt"):
        with pytest.raises(latex.NotReadable):
            latex.plain(text)
        assert isinstance(answers.parse(text), str)
