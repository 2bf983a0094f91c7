"""What strangers write is bounded: each fault is one line that names the place."""

import json

import pytest

from rlx import bounds, fields
from rlx import config as configs
from rlx.errors import UserError, close_matches, one_line

DEEP = b"[" * 100 + b"]" * 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "the key 'b' stands twice in one object"),
        (b"\xff", "byte 1 is not UTF-8"),
        (b"{", "not JSON"),
        (b'{"a": "b\0c"}', "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (DEEP, "more than 64 levels"),
        (b"9" * 5000, "not JSON .*4300"),
    ],
)
def test_json_of_strangers(text, message, tmp_path):
    with pytest.raises(bounds.Malformed, match=message):
        bounds.loads(text)
    file = tmp_path / "x.json"
    file.write_bytes(text)
    with pytest.raises(UserError, match=f"x.json is damaged: .*{message}"):
        bounds.read_object(file)


def test_many_brackets_that_are_not_deep_are_read():
    assert len(bounds.loads(json.dumps([[[]]] * 1000 + ["[" * 100]))) == 1001


def test_files_are_bounded_and_must_hold_objects(tmp_path):
    file = tmp_path / "x.json"
    file.write_text("[1]")
    with pytest.raises(UserError, match="it holds a list, not a JSON object"):
        bounds.read_object(file)
    with pytest.raises(UserError, match="holds more than 2 bytes"):
        bounds.read_bytes(file, 2)
    with pytest.raises(UserError, match="cannot be read .No such file"):
        bounds.read_bytes(tmp_path / "y.json", 2)


def test_messages_are_short_and_on_a_line():
    error = UserError("begins " + "x" * 10_000 + " ends")
    assert len(str(error)) < 2000 and str(error).startswith("begins") and str(error).endswith("ends")
    assert str(UserError("a\u2028b\x1b[2J\tc\nd")) == "a\\u2028b\\x1b[2J\tc\nd"
    assert one_line("a\u2028b\x85c\0") == "a\\u2028b\\x85c\\x00"
    assert close_matches("x" * 10_000, ["x" * 9_999]) == ""
    assert close_matches("beta", ["betta", "x" * 10_000]) == " Did you mean 'betta'?"


CONFIG = configs.ConfigDict(
    {"seed": 0, "rate": 0.5, "name": "a", "flag": True, "start": None, "stages": ("sft",), "method": {"name": "dpo"}}
).lock()
BAD = [
    ("seed", "9" * 400, "config.seed takes .*not '9999"),
    ("seed", "1e400", "config.seed takes"),
    ("seed", "nan", "config.seed takes"),
    ("rate", "nan", "config.rate takes a number within 64 bits"),
    ("start", "0x" + "f" * 60_000, "config.start: a whole number beyond 64 bits"),
    ("start", "{1, 2}", "config.start takes no value of type set"),
    ("start", "b'a'", "config.start takes no value of type bytes"),
    ("start", "{1: 2}", "the keys of a dict must be strings, not 1"),
    ("start", "(" + "[" * 90 + "]" * 90 + ")", "config.start: the value is nested too deeply"),
    ("start", "-" * 5000 + "1", "config.start: the value '----.* is nested too deeply"),
    ("start", "x" * 70_000, "a value of 70000 letters is too long"),
    ("x" * 300, "1", "is no key: names with dots"),
    ("a\nb", "1", r"config.a\\nb is no key"),
    ("seed..x", "1", "is no key"),
    ("method.x", "{'a.b': 1}", "config.method cannot have a key 'x' with the value"),
    ("seed.x", "1", "config.seed is the value 0, not a block"),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD, ids=range(len(BAD)))
def test_overrides_of_strangers(key, value, message):
    with pytest.raises(UserError, match=message) as caught:
        configs.override(CONFIG, {key: value}, parse=True)
    assert len(str(caught.value)) < 2000 and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("value", ["__import__('os').getcwd()", "10**10**10", "lambda: 1", "(" * 300, "'\\d'"])
def test_nothing_is_evaluated(value):
    found = configs.override(CONFIG, {"start": value}, parse=True).start
    assert found == (value if value != "'\\d'" else "\\d")


def test_an_unknown_option_is_shown_on_one_line():
    for argument in ("--config.a\u2028b" + "c" * 3000, "--x\x85y"):
        with pytest.raises(UserError) as caught:
            configs.parse_options([argument], "--config=FILE [--list]")
        assert len(str(caught.value)) < 500 and len(str(caught.value).splitlines()) == 1


def test_a_config_file_that_is_damaged(tmp_path):
    file = tmp_path / "config.json"
    for text, message in ((b"[1]", "holds no config: a JSON list"), (b"\xff", "holds no config"), (DEEP, "too deeply")):
        file.write_bytes(text)
        with pytest.raises(UserError, match=f"config.json .*{message}"):
            configs.read_json(file)
    with pytest.raises(UserError, match="no config"):
        configs.from_json('{"a": {"__class__": 1}}')


def test_types_of_fields():
    def refused(kind, **values):
        with pytest.raises(UserError) as caught:
            fields.check(kind, values, "config.sft")
        return str(caught.value)

    from rlx.train.settings import StageSettings

    fields.check(StageSettings, {"steps": "x"}, "config.sft", leave=int)
    fields.check(StageSettings, {"steps": 3, "until_loss": 1, "data": {}, "method": "dpo"}, "config.sft")
    assert refused(StageSettings, steps=True) == "config.sft.steps must be a whole number, not True."
    assert refused(StageSettings, steps=2**63).startswith("config.sft.steps must be a whole number")
    assert refused(StageSettings, until_loss="a") == "config.sft.until_loss must be a number or None, not 'a'."
    assert refused(StageSettings, data=[1]) == "config.sft.data must be a block of keys, not [1]."
    assert refused(StageSettings, steps=10**5000) == "config.sft.steps must be a whole number, not a value of type int."


def test_settings_of_strangers():
    from rlx import models
    from rlx.train import optimizers, rollout_plan, rollout_settings, settings

    for stages in (None, 3):
        with pytest.raises(UserError, match="config.stages must name stages"):
            settings.check({"stages": stages})
    with pytest.raises(UserError, match="optimizer.learning_rate must be a number, not None"):
        optimizers.build({"learning_rate": None}, 10)
    with pytest.raises(UserError, match="config.rl.rollout.stop must be a sequence, each item a text, not 0"):
        rollout_settings.check({"max_new_tokens": 4, "group": 2, "stop": 0}, {}, 8)
    for path in ("x" * 5000, "a\0b"):
        with pytest.raises(UserError, match="config.start names the run .*, which is no run directory"):
            rollout_plan.check_run(path, "config.start")
    for sizes, message in (
        ({"hidden_size": 0}, "model.hidden_size must be at least 1"),
        ({"num_layers": 10**9}, "model.num_layers must be at least 0 and at most 10000"),
        ({"num_heads": "2"}, "model.num_heads must be a whole number, not '2'"),
        ({"rope_theta": None}, "model.rope_theta must be a number, not None"),
        ({"name": None}, "unknown model None"),
    ):
        with pytest.raises(UserError, match=message):
            models.build(sizes)
