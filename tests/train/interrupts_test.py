"""Wishes to stop: by signal, and by a file; the run saves, ends with 0, and goes on to the same bits."""

import os
import signal

import pytest

from rlx.train.agreement import WISHES
from rlx.train.interrupts import SIGNALS, STOP, Interrupts, Stopped
from rlx.train.main import train
from tests.train.main_test import assert_same_run, start, wait_for_rows


def test_the_notice_of_a_scheduler_saves_and_exits_with_0(finished, tiny, tmp_path):
    config_file, workdir = tmp_path / "config.py", tmp_path / "run"
    config_file.write_text(f"def get_config():\n    return {tiny()!r}\n")
    process = start(config_file, workdir)
    wait_for_rows(process, workdir / "metrics.jsonl", 1)
    process.send_signal(signal.SIGUSR1)
    assert "SIGUSR1: saved step" in process.communicate()[1]
    assert process.returncode == 0 and list((workdir / "checkpoints").glob("0*"))
    train(tiny(), workdir)
    assert_same_run(workdir, finished)


def test_a_file_asks_for_the_same_and_is_gone_afterwards(finished, tiny, tmp_path):
    def ask(stage, step):
        if step == 1:
            (tmp_path / STOP).touch()
        return False

    with pytest.raises(Stopped, match="STOP: saved step 1 of the stage 'sft'; the same command goes on from it"):
        train(tiny(), tmp_path, stop=ask)
    assert not (tmp_path / STOP).exists()
    train(tiny(), tmp_path)
    assert_same_run(tmp_path, finished)


def test_each_wish_is_one_that_processes_can_agree_on(tmp_path):
    assert {STOP, *(number.name for number in SIGNALS)} <= set(WISHES)
    for number in SIGNALS:
        before = signal.getsignal(number)
        with Interrupts(tmp_path / STOP) as interrupts:
            assert interrupts.requested == ""
            os.kill(os.getpid(), number)
            assert interrupts.requested == number.name
        assert signal.getsignal(number) is before
    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
