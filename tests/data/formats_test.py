"""Every format gives the same vocabulary, and every mistake in a row is named with its remedy."""

import re

import numpy as np
import pytest

from rlx.data.formats import FORMATS, SERVED_BY, Parser, Record, bind, check_format
from rlx.data.rows import BadRow
from rlx.data.sources import plain
from rlx.errors import UserError

HUMAN, ASSISTANT = "\n\nHuman: Hi", "\n\nAssistant:"
USER = {"role": "user", "content": "Hi"}


def say(content: str) -> dict:
    return {"role": "assistant", "content": content}


EXAMPLES = {
    "pairs": ({"prompt": "p", "chosen": "c", "rejected": "r"}, Record("p", ("c", "r"))),
    "hh": (
        {"chosen": f"{HUMAN}{ASSISTANT} yes", "rejected": f"{HUMAN}{ASSISTANT} no"},
        Record(HUMAN + ASSISTANT, (" yes", " no")),
    ),
    "conversation": (
        {"chosen": [USER, say("yes")], "rejected": [USER, say("no")]},
        Record(HUMAN + ASSISTANT, (" yes", " no")),
    ),
    "lists": (
        {"prompt": "p", "responses": ["a", "b", "c"], "scores": [0, 2, 1.5]},
        Record("p", ("b", "c", "a"), (2.0, 1.5, 0.0)),
    ),
    "unpaired": ({"prompt": "p", "completion": "c", "label": True}, Record("p", ("c",), label=1.0)),
    "prompt_messages": ({"prompt": [USER]}, Record(HUMAN + ASSISTANT)),
    "completion_messages": ({"prompt": [USER], "completion": [say("a")]}, Record(HUMAN + ASSISTANT, (" a",))),
    "unpaired_messages": (
        {"prompt": [USER], "completion": [say("a")], "label": 1},
        Record(HUMAN + ASSISTANT, (" a",), label=1.0),
    ),
    "sft": ({"prompt": "p", "response": "r"}, Record("p", ("r",))),
    "text": ({"text": "words"}, Record("", ("words",))),
    "messages": (
        {"messages": [USER, say("a"), USER, say("b")]},
        Record(f"{HUMAN}{ASSISTANT} a{HUMAN}{ASSISTANT}", (" b",)),
    ),
    "prompts": ({"prompt": "p"}, Record("p")),
    "pairs_ids": ({"prompt_ids": [1], "chosen_ids": [2, 3], "rejected_ids": [4]}, Record((1,), ((2, 3), (4,)))),
    "lists_ids": ({"prompt_ids": [], "responses_ids": [[2], [3]]}, Record((), ((2,), (3,)))),
    "unpaired_ids": ({"prompt_ids": [1], "completion_ids": [2], "label": 0}, Record((1,), ((2,),), label=0.0)),
    "sft_ids": ({"prompt_ids": [1], "response_ids": [2]}, Record((1,), ((2,),))),
    "prompts_ids": ({"prompt_ids": [1]}, Record((1,))),
}


def first_kind(name: str) -> str:
    return FORMATS[name].kind


def test_there_is_an_example_of_every_format():
    assert sorted(EXAMPLES) == sorted(FORMATS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_auto_finds_the_format_and_gives_its_record(name):
    row, record = EXAMPLES[name]
    parser = bind(Parser("auto"), row, first_kind(name))
    assert parser.format == name
    assert parser(row) == record


@pytest.mark.parametrize("name", EXAMPLES)
def test_fields_may_have_other_names(name):
    row, record = EXAMPLES[name]
    renamed = {f"my_{field}": value for field, value in row.items()}
    parser = Parser(name, fields={field: f"my_{field}" for field in row}, optional=())
    assert bind(parser, renamed, first_kind(name))(renamed) == record


def test_conversation_with_its_prompt_apart():
    record = EXAMPLES["conversation"][1]
    row = {"prompt": [USER], "chosen": [say("yes")], "rejected": [say("no")]}
    assert bind(Parser("auto"), row, "pairs")(row) == record
    as_text = row | {"prompt": "Hi"}
    assert bind(Parser("auto"), as_text, "pairs")(as_text) == record


def test_the_dialogue_is_split_at_the_last_turn_of_the_assistant():
    before = f"{HUMAN}{ASSISTANT} a{HUMAN}{ASSISTANT}"
    assert Parser("hh")({"chosen": before + " b", "rejected": before + " c"}) == Record(before, (" b", " c"))


def test_rows_without_scores_keep_their_order():
    assert Parser("lists")({"prompt": "", "responses": ["b", "a"]}).responses == ("b", "a")


def test_preference_probabilities_are_kept():
    row = EXAMPLES["pairs"][0] | {"preference_prob": 0.25}
    assert bind(Parser("auto"), row, "pairs")(row).preference_prob == 0.25


PAIR = EXAMPLES["pairs"][0]
LIST = EXAMPLES["lists"][0]
MISTAKES = [
    ("pairs", [1], "expected an object with named fields, found list"),
    ("pairs", {"prompt": "p", "chosn": "c", "rejected": "r"}, "no field 'chosen' among .* Did you mean 'chosn'?"),
    ("pairs", PAIR | {"chosen": 3}, "field 'chosen' must be a string, found int 3"),
    ("pairs", PAIR | {"rejected": ""}, "field 'rejected' is empty"),
    ("pairs", PAIR | {"chosen": "\ud800"}, "half a surrogate pair"),
    ("pairs", PAIR | {"preference_prob": 0.5}, "field 'preference_prob' is here but not in the first row"),
    ("hh", {"chosen": "hello", "rejected": "hello"}, "field 'chosen' has no '.*Assistant:' turn"),
    (
        "hh",
        {"chosen": f"{HUMAN}{ASSISTANT} a", "rejected": f"\n\nHuman: Ho{ASSISTANT} b"},
        "differ before the last turn",
    ),
    ("hh", {"chosen": f"{HUMAN}{ASSISTANT} a{HUMAN}", "rejected": f"{HUMAN}{ASSISTANT} b"}, "must end with a turn of"),
    ("hh", {"chosen": f"{HUMAN}{ASSISTANT}", "rejected": f"{HUMAN}{ASSISTANT} b"}, "ends with an empty response"),
    ("conversation", {"chosen": [USER], "rejected": [USER]}, "must end with a message of the assistant"),
    ("conversation", {"chosen": [], "rejected": []}, "field 'chosen' holds no message"),
    ("conversation", {"chosen": ["x"], "rejected": ["x"]}, r"chosen\[0\] must be an object with 'role' and 'content'"),
    ("messages", {"messages": [{"role": "asistant", "content": "a"}]}, "unknown role .* Did you mean 'assistant'?"),
    ("messages", {"messages": [{"rol": "user", "content": "a"}]}, "no field 'role' among .* Did you mean 'rol'?"),
    ("messages", {"messages": [say("")]}, "ends with an empty message"),
    ("lists", {"prompt": "p", "responses": "abc"}, "field 'responses' must be a list, found str"),
    ("lists", {"prompt": "p", "responses": []}, "the row holds no response"),
    ("lists", {"prompt": "p", "responses": ["a", ""]}, r"field 'responses\[1\]' is empty"),
    ("lists", {"prompt": "p", "responses": list("abcde")}, "5 responses, but data.max_candidates=4"),
    ("unpaired", {"prompt": "p", "completion": "c", "label": "yes"}, "field 'label' must be true, false, 1 or 0"),
    ("unpaired", {"prompt": "p", "completion": "c", "label": 2}, "field 'label' must be"),
    ("pairs_ids", {"prompt_ids": "12", "chosen_ids": [1], "rejected_ids": [1]}, "'prompt_ids' must be a list of token"),
    ("pairs_ids", {"prompt_ids": [1], "chosen_ids": [99], "rejected_ids": [1]}, "token id 99, outside of the vocab"),
    ("pairs_ids", {"prompt_ids": [1], "chosen_ids": [], "rejected_ids": [1]}, "field 'chosen_ids' is empty"),
]


@pytest.mark.parametrize(("name", "row", "message"), MISTAKES, ids=[message[:30] for *_, message in MISTAKES])
def test_a_mistake_is_named(name, row, message):
    with pytest.raises(BadRow, match=message):
        Parser(name, vocab_size=50, max_candidates=4)(row)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1, 2], "2 entries for 3 responses"),
        *[([1, 2, value], "finite number") for value in (float("nan"), float("inf"), 10**400, 1e39, True, "3")],
    ],
)
def test_scores_are_finite_and_as_many_as_responses(scores, message):
    with pytest.raises(BadRow, match=message):
        Parser("lists", optional=("scores",))(LIST | {"scores": scores})


def test_a_probability_lies_between_zero_and_one():
    with pytest.raises(BadRow, match="must lie between 0 and 1, found 1.5"):
        Parser("pairs", optional=("preference_prob",))(PAIR | {"preference_prob": 1.5})


def test_an_optional_field_of_the_first_row_is_needed_in_all():
    parser = bind(Parser("auto"), LIST, "lists")
    with pytest.raises(BadRow, match="no field 'scores'"):
        parser({"prompt": "p", "responses": ["a"]})


def test_auto_names_the_nearest_format_and_the_misspelt_field():
    with pytest.raises(BadRow) as error:
        bind(Parser("auto"), {"prompt": "p", "chosn": "c", "rejected": "r"}, "pairs")
    assert re.search("nearest is 'pairs' .* no field 'chosen' .* Did you mean 'chosn'?", str(error.value))
    assert "data.fields={'chosen':" in str(error.value)


def test_format_and_kind_are_checked_with_close_matches():
    with pytest.raises(UserError, match="unknown data.format 'pair'.* Did you mean 'pairs'"):
        check_format("pair", "pairs")
    with pytest.raises(UserError, match="unknown kind of data 'list'.* Did you mean 'lists'"):
        check_format("auto", "list")
    with pytest.raises(UserError, match="'text' cannot be read as 'pairs'; formats that can: .*'hh'"):
        check_format("text", "pairs")


def test_every_kind_is_served_by_a_format():
    for kinds in SERVED_BY.values():
        assert set(kinds) <= {form.kind for form in FORMATS.values()}


def test_values_of_arrays_are_read_like_those_of_json():
    row = {"prompt": b"p", "responses": np.array([b"a", b"b"], object), "scores": np.array([1, 2], np.float32)}
    assert bind(Parser("auto"), plain(row), "lists")(plain(row)) == Record("p", ("b", "a"), (2.0, 1.0))
