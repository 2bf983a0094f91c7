"""The check on a config of the user's own: it passes where a run resumes, and says what differs where it does not."""

import pytest

from rlx.errors import UserError
from rlx.train import check_resume as module
from rlx.train.check_resume import RUNS, check_resume
from rlx.train.main import cli
from rlx.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_model")


def command(tmp_path, config, *options):
    (tmp_path / "config.py").write_text(f"def get_config():\n    return {config!r}\n")
    return ["--check-resume", f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'run'}", *options]


def test_a_run_that_resumes_passes_and_leaves_nothing(tiny, tmp_path, capsys):
    config = tiny()
    config["sft"] = config["sft"] | {"steps": 50, "optimizer": config["sft"]["optimizer"] | {"warmup_steps": 20}}
    assert cli(command(tmp_path, config, "--steps=3")) == 0
    out = capsys.readouterr().out
    assert "An interrupted run ends with the same bits." in out and out.count("the same bits") == 5 * 2 + 1
    assert [path.name for path in tmp_path.iterdir()] == ["config.py"], "no folder of a run or of the check"


def test_what_a_resume_forgets_is_named(tiny, tmp_path, capsys, monkeypatch):
    """A trainer that loses its place in the data, as a broken iterator state would."""
    stage = Trainer._stage

    def forgetful(self, which, loggers, notes):
        notes = notes and notes | {"iterator": notes["iterator"] | {"next": 0}}
        return stage(self, which, loggers, notes)

    monkeypatch.setattr(Trainer, "_stage", forgetful)
    assert cli(command(tmp_path, tiny(), "--steps=2")) == 1
    out = capsys.readouterr().out
    folder = tmp_path / "run.check_resume"
    assert f"data order: sft 2 differs between {folder}/straight and {folder}/resumed" in out
    assert "Two straight runs are the same, and the interrupted one is not" in out and "metrics.jsonl" in out
    assert sorted(path.name for path in folder.iterdir()) == sorted(RUNS), "to look into"


def test_a_device_that_is_not_deterministic_is_told_from_a_wrong_resume(tmp_path, capsys):
    same = {"data order": [], "metrics of a step": []}
    module._show(same | {"metrics of a step": ["sft 2"]}, same | {"metrics of a step": ["sft 1"]}, tmp_path)
    out = capsys.readouterr().out
    assert "Two straight runs differ: the device or a function of the config is not deterministic" in out
    assert "1 differ, sft 2 first" in out and "the same bits" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--check-resume", "--steps=1"], "--steps=1 must be a whole number of at least 2"),
        (["--check-resume", "--steps=many"], "--steps takes a whole number, not 'many'"),
        (["--steps=3"], "--steps is not used: it goes with --check-resume"),
    ],
)
def test_mistakes_are_named(tiny, tmp_path, capsys, options, message):
    assert cli([*command(tmp_path, tiny())[1:], *options]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_of_something_else_is_left_alone(tiny, tmp_path):
    precious = tmp_path / "run.check_resume" / "thesis"
    precious.mkdir(parents=True)
    with pytest.raises(UserError, match="holds thesis, which is of no check"):
        check_resume(tiny(), tmp_path / "run")
    assert precious.is_dir()
