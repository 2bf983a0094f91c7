"""``rlx.generate``: text from a checkpoint."""

import pytest

from rlx import generate
from rlx.errors import UserError
from rlx.train.restore import restore


def test_greedy_generation_is_a_function_of_the_prompt(finished):
    checkpoint = restore(finished)
    texts = generate.generate(checkpoint, ["a:", "longer than the prompt may be"], max_new_tokens=4, temperature=0)
    assert len(texts) == 2 and all(isinstance(text, str) for text in texts)
    assert texts[:1] == generate.generate(checkpoint, ["a:"], max_new_tokens=4, temperature=0, seed=7)


def test_the_command_prints_the_response(finished, capsys):
    arguments = [f"--checkpoint={finished}", "--prompt=a:", "--max_new_tokens=4", "--seed=1"]
    assert generate.cli(arguments) == 0
    first = capsys.readouterr().out
    assert generate.cli(arguments) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--temperature=warm", "--temperature takes a number, not 'warm'"),
        ("--max_new_tokens=0", "--max_new_tokens=0 is too small"),
        ("--tempreature=1", "Did you mean '--temperature'"),
    ],
)
def test_mistakes_are_named(finished, capsys, argument, message):
    assert generate.cli([f"--checkpoint={finished}", "--prompt=a", argument]) == 2
    assert message in capsys.readouterr().err


def test_a_chat_needs_a_template_and_is_written_by_it(finished, tmp_path, capsys, monkeypatch):
    assert generate.cli([f"--checkpoint={finished}", "--prompt=a", "--chat"]) == 2
    assert "--chat: the tokenizer of this run has no chat template" in capsys.readouterr().err
    checkpoint = restore(finished)
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages[0].content }}{% if add_generation_prompt %}:{% endif %}")
    monkeypatch.setitem(checkpoint.stage.data, "chat_template", str(template))
    greedy = {"max_new_tokens": 4, "temperature": 0}
    assert len(generate.generate(checkpoint, ["a"], chat=True, **greedy)) == 1
    with pytest.raises(UserError, match="--chat: .*refuses the messages: no"):
        template.write_text("{{ raise_exception('no') }}")
        generate.generate(checkpoint, ["a"], chat=True, **greedy)
