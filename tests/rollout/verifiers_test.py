"""Verifiers: agreement with the references of real rows, the tasks' own, and batches that survive a bad one."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest

from rlx.data.tokenizers import ByteTokenizer
from rlx.errors import UserError
from rlx.rollout import tasks
from rlx.rollout.tasks.example import Example
from rlx.rollout.verifiers import VERIFIERS, Scorer, final_answer, responses_of, score

GSM8K_ROWS = [
    ("Ducks lay 16 eggs; 7 are eaten, the rest are $2 each.", "She sells 16-7=<<16-7=9>>9.\n#### 18"),
    ("A house of $80,000 gains 150%.", "It is worth 80,000*2.5=<<80000*2.5=200000>>200,000\n#### 200,000"),
    ("It falls from 3 to -2 degrees.", "The answer is below zero: 3-5=<<3-5=-2>>-2\n#### -2"),
    ("How much is left?", "Nothing.\n#### 0"),
    ("How many in all?", "1,024+98=<<1024+98=1122>>1,122\n#### 1,122"),
]
MATH_ROWS = [
    "\\left( 3, \\frac{\\pi}{2} \\right)",
    "\\frac{448}{15625}",
    "120^\\circ",
    "\\$32,\\!348",
    "[3,7] \\cup [8,9)",
    "\\begin{pmatrix} 12/5 \\\\ 16/5 \\end{pmatrix}",
    "\\text{Sunday}",
    "40_9",
    "1 \\pm \\sqrt{19}",
    "-9x^3+3x^2-2x+2",
]


@pytest.fixture(scope="module")
def folder(data_dir: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of real data, or one with a few rows like it."""
    if data_dir is not None and all((data_dir / name / "test.jsonl.gz").is_file() for name in ("gsm8k", "math")):
        return data_dir
    made = tmp_path_factory.mktemp("data")
    rows = {
        "gsm8k": [{"question": question, "answer": answer} for question, answer in GSM8K_ROWS],
        "math": [{"problem": "Find it.", "answer": answer, "difficulty": 2.0} for answer in MATH_ROWS],
    }
    for name, found in rows.items():
        (made / name).mkdir()
        with gzip.open(made / name / "test.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)
    return made


def corruptions(answer: str) -> dict[str, str]:
    """The answer with its first number one larger, its first two different digits swapped, its sign turned, hedged."""
    wrong = {"hedged": f"{answer}, 17", "empty": ""}
    found = re.search("[0-9]+", answer)
    if found is None:
        return wrong
    digits, start, end = found[0], found.start(), found.end()
    wrong["larger"] = answer[:start] + str(int(digits) + 1) + answer[end:]
    wrong["tenfold"] = answer[:start] + digits + "1" + answer[end:]
    if float(digits) and not answer.startswith("-"):
        wrong["sign"] = f"-{answer}"
    elif float(digits):
        wrong["sign"] = answer[1:]
    place = next((i for i in range(len(digits) - 1) if digits[i] != digits[i + 1]), None)
    if place is not None:
        swapped = digits[:place] + digits[place + 1] + digits[place] + digits[place + 2 :]
        wrong["swapped"] = answer[:start] + swapped + answer[end:]
    return wrong


def test_gsm8k_agrees_with_every_reference_and_with_no_corrupted_one(folder: Path):
    examples = tasks.gsm8k(split="test", path=folder / "gsm8k", marks=True)
    solutions = [example.info["solution"] for example in examples]
    assert [final_answer(text, example) for text, example in zip(solutions, examples, strict=True)] == [1.0] * len(
        examples
    )
    accepted, tried = [], set()
    for solution, example in zip(solutions, examples, strict=True):
        reasoning = solution.rpartition("####")[0]
        texts = {name: f"{reasoning}#### {wrong}" for name, wrong in corruptions(example.answer).items()}
        texts |= {"removed": reasoning, "first half": solution[: len(reasoning) // 2]}
        tried |= set(texts)
        accepted += [(name, text) for name, text in texts.items() if final_answer(text, example)]
    assert accepted == []
    assert {"larger", "sign", "swapped", "removed"} <= tried


def test_gsm8k_answers_may_be_written_in_other_ways(folder: Path):
    for example in tasks.gsm8k(split="test", path=folder / "gsm8k"):
        value = int(example.answer)
        ways = (f"#### ${value:,}", f"\\boxed{{{value}.00}}", f"The answer is {value} dollars.", f"#### {value}/1")
        assert [final_answer(way, example) for way in ways] == [1.0] * 4


def test_math_agrees_with_every_reference_and_with_no_corrupted_one(folder: Path):
    examples = tasks.math(split="test", path=folder / "math")
    accepted = []
    for example in examples:
        assert final_answer(f"Thus $\\boxed{{{example.answer}}}$.", example) == 1, example
        assert final_answer(f"It is {example.answer}.", example) == 0
        wrong = corruptions(example.answer)
        accepted += [(example.answer, w) for w in wrong.values() if final_answer(f"So $\\boxed{{{w}}}$.", example)]
    assert accepted == []


def test_every_generator_has_a_verifier_that_takes_its_answers():
    for name in ("modadd", "countdown", "graphpath"):
        examples = tasks.make({"name": name}, seed=5, size=40)
        assert (score([[example.answer, "?"] for example in examples], examples, name) == [1, 0]).all()
    examples = tasks.make({"name": "toysentiment"}, size=10)
    rewards = score([[example.answer] for example in examples], examples, "toysentiment")
    np.testing.assert_allclose(rewards[:, 0], [(1 + example.info["sentiment"]) / 2 for example in examples])


def test_countdown_takes_only_the_given_numbers_and_signs():
    example = Example("2,3,4=14:", "2+3*4", {"numbers": [2, 3, 4], "target": 14})
    wrong = ["2+3*4+0", "14", "2+3*4*1", "2**3+4+2", "28/2*(3-2)^4", "(" * 500, "", "2+3*4;", "sqrt(4)+3*4", "4*3+2.0"]
    assert [VERIFIERS["countdown"](text, example) for text in wrong] == [0.0] * len(wrong)
    assert VERIFIERS["countdown"](" 2 + (3 * 4) ", example) == 1


def raises_for_odd(response: str, example: Example) -> float:
    """A user's verifier that cannot read every response."""
    return {"good": 1.0, "nan": float("nan"), "two": 2.0, "bad": 0.0}[response]


def test_a_verifier_that_fails_costs_its_row_and_not_the_batch():
    scorer = Scorer(raises_for_odd)
    examples = [Example("first", ""), Example("second", "", {"place": "rows.jsonl:7"})]
    expected = r"'raises_for_odd' raised KeyError: 'odd', at rows.jsonl:7, response 1: prompt 'second', response 'odd'"
    with pytest.warns(RuntimeWarning, match=expected):
        rewards = scorer([["good", "bad"], ["good", "odd"]], examples)
    np.testing.assert_array_equal(rewards, [[1, 0], [1, 0]])
    np.testing.assert_array_equal(scorer([["nan", "good"], ["two", "odd"]], examples), [[0, 1], [0, 0]])  # no warning
    assert scorer.failures == 4
    with pytest.warns(RuntimeWarning, match="returned nan, not a number from 0 to 1, at prompt 0 of the batch"):
        score([["nan"]], examples[:1], raises_for_odd)


def starts_with_a(ids: list[int], example: Example) -> float:
    """A user's verifier of token ids."""
    return float(ids[:1] == [ord("a")])


starts_with_a.reads = "ids"  # pyright: ignore[reportFunctionMemberAccess]


def test_verifiers_by_path_on_ids_and_on_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own_verifier.py").write_text("def verify(response, example):\n    return float(response == 'ab')\n")
    monkeypatch.syspath_prepend(tmp_path)
    tokenizer, example = ByteTokenizer(), Example("?", "")
    tokens, where = (
        np.array([[[97, 98, 258, 256], [98, 258, 256, 256]]]),
        np.array([[[1, 1, 1, 0], [1, 1, 0, 0]]], bool),
    )
    ids = responses_of(tokens, where)
    np.testing.assert_array_equal(score(ids, [example], "own_verifier:verify", tokenizer=tokenizer), [[1, 0]])
    np.testing.assert_array_equal(score(ids, [example], starts_with_a), [[1, 0]])
    np.testing.assert_array_equal(score([["ab", "b"]], [example], starts_with_a, tokenizer=tokenizer), [[1, 0]])
    with pytest.raises(UserError, match="reads text, the responses are ids: give a tokenizer"):
        score(ids, [example], "exact")


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ("grpahpath", "Did you mean 'graphpath'"),
        ("no_such_module:verify", "cannot import 'no_such_module'"),
        ("math:sqr", "Did you mean 'sqrt'"),
        (":verify", "write 'package.module:function'"),
        (None, "unknown verifier None"),
    ],
)
def test_unknown_verifiers_are_named(verifier: str, message: str):
    with pytest.raises(UserError, match=message):
        Scorer(verifier)


def test_options_and_shapes_are_checked():
    assert Scorer("matches", options={"pattern": "a+"})([["aa", "b"]], [Example("?", "")]).tolist() == [[1, 0]]
    with pytest.raises(UserError, match=r"no option 'patern'.*Did you mean 'pattern'"):
        Scorer("matches", options={"patern": "a+"})
    with pytest.raises(UserError, match="responses to 1 prompts, and 2 examples"):
        score([["a"]], [Example("?", "")] * 2, "exact")
    filled = [["a"], ["a"]], [Example("?", "a"), Example("", "")]
    np.testing.assert_array_equal(Scorer("graphpath")(*filled, where=np.zeros(2, bool)), [[0], [0]])
    np.testing.assert_array_equal(score([["a"], ["a", "b"]], [Example("?", "a")] * 2, "exact"), [[1, 0], [1, 0]])
