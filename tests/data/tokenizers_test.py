"""Tokenizers return what they were given, and say what is missing."""

import json
import sys

import pytest
import tokenizers as hf
from hypothesis import given
from hypothesis import strategies as st

from rlx.data import tokenizers
from rlx.data.tokenizers import ByteTokenizer, IdTokenizer, build, end_ids
from rlx.errors import UserError


@pytest.fixture
def file(tmp_path):
    """A small ``tokenizer.json`` of bytes, with an added token whose id leaves a gap."""
    tokenizer = hf.Tokenizer(hf.models.BPE())
    tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = hf.decoders.ByteLevel()
    alphabet = hf.pre_tokenizers.ByteLevel.alphabet()
    trainer = hf.trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["the cat sat on the mat, the cat"], trainer)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@given(st.text())
def test_bytes_come_back(text):
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode([tokenizer.bos_id, *ids, tokenizer.eos_id, tokenizer.pad_id]) == text
    assert all(0 <= token < 256 for token in ids)


@given(st.lists(st.integers(0, 9)))
def test_ids_come_back(ids):
    tokenizer = IdTokenizer(10)
    assert tokenizer.encode(tokenizer.decode(ids)) == ids


def test_hugging_face_file(file):
    tokenizer = build({"name": "hf", "path": str(file)})
    text = "the cat, né"
    ids = tokenizer.encode(text)
    assert len(ids) < len(text.encode())
    assert tokenizer.decode([tokenizer.bos_id, *ids, tokenizer.eos_id]) == text
    assert max(ids) < tokenizer.vocab_size
    assert [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id] == [0, 1, 2]


def test_a_folder_finds_its_file_and_the_fingerprint_follows_the_special_tokens(file):
    one, same = (build({"name": "hf", "path": str(path)}) for path in (file, file.parent))
    other = build({"name": "hf", "path": str(file), "bos": "</s>"})
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert other.bos_id == other.eos_id


def test_tokens_that_end_a_response(file):
    assert end_ids(build({"name": "hf", "path": str(file)})) == (2,)
    listed = file.parent / "generation_config.json"
    for value, found in ((1, (2, 1)), ([2, 5], (2, 5)), (None, (2,))):
        listed.write_text(json.dumps({"eos_token_id": value}))
        tokenizer = build({"name": "hf", "path": str(file)})
        assert end_ids(tokenizer) == found and (tokenizer.decode([5, 2]) == "") == (5 in found)
    for value in (True, "2", [2, 10**6], [-1], [[2]], {}):
        listed.write_text(json.dumps({"eos_token_id": value}))
        with pytest.raises(UserError, match=r"generation_config.json: eos_token_id holds .*, which is no id of"):
            build({"name": "hf", "path": str(file)})
    assert end_ids(build({"name": "hf", "path": str(file), "eos": "</s>"})) == (2,)
    listed.write_text(json.dumps({"eos_token_id": [1] * 257}))
    with pytest.raises(UserError, match=r"eos_token_id holds 257 tokens, and the bound is 256"):
        build({"name": "hf", "path": str(file)})


def test_hugging_face_errors_are_clear(file, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no file .*tokenizr.json. Did you mean 'tokenizer.json'"):
        build({"name": "hf", "path": str(tmp_path / "tokenizr.json")})
    with pytest.raises(UserError, match="has no eos token '</e>'; its special tokens are .* Did you mean '</s>'"):
        build({"name": "hf", "path": str(file), "eos": "</e>"})
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(UserError, match="broken.json is not a tokenizer.json"):
        build({"name": "hf", "path": str(broken)})
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"pip install 'rlx\[hf\]'"):
        build({"name": "hf", "path": str(file)})


def test_config_errors_name_the_close_match():
    with pytest.raises(UserError, match="unknown tokenizer.name 'bite'.* Did you mean 'byte'"):
        build({"name": "bite"})
    with pytest.raises(UserError, match="unknown tokenizer.name {'a': 1}"):
        build({"name": {"a": 1}})
    with pytest.raises(UserError, match="unknown key tokenizer.pth of 'hf'.* Did you mean 'path'"):
        build({"name": "hf", "pth": "x"})
    with pytest.raises(UserError, match="unknown key tokenizer.path of 'byte'"):
        build({"name": "byte", "path": "x"})
    with pytest.raises(UserError, match="tokenizer 'hf' needs tokenizer.path"):
        build({"name": "hf"})


def test_a_tokenizer_of_a_stranger_is_bounded(file, monkeypatch):
    text = json.loads(file.read_text())
    text["model"]["vocab"]["far"] = 2**31
    far = file.with_name("far.json")
    far.write_text(json.dumps(text))
    with pytest.raises(UserError, match="far.json has the token id 2147483648, and the bound is 8388608"):
        build({"name": "hf", "path": str(far)})
    for content in (b"\xff", b"[" * 100_000, b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 1e400}}}'):
        far.write_bytes(content)
        with pytest.raises(UserError, match="far.json is not a tokenizer.json") as caught:
            build({"name": "hf", "path": str(far)})
        assert len(str(caught.value).splitlines()) == 1
    monkeypatch.setattr(tokenizers, "MAX_FILE_BYTES", 100)
    with pytest.raises(UserError, match="holds more than 100 bytes"):
        build({"name": "hf", "path": str(file)})


def test_a_panic_of_the_library_is_an_error_of_the_file(file):
    class Panic(BaseException):
        """As those of pyo3."""

    tokenizer = build({"name": "hf", "path": str(file)})

    class Broken:
        def encode(self, *args, **kwargs):
            raise Panic("index out of\nbounds")

    tokenizer._tokenizer = Broken()
    with pytest.raises(UserError, match=r"the tokenizer of .* fails .index out of\\nbounds.: the file is damaged"):
        tokenizer.encode("a")


def test_id_errors():
    with pytest.raises(UserError, match="reads numbers"):
        IdTokenizer(4).encode("1 two")
    with pytest.raises(UserError, match="has the ids 0 to 3"):
        IdTokenizer(4).encode("1 4")


def test_the_default_is_bytes():
    assert isinstance(build(), ByteTokenizer)
