"""Methods stay small, and none is another one written out again: the bodies of the catalogue's functions, measured."""

import ast
import difflib
import inspect
import itertools
import statistics
import textwrap

import rlx

FUNCTIONS = list(dict.fromkeys(entry.function for entry in rlx.catalog.CATALOG.values()))


def body(function) -> list[ast.stmt]:
    """The statements of a function, its docstring aside."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(definition, ast.FunctionDef)
    return definition.body[1:] if ast.get_docstring(definition) else definition.body


def lines(function) -> int:
    """Lines of code of the body, without comments and blank lines."""
    source = textwrap.dedent(inspect.getsource(function)).splitlines()
    statements = body(function)
    code = source[statements[0].lineno - 1 : statements[-1].end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in code)


class Normal(ast.NodeVisitor):
    """The syntax of a body as words: variables lose their names, what is called and the numbers keep theirs."""

    def __init__(self):
        self.words: list[str] = []

    def generic_visit(self, node):
        self.words.append(type(node).__name__)
        if isinstance(node, ast.Attribute):
            self.words.append(node.attr)
        if isinstance(node, ast.Constant):
            self.words.append(repr(node.value) if isinstance(node.value, (int, float)) else "text")
        super().generic_visit(node)


def words(function) -> list[str]:
    visitor = Normal()
    for statement in body(function):
        visitor.visit(statement)
    return visitor.words


def similarity(one: list[str], other: list[str]) -> float:
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    return 0.0 if matcher.real_quick_ratio() < 0.85 else matcher.ratio()


def test_bodies_are_short():
    sizes = {function.__name__: lines(function) for function in FUNCTIONS}
    long = {name: size for name, size in sizes.items() if size > 25}
    assert not long and statistics.median(sizes.values()) <= 8, (long, statistics.median(sizes.values()))


def test_no_body_is_written_twice():
    """Bodies of four or more statements; a call with other arguments is how a variant is written."""
    long = {function.__name__: words(function) for function in FUNCTIONS if len(body(function)) >= 4}
    alike = {
        (a, b): round(ratio, 2)
        for (a, x), (b, y) in itertools.combinations(long.items(), 2)
        if (ratio := similarity(x, y)) >= 0.85
    }
    assert not alike, alike


def test_the_measure_sees_a_renamed_copy():
    def first(x, y):
        a = x + y
        b = a * 2
        c = b - x
        return a + b + c

    def second(p, q):
        u = p + q
        v = u * 2
        w = v - p
        return u + v + w

    assert similarity(words(first), words(second)) == 1.0
    assert similarity(words(first), words(rlx.dpo)) < 0.85
