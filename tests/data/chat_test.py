"""Templates render as Hugging Face renders them, and one that means harm is stopped, whatever it tries."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from rlx.data import chat
from rlx.data.chat import ChatTemplate, find, read_folder
from rlx.data.rows import BadRow
from rlx.data.tokenizers import ByteTokenizer
from rlx.errors import UserError

# templates in the style of four families; what transformers 5.24 makes of them
EXPECTED = json.loads(Path(__file__).with_name("chat_expected.json").read_text(encoding="utf-8"))
HELLO = [("user", "hi")]


def as_turns(messages):
    return [tuple(turn) for turn in messages]


@pytest.mark.parametrize("name", EXPECTED["templates"])
def test_what_transformers_writes(name):
    case = EXPECTED["templates"][name]
    template = ChatTemplate(case["template"], case["tokens"])
    for messages, expected in zip(EXPECTED["chats"], case["expected"], strict=True):
        for opened, text in zip((False, True), expected, strict=True):
            if isinstance(text, str):
                assert template.render(as_turns(messages), add_generation_prompt=opened) == text
            else:
                with pytest.raises(BadRow, match=text["error"]):
                    template.render(as_turns(messages), add_generation_prompt=opened)


@pytest.mark.parametrize("name", EXPECTED["templates"])
def test_transformers_still_says_so(name):
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    case = EXPECTED["templates"][name]
    messages = [{"role": role, "content": content} for role, content in EXPECTED["chats"][1]]
    texts, _ = utils.render_jinja_template([messages], chat_template=case["template"], **case["tokens"])
    assert texts[0] == case["expected"][1][0]


def test_prompt_and_response_are_told_apart():
    case = EXPECTED["templates"]["qwen2.5"]
    template = ChatTemplate(case["template"], case["tokens"])
    prompt, response = template.split([("system", "s"), ("human", "hi"), ("assistant", "yes")])
    assert prompt == "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert response == "yes<|im_end|>\n"


def test_a_template_whose_beginning_follows_from_its_end():
    turns = [("user", "hi"), ("assistant", "yes")]
    with pytest.raises(BadRow, match="otherwise once the answer follows.*data.chat_template"):
        ChatTemplate("{{ messages | length }}").split(turns)
    with pytest.raises(BadRow, match="leaves the answer out"):
        ChatTemplate("always").split(turns)


GROWS = "{% set n = namespace(x='a' * 1000) %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"
DOUBLES = "{% set n = namespace(x=[]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}"
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
CALLS = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
STOPPED = {
    LOOPS: "takes longer than",
    CALLS: "takes longer than",
    DOUBLES: "takes longer than",
    "{{ lipsum(100000, true, 1000, 2000) }}": "takes longer than",
    GROWS: "needs more than 512 MiB",
    "{{ '%1000000000d' % 1 }}": "needs more than",
    "{{ '{:1000000000}'.format(1) }}": "needs more than",
    "{{ 'a' * 10000000000 }}": "needs more than",
    "{{ [0] * 10000000000 }}": "needs more than",
    "{{ 'a' | center(10000000000) }}": "needs more than",
    "{% if %}": r"is no Jinja template: TemplateSyntaxError: .*\(line 1\)",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}": "is no Jinja template: RecursionError",
    "x" * 2**19: "is longer than 262144 bytes",
}
REFUSED = {
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "SecurityError: access to attribute '__class__'",
    "{{ lipsum.__globals__['os'].popen('id').read() }}": "SecurityError: access to attribute '__globals__'",
    "{{ cycler.__init__.__globals__.os.system('id') }}": "SecurityError: access to attribute '__init__'",
    "{{ '{0.__class__.__mro__}'.format('') }}": "SecurityError: access to attribute '__class__'",
    "{% set n = namespace(_x=1) %}": "SecurityError: a namespace takes no name with an underscore",
    "{{ messages.append(1) }}": "SecurityError",
    "{% include '/etc/passwd' %}": "no loader",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "RecursionError",
    "{{ unknown.attribute }}": "UndefinedError: 'unknown' is undefined",
    "{{ raise_exception('two\nlines') }}": r"refuses the messages: two\\nlines\.",
    "{{ raise_exception('long' * 1000000) }}": "longlong",
    "{{ 'a' * 5000000 }}": "it writes 5000000 characters",
    "{{ '\\ud800' }}": "surrogates not allowed",
}


@pytest.mark.parametrize(("source", "message"), STOPPED.items(), ids=range(len(STOPPED)))
def test_what_hangs_or_grows_is_stopped(monkeypatch, source, message):
    monkeypatch.setattr(chat, "SECONDS", 1.0)
    with pytest.raises(UserError, match=message) as caught:
        ChatTemplate(source).render(HELLO)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


@pytest.mark.parametrize(("source", "message"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_reaches_out_of_the_sandbox_is_refused(source, message):
    with pytest.raises(BadRow, match=message) as caught:
        ChatTemplate(source).render(HELLO)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_a_stopped_template_renders_again_and_from_any_thread(monkeypatch):
    monkeypatch.setattr(chat, "SECONDS", 0.5)
    template = ChatTemplate("{% if messages[0].content == 'hang' %}" + LOOPS + "{% endif %}{{ messages[0].content }}")
    with pytest.raises(UserError, match="takes longer than 0.5 s"):
        template.render([("user", "hang")])
    found = []
    threads = [threading.Thread(target=lambda i=i: found.append(template.render([("user", str(i))]))) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["0", "1", "2", "3"]


def test_the_process_ends_with_its_template():
    template = ChatTemplate("{{ messages[0].content }}")
    assert template.render([("user", "a\0b é")]) == "a\0b é"
    process = template._process._child
    del template
    assert process.returncode is not None


def test_the_day_can_be_held(monkeypatch):
    now = "{{ strftime_now('%Y-%m-%d') }}"
    assert abs(int(ChatTemplate(now).render(HELLO)[:4]) - time.localtime().tm_year) <= 1
    monkeypatch.setitem(os.environ, "SOURCE_DATE_EPOCH", "86400")
    assert ChatTemplate(now).render(HELLO) == "1970-01-02"


def test_a_folder_names_its_template(tmp_path):
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": "old", "bos_token": {"content": "<s>"}, "eos_token": None}))
    found = read_folder(tmp_path)
    assert (found.source, found.tokens) == ("old", {"bos_token": "<s>"})
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    config.write_text(json.dumps({"chat_template": named}))
    assert read_folder(tmp_path).source == "d"
    (tmp_path / "chat_template.jinja").write_text("new")
    assert (read_folder(tmp_path).source, read_folder(tmp_path).file.name) == ("new", "chat_template.jinja")


def test_a_choice_is_none_auto_or_a_path(tmp_path):
    file = tmp_path / "own.jinja"
    file.write_text("{{ messages[0].content }}!")
    assert find("none", ByteTokenizer()) is None and find("auto", ByteTokenizer()) is None
    template = find(str(file), ByteTokenizer())
    assert template is not None and template.render(HELLO) == "hi!"
    with pytest.raises(UserError, match=r"data.chat_template: no file .*own.jinj\. Did you mean 'own.jinja'"):
        find(str(file)[:-1], ByteTokenizer())
    with pytest.raises(UserError, match="holds no chat template"):
        find(str(tmp_path), ByteTokenizer())
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": 3}')
    with pytest.raises(UserError, match="tokenizer_config.json: chat_template must be a text"):
        find(str(tmp_path), ByteTokenizer())
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(UserError, match="tokenizer_config.json is damaged: not JSON"):
        find(str(tmp_path), ByteTokenizer())
    file.write_bytes(b"\xff")
    with pytest.raises(UserError, match="own.jinja: byte 1 is not UTF-8"):
        find(str(file), ByteTokenizer())


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(UserError, match=r"pip install 'rlx\[hf\]'"):
        ChatTemplate("x").render(HELLO)
