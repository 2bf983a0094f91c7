"""Configs: files found or named, overrides typed by what they replace, errors of one line with the close match."""

import json
import re

import pytest
from ml_collections import ConfigDict, config_dict

from rlx import config as configs
from rlx.errors import UserError

USAGE = "Usage: python -m rlx.train --config=FILE[:ARG] --workdir=DIR [--config.x.y=VALUE] [--steps=N] [--dry-run]"
FILE = """
from ml_collections import ConfigDict

def get_config(arg=None):
    config = ConfigDict(dict(seed=0, stages=("sft", "preference"), rates=(0.1, 0.2), debug=False, name="a"))
    config.data = dict(path=None, limit=None, max_prompt_length=64)
    config.method = dict(name="dpo", beta=0.1)
    config.sft = dict(steps=2 if arg == "smoke" else 100, optimizer=dict(learning_rate=1e-3, clip_norm=1.0))
    return config
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "dpo_hh.py"
    file.write_text(FILE)
    return file


@pytest.fixture
def config(path):
    return configs.load(str(path))


def message(call, *arguments, **keywords):
    with pytest.raises(UserError) as error:
        call(*arguments, **keywords)
    text = str(error.value)
    assert "\n" not in text
    return text


def parsed(config, key, text):
    """The value at `key` after an override from the command line."""
    value = configs.override(config, {key: text}, parse=True)
    for part in key.split("."):
        value = value[part]
    return value


def test_load_passes_the_argument_and_locks(path):
    assert configs.load(str(path)).sft.steps == 100
    config = configs.load(f"{path}:smoke")
    assert config.sft.steps == 2 and config.is_locked
    with pytest.raises(AttributeError, match="Did you mean"):
        config.sft.stepz = 3


def test_a_missing_file_names_its_neighbour(path):
    text = message(configs.load, str(path.with_name("dpo_h.py:smoke")))
    expected = f"config file {path.with_name('dpo_h.py')} not found. Did you mean 'dpo_hh.py'?"
    assert text == f"{expected} {path.parent} has: dpo_hh.py."
    folder = path.parent / "configs"
    missing = folder / "a.py"
    assert message(configs.load, str(missing)) == f"config file {missing} not found: there is no folder {folder}."
    assert "is not a Python file" in message(configs.load, "configs/dpo_hh")


def test_a_file_without_get_config_says_so(path):
    path.write_text("def get_confg():\n    return {}\n")
    expected = f"{path} defines no get_config(arg=None). Did you mean 'get_confg'?"
    assert message(configs.load, str(path)) == expected
    path.write_text("def get_config():\n    return 3\n")
    assert message(configs.load, str(path)) == f"get_config of {path} returned int, not a ConfigDict."
    expected = f"get_config of {path} takes no argument, but --config ends in ':smoke'."
    assert message(configs.load, f"{path}:smoke") == expected


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seed", "7", 7),
        ("seed", "1e3", 1000),
        ("seed", "-1", -1),
        ("sft.optimizer.learning_rate", "1", 1.0),
        ("sft.optimizer.learning_rate", "3e-4", 3e-4),
        ("sft.optimizer.clip_norm", "None", None),
        ("debug", "true", True),
        ("debug", "0", False),
        ("name", "3", "3"),
        ("stages", "sft", ("sft",)),
        ("stages", "sft,preference", ("sft", "preference")),
        ("stages", "('sft', 'reward')", ("sft", "reward")),
        ("rates", "1,0.5", (1.0, 0.5)),
        ("rates", "()", ()),
        ("data.path", "a/b.jsonl", "a/b.jsonl"),
        ("data.limit", "100", 100),
        ("data.limit", "none", None),
        ("method.epsilon", "0.2", 0.2),
        ("method.link", "hinge", "hinge"),
        ("method.normalise", "true", True),
    ],
)
def test_text_is_read_as_the_type_it_replaces(config, key, text, value):
    found = parsed(config, key, text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("seed", "1.5", "config.seed takes an int (it is 0), not 1.5."),
        ("seed", "x", "config.seed takes an int (it is 0), not 'x'."),
        (
            "sft.optimizer.learning_rate",
            "fast",
            "config.sft.optimizer.learning_rate takes a float (it is 0.001), not 'fast'.",
        ),
        ("debug", "maybe", "config.debug takes a bool (true or false) (it is False), not 'maybe'."),
        ("debug", "None", "config.debug takes a bool (true or false) (it is False), not 'None'."),
        ("rates", "a", "config.rates takes a sequence of floats (it is (0.1, 0.2)), not 'a'."),
        ("seed.x", "1", "config.seed is the value 0, not a block: it has no key 'x'."),
        (
            "sft.optimizer",
            "adam",
            "config.sft.optimizer is a block and cannot become 'adam': set one of its keys (clip_norm, learning_rate).",
        ),
        (
            "sft.optimizer.learning_rat",
            "1",
            "config.sft.optimizer has no key 'learning_rat'. Did you mean 'learning_rate'? "
            "config.sft.optimizer has: clip_norm, learning_rate.",
        ),
        (
            "methd.beta",
            "1",
            "config has no key 'methd'. Did you mean 'method'? "
            "config has: data, debug, method, name, rates, seed, sft, stages.",
        ),
    ],
)
def test_override_errors(config, key, text, expected):
    assert message(configs.override, config, {key: text}, parse=True) == expected


def test_a_method_is_replaced_by_its_name_or_a_block(config):
    assert configs.override(config, {"method": "ipo", "method.tau": 0.2}).method.to_dict() == {
        "name": "ipo",
        "tau": 0.2,
    }
    block = {"name": "rdpo", "epsilon": 0.2}
    assert configs.override(config, {"method": block}).method.to_dict() == block
    assert configs.override(config, {"method": "ipo"}, parse=True).method.to_dict() == {"name": "ipo"}


def test_other_blocks_are_updated_key_by_key(config):
    changed = configs.override(config, {"sft": {"steps": 3, "optimizer": {"clip_norm": 2}}})
    assert changed.sft.to_dict() == {"steps": 3, "optimizer": {"learning_rate": 1e-3, "clip_norm": 2.0}}
    assert "config.sft has no key 'step'. Did you mean 'steps'?" in message(
        configs.override, config, {"sft": {"step": 3}}
    )


def test_values_from_python_are_checked_too(config):
    assert configs.override(config, {"rates": [1, 2]}).rates == (1.0, 2.0)
    assert message(configs.override, config, {"seed": True}) == "config.seed takes an int (it is 0), not True."
    assert message(configs.override, config, {"seed": "1"}) == "config.seed takes an int (it is 0), not '1'."


def test_the_original_config_is_untouched(config):
    before = configs.to_json(config)
    configs.override(config, {"seed": 3, "method.beta": 0.5, "method.epsilon": 0.1})
    assert configs.to_json(config) == before and config.is_locked


def test_placeholders_keep_their_type():
    config = ConfigDict({"limit": config_dict.placeholder(int)})
    assert parsed(config, "limit", "3") == 3
    assert message(configs.override, config, {"limit": "x"}, parse=True).startswith("config.limit takes an int")


def test_command_lines(path):
    argv = [f"--config={path}:smoke", "--workdir", "w", "--config.method.beta=0.2", "--config.seed", "3", "--dry-run"]
    config, options = configs.parse_argv(argv, USAGE)
    assert (config.method.beta, config.seed, config.sft.steps) == (0.2, 3, 2)
    assert options == {"config": f"{path}:smoke", "workdir": "w", "steps": None, "dry_run": True}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            ["--wrkdir=w"],
            "unknown argument --wrkdir. Did you mean '--workdir'? Known: --config --workdir --steps --dry-run.",
        ),
        (["run"], "unknown argument run. Known: --config --workdir --steps --dry-run."),
        (["--config"], "--config needs a value: --config=..."),
        (["--dry-run=yes"], "--dry-run is a switch and takes no value, but got 'yes'."),
        (["--config=c.py"], "--workdir is missing: --workdir=..."),
    ],
)
def test_command_line_errors(argv, expected):
    assert message(configs.parse_options, argv, USAGE) == expected


def test_help_prints_the_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        configs.parse_options(["--help"], USAGE)
    assert stop.value.code == 0 and capsys.readouterr().out.strip() == USAGE


def test_a_command_prints_a_user_error_as_one_line(monkeypatch, capsys):
    def main(argv):
        configs.parse_options(argv, USAGE)

    monkeypatch.setattr("sys.argv", ["train", "--confg=c.py"])
    assert configs.command(main) == 2
    assert re.fullmatch(r"error: unknown argument --confg\. Did you mean '--config'\?.*\n", capsys.readouterr().err)
    assert configs.command(lambda argv: None) == 0


def test_json_is_stable_and_comes_back(config):
    text = configs.to_json(config)
    shuffled = dict(reversed(list(json.loads(text).items())))
    assert configs.to_json(shuffled) == text
    again = configs.from_json(text)
    assert again.stages == ("sft", "preference") and again.is_locked
    assert configs.to_json(again) == text
    assert configs.diff(config, again) == {}


def test_a_config_of_a_stranger_has_keys_that_a_line_can_say():
    with pytest.raises(UserError, match=re.escape(r"no config: the key 'two\\nlines' is no name")):
        configs.from_json('{"data": {"two\\nlines": 1}}')


def test_the_hash_follows_values_not_order(config):
    same = ConfigDict(dict(reversed(list(config.to_dict().items()))))
    assert configs.config_hash(config) == configs.config_hash(same)
    assert configs.config_hash(config) != configs.config_hash(configs.override(config, {"seed": 1}))


def test_diff_names_what_changed(config):
    changed = configs.override(config, {"method": "ipo", "seed": 2})
    found = configs.diff(config, changed)
    assert found == {"method.beta": (0.1, configs.ABSENT), "method.name": ("dpo", "ipo"), "seed": (0, 2)}
    assert configs.describe(found) == "method.beta: 0.1 -> (absent), method.name: dpo -> ipo, seed: 0 -> 2"


def test_rollouts_take_keys_that_the_file_does_not_list():
    config = ConfigDict({"rl": {"rollout": {"group": 8}}})
    wanted = {"rl.rollout.keep": "4", "rl.rollout.forks.num_forks": "3", "rl.rollout.control.kl": "adaptive_kl(0.1)"}
    rollout = configs.override(config, wanted, parse=True).rl.rollout.to_dict()
    assert rollout == {"group": 8, "keep": 4, "forks": {"num_forks": 3}, "control": {"kl": "adaptive_kl(0.1)"}}
    assert "config.rl has no key 'steps'" in message(configs.override, config, {"rl.steps": "1"})


def test_a_stage_takes_a_block_that_the_file_does_not_list(config):
    found = configs.override(config, {"sft.packing.multiple": "8"}, parse=True)
    assert found.sft.packing.to_dict() == {"multiple": 8}
    found = configs.override(config, {"policies.reference.dtype": "bfloat16"}, parse=True)
    assert found.policies.to_dict() == {"reference": {"dtype": "bfloat16"}}
    assert "config.sft has no key 'pack'" in message(configs.override, config, {"sft.pack.multiple": "8"})


def test_what_a_run_does_about_faults_need_not_be_listed(config):
    found = configs.override(config, {"explode": "1e3", "checksums": "false", "on_nan": "skip"}, parse=True)
    assert (found.explode, found.checksums, found.on_nan) == (1000.0, False, "skip")


def test_long_values_are_shown_where_they_begin_to_differ():
    records = [{"prompt": "p" * 200, "responses": ["a", "b" * 300]} for _ in range(50)]
    other = [dict(record) for record in records]
    other[7] = other[7] | {"responses": ["a", "b" * 299 + "c"]}
    old = {"data": {"records": records, "path": "/data/" + "deep/" * 40 + "train.jsonl"}, "stages": ["sft", "rl"]}
    new = {"data": {"records": other, "path": "/data/" + "deep/" * 40 + "test.jsonl"}, "stages": ["sft"]}
    told = configs.describe(configs.diff(old, new))
    assert "data.path: .../deep/deep/train.jsonl -> .../deep/deep/test.jsonl" in told
    assert "data.records[7].responses[1]: ...bbbbbbbbbbbbb -> ...bbbbbbbbbbbbc" in told
    assert "stages: ('sft', 'rl') -> ('sft',)" in told and len(told) < 300
    told = configs.describe(configs.diff({"records": records}, {"records": records[:-1]}))
    assert told == "records: 50 -> 49 items"
    many = configs.describe({f"key_{i}": (i, -i) for i in range(30)})
    assert many.endswith("key_11: 11 -> -11, and 18 more") and "\n" not in many
