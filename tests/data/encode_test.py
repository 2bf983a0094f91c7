"""The rules of BOS, EOS, truncation and masks hold for every text and every length."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rlx.data.encode import Lengths, collate, encode, encode_prompt, encode_response, mismatch
from rlx.data.formats import Record
from rlx.data.tokenizers import ByteTokenizer

TOKENIZER = ByteTokenizer()
TEXT = st.text(max_size=12)


@st.composite
def batches(draw):
    """Records with ragged candidates, and lengths that cut some of them."""
    lengths = Lengths(draw(st.integers(1, 10)), draw(st.integers(1, 10)), draw(st.integers(1, 3)))
    responses = st.lists(TEXT, min_size=1, max_size=lengths.candidates).map(tuple)
    records = draw(st.lists(st.tuples(TEXT, responses).map(lambda parts: Record(*parts)), min_size=1, max_size=4))
    return records, lengths


def collated(records, lengths):
    rows = [encode(record, TOKENIZER, lengths) for record in records]
    return collate([*rows, None], np.arange(len(rows) + 1), TOKENIZER, lengths)


@given(batches())
def test_masks(case):
    records, lengths = case
    batch = collated(records, lengths)
    valid, where = batch["valid"], batch["where"]
    assert not (where & ~valid).any(), "scored tokens are real tokens"
    assert not where[..., : lengths.prompt].any(), "no prompt token is scored"
    assert (where.any(-1) == batch["candidate_where"]).all(), "real candidates have a scored token, others none"
    assert valid.any(-1).all(), "every row has a token to attend to"
    assert (np.diff(valid[..., : lengths.prompt].astype(int)) >= 0).all(), "prompts stand on the right"
    assert (np.diff(where[..., lengths.prompt :].astype(int)) <= 0).all(), "responses stand on the left"
    assert (batch["tokens"][~valid] == TOKENIZER.pad_id).all()
    assert valid[..., lengths.prompt - 1].all()
    assert not batch["candidate_where"][-1].any(), "the row that fills up has no candidate"


@given(batches())
def test_tokens_are_those_of_the_texts(case):
    records, lengths = case
    batch = collated(records, lengths)
    for i, record in enumerate(records):
        for k, text in enumerate(record.responses):
            tokens = batch["tokens"][i, k]
            prompt = tokens[: lengths.prompt][batch["valid"][i, k, : lengths.prompt]].tolist()
            assert prompt[0] == TOKENIZER.bos_id
            kept = len(prompt) - 1
            assert bytes(prompt[1:]) == record.prompt.encode()[len(record.prompt.encode()) - kept :]
            assert kept == min(len(record.prompt.encode()), lengths.prompt - 1)
            whole, scored = text.encode(), tokens[batch["where"][i, k]].tolist()
            if len(whole) < lengths.response:
                assert TOKENIZER.decode(scored) == text
                assert scored[-1] == TOKENIZER.eos_id
            else:
                assert bytes(scored) == whole[: lengths.response]


def test_token_ids_get_bos_and_eos_once():
    bos, eos = TOKENIZER.bos_id, TOKENIZER.eos_id
    for prompt in ((1, 2), (bos, 1, 2)):
        assert encode_prompt(prompt, TOKENIZER, 5).tolist() == [bos, 1, 2]
        assert encode_prompt(prompt, TOKENIZER, 2).tolist() == [bos, 2]
    for response in ((1, 2), (1, 2, eos)):
        assert encode_response(response, TOKENIZER, 5).tolist() == [1, 2, eos]
        assert encode_response(response, TOKENIZER, 2).tolist() == [1, 2]


def test_what_is_known_of_the_candidates():
    lengths = Lengths(2, 3, 3)
    lists = collated([Record("a", ("b", "c"), scores=(2.0, 1.0)), Record("a", ("b",), scores=(3.0,))], lengths)
    assert lists["scores"].tolist() == [[2, 1, 0], [3, 0, 0], [0, 0, 0]]
    assert lists["candidate_where"].tolist() == [[True, True, False], [True, False, False], [False] * 3]
    unpaired = collated([Record("a", ("b",), label=1.0)], Lengths(2, 3, 1))
    assert unpaired["labels"].tolist() == [[1], [0]]
    soft = collated([Record("a", ("b", "c"), preference_prob=0.75)], Lengths(2, 3, 2))
    assert soft["preference_probs"].tolist() == [0.75, 0.5]
    for batch in (lists, unpaired, soft):
        assert {"labels", "scores", "preference_probs"} & set(batch) == {list(batch)[-1]}
        assert batch[list(batch)[-1]].dtype == np.float32


def test_mismatched_rows_join_a_prompt_and_another_response():
    lengths = Lengths(3, 3, 1)
    batch = collated([Record("a", ("x",)), Record("bb", ("yy",))], lengths)
    following = {key: value[[1, 0, 2]] for key, value in batch.items()}
    kl = mismatch(batch, following, np.array([False, False, True]), lengths.prompt)
    expected = collated([Record("a", ("yy",)), Record("bb", ("x",))], lengths)
    for key in ("tokens", "valid", "where"):
        assert (kl[f"kl_{key}"] == expected[key]).all()


def test_prompts_have_no_response_columns():
    batch = collated([Record("abc")], Lengths(3, 0, 1))
    assert batch["tokens"].tolist()[0] == [[TOKENIZER.bos_id, *b"bc"]]
    assert not batch["where"].any()
    assert batch["candidate_where"].tolist() == [[True], [False]]
