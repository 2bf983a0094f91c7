"""Tokenizers: bytes by default, Hugging Face ``tokenizer.json`` files, and plain token ids for generated languages."""

import contextlib
import hashlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rlx import bounds
from rlx.data import chat
from rlx.errors import UserError, close_matches, one_line

MAX_FILE_BYTES = 2**27  # of a tokenizer.json
MAX_VOCABULARY = 2**23  # token ids: arrays have that size
MAX_ENDS = 256  # tokens that a sampler compares each one with
GENERATION = "generation_config.json"


class Tokenizer(Protocol):
    """What the pipeline needs. ``encode`` adds no special tokens, ``decode`` drops them.

    ``fingerprint`` changes when any text would be encoded differently: caches are keyed by it.
    """

    vocab_size: int
    pad_id: int
    bos_id: int
    eos_id: int
    fingerprint: str

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


def end_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens that end a response: EOS, then those that a tokenizer has beside it as its ``end_ids``.

    >>> end_ids(ByteTokenizer())
    (258,)
    """
    return getattr(tokenizer, "end_ids", (tokenizer.eos_id,))


class ByteTokenizer:
    """The UTF-8 bytes of a text, and three special tokens.

    >>> tokenizer = ByteTokenizer()
    >>> tokenizer.encode("né"), tokenizer.decode([110, 195, 169, tokenizer.eos_id])
    ([110, 195, 169], 'né')
    """

    pad_id, bos_id, eos_id = 256, 257, 258
    vocab_size = 259
    fingerprint = "byte-1"

    def encode(self, text: str) -> list[int]:
        """Returns the bytes of ``text``."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the bytes; what is cut inside a character becomes the replacement character."""
        return bytes(int(token) for token in ids if token < 256).decode(errors="replace")


class IdTokenizer:
    """Token ids written with spaces between them: for generated languages that have no words.

    >>> tokenizer = IdTokenizer(size=10)
    >>> tokenizer.encode("3 1"), tokenizer.decode([3, 1, tokenizer.eos_id]), tokenizer.vocab_size
    ([3, 1], '3 1', 13)
    """

    def __init__(self, size: int):
        self.size = size
        self.pad_id, self.bos_id, self.eos_id = size, size + 1, size + 2
        self.vocab_size = size + 3
        self.fingerprint = f"ids-{size}"

    def encode(self, text: str) -> list[int]:
        """Returns the ids in ``text``."""
        try:
            ids = [int(word) for word in text.split()]
        except ValueError:
            raise UserError(f"tokenizer 'ids' reads numbers with spaces between them, found {text[:40]!r}.") from None
        if any(not 0 <= token < self.size for token in ids):
            raise UserError(f"tokenizer 'ids' has the ids 0 to {self.size - 1}, found {text[:40]!r}.")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the ids as text."""
        return " ".join(str(int(token)) for token in ids if token < self.size)


class HuggingFaceTokenizer:
    """A ``tokenizer.json``, from a stranger maybe: bounded, and what the library makes of it is one error.

    Special tokens are named by the caller, else by the ``tokenizer_config.json`` beside the file, else found by their
    usual names. ``folder`` holds the files, ``special_texts`` the special tokens as chat templates call them;
    ``end_ids`` has EOS and, unless the caller names EOS, what ``generation_config.json`` beside the file lists with it.

    Args:
        path: the file, or the folder that holds it.
        pad, bos, eos: the special tokens as text, for instance ``"<|endoftext|>"``; one may serve as several.
    """

    def __init__(self, path: str, pad: str | None = None, bos: str | None = None, eos: str | None = None):
        file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        self._tokenizer = _load_file(file)
        self._file, self.folder = file, file.parent
        with _guarded(file):
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
            added = self._tokenizer.get_added_tokens_decoder()
        self.vocab_size = _vocab_size(file, vocabulary)
        special = sorted((t.content for t in added.values() if t.special and t.content), key=len, reverse=True)
        self._special_tokens = re.compile("|".join(map(re.escape, special)) or "(?!)")
        own = chat.read_folder(self.folder).tokens
        self.eos_id = self._special("eos", eos, own, _EOS)
        self.bos_id = self._special("bos", bos, own, _BOS)
        self.pad_id = self._special("pad", pad, own, _PAD)
        further = [] if eos is not None else _listed_ends(self.folder / GENERATION, self.vocab_size)
        self.end_ids = tuple(dict.fromkeys([self.eos_id, *further]))
        with _guarded(file):
            ends = " ".join(map(str, self.end_ids))
            content = f"{self._tokenizer.to_str()}{self.pad_id} {self.bos_id} {ends}"
        self.fingerprint = "hf-" + hashlib.sha256(content.encode()).hexdigest()[:32]

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of ``text``, without special tokens around it."""
        with _guarded(self._file):
            return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of token ids, without special tokens and those that end a response."""
        shown = [int(token) for token in ids if token not in self.end_ids]
        with _guarded(self._file):
            return self._tokenizer.decode(shown, skip_special_tokens=True)

    def special_in(self, text: str) -> str | None:
        """A special token that ``text`` would be read to hold, or None."""
        with _guarded(self._file):
            normalizer = self._tokenizer.normalizer
            read = text if normalizer is None else normalizer.normalize_str(text)
        found = self._special_tokens.search(text) or self._special_tokens.search(read)
        return found[0] if found else None

    @property
    def special_texts(self) -> dict[str, str]:
        """The special tokens by the names that chat templates have for them."""
        ids = {"bos_token": self.bos_id, "eos_token": self.eos_id, "pad_token": self.pad_id}
        return {name: self._tokenizer.id_to_token(index) for name, index in ids.items()}

    def _special(self, role: str, name: str | None, own: Mapping[str, str], usual: Sequence[str]) -> int:
        configured = own.get(f"{role}_token")
        wanted = [name] if name is not None else [*([] if configured is None else [configured]), *usual]
        with _guarded(self._file):
            ids = {token: self._tokenizer.token_to_id(token) for token in wanted}
            added = sorted(token.content for token in self._tokenizer.get_added_tokens_decoder().values())
        found = [index for index in ids.values() if index is not None]
        if not found:
            shown = one_line(str(added[:20])) + (" and more" if len(added) > 20 else "")
            sought = one_line(" or ".join(map(repr, ids)))
            raise UserError(
                f"{self._file} has no {role} token {sought}; its special tokens are {shown}."
                f"{close_matches(name or usual[0], added)} Name it with tokenizer.{role}='...'."
            )
        return found[0]


_EOS = ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "<|im_end|>", "[SEP]")
_BOS = ("<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>", "[CLS]", "<|endoftext|>")
_PAD = ("<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<unk>", "<|endoftext|>", "</s>", "<eos>")


@contextlib.contextmanager
def _guarded(file: Path) -> Iterator[None]:
    """What the library raises as an error of the user; its panics are no ``Exception``."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, UserError):
        raise
    except BaseException as error:
        raise UserError(
            f"tokenizer.path: the tokenizer of {file} fails ({one_line(error)}): the file is damaged, get it again."
        ) from None


def _vocab_size(file: Path, vocabulary: Mapping[str, int]) -> int:
    size = 1 + max(vocabulary.values(), default=-1)  # ids may have gaps
    if not 1 <= size <= MAX_VOCABULARY:
        problem = f"has the token id {size - 1}, and the bound is {MAX_VOCABULARY}" if size else "has no token"
        raise UserError(f"tokenizer.path: {file} {problem}.")
    return size


def _listed_ends(file: Path, vocab_size: int) -> list[int]:
    """The ``eos_token_id`` of a ``generation_config.json``, one or several; none where there is no such file."""
    listed = bounds.read_object(file).get("eos_token_id") if file.is_file() else None
    ids = listed if isinstance(listed, list) else [] if listed is None else [listed]
    if len(ids) > MAX_ENDS:
        raise UserError(f"{file}: eos_token_id holds {len(ids)} tokens, and the bound is {MAX_ENDS}.")
    wrong = [i for i in ids if not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < vocab_size]
    if wrong:
        shown = one_line(repr(wrong[0]), 60)
        raise UserError(
            f"{file}: eos_token_id holds {shown}, which is no id of the tokenizer's {vocab_size} tokens: take it out, "
            "or name the token that ends a response with tokenizer.eos='...'."
        )
    return ids


def _load_file(file: Path) -> Any:
    try:
        import tokenizers
    except ImportError:
        raise UserError("tokenizer 'hf' needs the package tokenizers: pip install 'rlx[hf]'.") from None
    if not file.is_file():
        near = close_matches(file.name, [other.name for other in file.parent.glob("*")])
        raise UserError(f"tokenizer.path: no file {file}.{near}")
    content = bounds.read_bytes(file, MAX_FILE_BYTES)
    try:
        return tokenizers.Tokenizer.from_buffer(content)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and panics, which are none
        raise UserError(f"tokenizer.path: {file} is not a tokenizer.json ({one_line(error)}).") from None


TOKENIZERS: dict[str, Callable[..., Tokenizer]] = {
    "byte": ByteTokenizer,
    "ids": IdTokenizer,
    "hf": HuggingFaceTokenizer,
}


def build(config: Mapping[str, Any] | None = None) -> Tokenizer:
    """Returns the tokenizer of a config such as ``{"name": "byte"}`` or ``{"name": "hf", "path": "tokenizer.json"}``.

    Raises:
        UserError: an unknown name or key, a missing file, package or special token.

    >>> build({"name": "bytes"})
    Traceback (most recent call last):
    rlx.errors.UserError: unknown tokenizer.name 'bytes'; tokenizers are ['byte', 'ids', 'hf']. Did you mean 'byte'?
    """
    arguments = dict(config or {})
    name = arguments.pop("name", "byte")
    if not isinstance(name, str) or name not in TOKENIZERS:
        near = close_matches(str(name), TOKENIZERS)
        raise UserError(f"unknown tokenizer.name {name!r}; tokenizers are {list(TOKENIZERS)}.{near}")
    parameters = inspect.signature(TOKENIZERS[name]).parameters
    for key in arguments:
        if key not in parameters:
            near = close_matches(key, parameters)
            raise UserError(f"unknown key tokenizer.{key} of {name!r}; keys are {list(parameters)}.{near}")
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in arguments]
    if missing:
        raise UserError(f"tokenizer {name!r} needs tokenizer.{missing[0]}.")
    return TOKENIZERS[name](**arguments)
