"""Chat templates: messages become the text that a Hugging Face tokenizer's own Jinja template makes of them.

A template comes with weights that anybody may have made, so it is never run here: a process of its own renders it in
Jinja's sandbox, with bounds on memory, output and time, and is killed when it exceeds them (``chat_worker``).
"""

import hashlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlx import bounds
from rlx.data import chat_worker
from rlx.data.rows import BadRow
from rlx.errors import UserError, close_matches, one_line

MAX_TEMPLATE = 2**18  # bytes
MAX_OUTPUT = 2**22  # characters of a rendered conversation
MEMORY = 2**29  # address space of the process that renders, bytes
SECONDS = 5.0  # of work for a conversation
PATIENCE = 60.0  # seconds until an answer where the machine is busy, or cannot count the work
ROLES = {"human": "user"}  # names here -> those that templates know
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
NAMES = ("chat_template.jinja", "tokenizer_config.json")

Turn = tuple[str, str]
"""Role and content."""


class Found(NamedTuple):
    """What a tokenizer's folder says: the template (None where it has none), its file, special tokens by name."""

    source: str | None
    file: Path
    tokens: Mapping[str, str]


class ChatTemplate:
    """A template, ready to render.

    Args:
        source: Jinja.
        tokens: special tokens as variables of the template (``bos_token``, ...).
        origin: what messages call it.
        special_in: text -> a special token of the tokenizer that it holds, or None: such a message is refused, since it
            would pass for what the template writes.
    """

    def __init__(
        self,
        source: str,
        tokens: Mapping[str, str] | None = None,
        *,
        origin: str = "the chat template",
        special_in: Callable[[str], str | None] = lambda text: None,
    ):
        if len(source.encode("utf-8", "replace")) > MAX_TEMPLATE:
            raise UserError(f"{origin} is longer than {MAX_TEMPLATE} bytes, the bound for a chat template.")
        self.source, self.tokens, self.origin, self.special_in = source, dict(tokens or {}), origin, special_in
        content = json.dumps([self.source, self.tokens], sort_keys=True)
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()[:32]
        self._process: _Process | None = None
        self._lock = threading.Lock()

    def render(self, turns: Sequence[Turn], *, add_generation_prompt: bool = False) -> str:
        """The text of a conversation; ``add_generation_prompt`` opens the answer of the assistant.

        Raises:
            BadRow: the template refuses these messages, or one of them holds a special token.
            UserError: the template is broken, or exceeds its memory or time.
        """
        for number, (_, content) in enumerate(turns):
            held = self.special_in(content)
            if held is not None:
                raise BadRow(
                    f"message {number} holds the special token {held!r}, which only {self.origin} may write: remove it "
                    "from the text, or set data.on_bad_row='skip'."
                )
        messages = [{"role": ROLES.get(role, role), "content": content} for role, content in turns]
        request = {"messages": messages, "add_generation_prompt": add_generation_prompt, "variables": self.tokens}
        answer = self._ask(request)
        if answer.get("kind") == "memory":
            raise UserError(f"{self.origin} needs more than {MEMORY >> 20} MiB: it is broken, or means harm.")
        if "error" in answer:
            raise BadRow(f"{self.origin} refuses the messages: {one_line(answer['error'])}.")
        return answer["text"]

    def split(self, turns: Sequence[Turn]) -> tuple[str, str]:
        """Prompt and response of a conversation that ends with the assistant: what the whole adds to its beginning.

        Raises:
            BadRow: see :meth:`render`; or the whole does not begin with the prompt.
        """
        prompt = self.render(turns[:-1], add_generation_prompt=True)
        whole = self.render(turns)
        if not whole.startswith(prompt):
            raise BadRow(
                f"{self.origin} writes the beginning of these messages otherwise once the answer follows, so that "
                "prompt and response cannot be told apart; give data.chat_template another template, or 'none'."
            )
        if len(whole) == len(prompt):
            raise BadRow(f"{self.origin} leaves the answer out.")
        return prompt, whole[len(prompt) :]

    def _ask(self, request: dict) -> dict:
        with self._lock:
            if self._process is None or self._process.owner != os.getpid():
                self._process = _Process(self.source, self.origin)
            try:
                return self._process.ask(request)
            except _Died as error:
                self._process.close()
                self._process = None
                raise UserError(f"{self.origin} {error}: it is broken, or means harm.") from None


_TOO_LONG = "takes longer than {:g} s"


class _Died(Exception):
    """What a template did to its process."""


class _Process:
    """A process that renders one template."""

    def __init__(self, source: str, origin: str):
        self.owner = os.getpid()
        command = [sys.executable, "-I", "-S", chat_worker.__file__]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=os.sep
        )
        self.close = weakref.finalize(self, _end, self._child, self.owner)
        limits = {"memory": MEMORY, "output": MAX_OUTPUT, "seconds": SECONDS}
        path = [os.path.abspath(entry) for entry in sys.path]
        try:
            answer = self.ask({"path": path, "template": source, **limits})
        except _Died as error:
            self.close()
            raise UserError(f"{origin} {error} when it is compiled: it is broken, or means harm.") from None
        if "error" in answer:
            self.close()
            if answer["error"].startswith("ModuleNotFoundError"):
                raise UserError("a chat template needs the package jinja2: pip install 'rlx[hf]'.")
            line = f" (line {answer['line']})" if answer.get("line") else ""
            raise UserError(f"{origin} is no Jinja template: {one_line(answer['error'])}{line}.")

    def ask(self, request: dict) -> dict:
        """The answer to a request, or ``_Died``."""
        content = json.dumps(request).encode()
        until = time.monotonic() + PATIENCE
        sent, got = self._child.stdin, self._child.stdout
        assert sent is not None and got is not None  # both are pipes
        try:
            sent.write(chat_worker.LENGTH.pack(len(content)) + content)
            sent.flush()
            (size,) = chat_worker.LENGTH.unpack(_read(got, chat_worker.LENGTH.size, until))
            if size > 8 * MAX_OUTPUT:
                raise _Died("writes too much")
            return json.loads(_read(got, size, until))
        except EOFError:
            spent = self._child.wait() in (-signal.SIGXCPU, -signal.SIGKILL)
            raise _Died(_TOO_LONG.format(SECONDS) if spent else "has ended its process") from None
        except (OSError, ValueError) as error:
            raise _Died(f"broke off ({type(error).__name__})") from None


def _read(file: Any, size: int, until: float) -> bytes:
    """``size`` bytes of a pipe before the time ``until``."""
    found = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_READ)
        while len(found) < size:
            if not selector.select(max(0.0, until - time.monotonic())):
                raise _Died(_TOO_LONG.format(PATIENCE))
            part = os.read(file.fileno(), size - len(found))
            if not part:
                raise EOFError
            found += part
    return bytes(found)


def _end(child: subprocess.Popen, owner: int) -> None:
    if owner != os.getpid():  # a fork has a copy of the pipes, and no child
        return
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        try:
            if pipe is not None:
                pipe.close()
        except OSError:  # what was never read
            continue


def find(choice: str, tokenizer: Any) -> ChatTemplate | None:
    """The template that ``data.chat_template`` names: ``auto`` that of the tokenizer's folder, ``none``, or a path.

    >>> from rlx.data.tokenizers import ByteTokenizer
    >>> find("auto", ByteTokenizer()) is None
    True
    """
    if choice == "none":
        return None
    folder = getattr(tokenizer, "folder", None)
    own = read_folder(folder) if folder is not None else None
    found = own if choice == "auto" else _read_path(Path(choice).expanduser())
    if found is None or found.source is None:
        return None
    tokens = {**getattr(tokenizer, "special_texts", {}), **(own.tokens if own else {}), **found.tokens}
    special_in = getattr(tokenizer, "special_in", lambda text: None)
    return ChatTemplate(found.source, tokens, origin=f"the chat template {found.file}", special_in=special_in)


def _read_path(path: Path) -> Found:
    if path.is_dir():
        found = read_folder(path)
    elif path.suffix == ".json" and path.is_file():
        found = _of_config(path)
    elif path.is_file():
        found = Found(_text(path), path, {})
    else:
        near = close_matches(path.name, [other.name for other in path.parent.glob("*")])
        raise UserError(f"data.chat_template: no file {path}.{near} It is 'auto', 'none' or a path.")
    if found.source is None:
        raise UserError(f"data.chat_template: {path} holds no chat template.")
    return found


def read_folder(folder: Path) -> Found:
    """What a folder's ``tokenizer_config.json`` and ``chat_template.jinja`` say; the latter's template goes first."""
    jinja, config = (folder / name for name in NAMES)
    found = _of_config(config) if config.is_file() else Found(None, config, {})
    return found._replace(source=_text(jinja), file=jinja) if jinja.is_file() else found


def _of_config(file: Path) -> Found:
    config = bounds.read_object(file)
    tokens = {name: text for name in SPECIAL if (text := _token(config.get(name))) is not None}
    source = config.get("chat_template")
    if isinstance(source, list):  # several by name
        named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
        source = named.get("default")
    if source is not None and not isinstance(source, str):
        raise UserError(f"{file}: chat_template must be a text or a list of named texts.")
    return Found(source, file, tokens)


def _token(value: Any) -> str | None:
    """A special token as it stands there: its text, or an object with its text."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _text(file: Path) -> str:
    try:
        return bounds.read_bytes(file, MAX_TEMPLATE).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: byte {error.start + 1} is not UTF-8.") from None
