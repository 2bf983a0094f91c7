"""Disks that are full, read-only, gone or broken: one line says so, and the last good state is as it was."""

import errno
import os
import re
import subprocess
import sys

import pytest

from rlx.report.loggers import JsonlLogger
from rlx.report.rows import read_rows, write_atomically
from rlx.train.interrupts import Stopped
from rlx.train.main import cli, train
from rlx.train.storage import StorageError, reason
from tests.train.main_test import assert_same_run


def may_mount():
    """Whether anybody may mount in a namespace of his own here; many containers do not let him."""
    try:
        return subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0
    except OSError:
        return False


WAYS = {"file size limit": "File too large"} | ({"small disk": "No space left on device"} if may_mount() else {})
"""How a disk fills up in these tests, and what it says: anybody may limit the size of files."""


LIMITED = (
    "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    "runpy.run_module('rlx.train', run_name='__main__')"
)


def write_config(config, folder):
    path = folder / "config.py"
    path.write_text(f"def get_config():\n    return {config!r}\n")
    return path


def run_full(way, config_file, workdir, space):
    """Runs the command where the second checkpoint does not fit; what it leaves is in ``workdir``."""
    options = [f"--config={config_file}", f"--workdir={workdir if way == 'file size limit' else space}"]
    if way == "file size limit":
        return subprocess.run([sys.executable, "-c", LIMITED, *options], capture_output=True, text=True)
    space.mkdir()
    script = (
        'mount -t tmpfs -o size=300k none "$SPACE"; cp -a "$WORKDIR/." "$SPACE"; code=0; "$@" || code=$?; '
        'rm -r "$WORKDIR"; cp -a "$SPACE" "$WORKDIR"; exit $code'
    )
    names = {"SPACE": str(space), "WORKDIR": str(workdir)}
    whole = ["unshare", "-rm", "sh", "-ec", script, "sh", sys.executable, "-m", "rlx.train", *options]
    return subprocess.run(whole, env=os.environ | names, capture_output=True, text=True)


@pytest.mark.parametrize("way", WAYS)
def test_a_full_disk_stops_the_real_command_which_goes_on_once_there_is_room(finished, tiny, tmp_path, way):
    workdir = tmp_path / "run"
    with pytest.raises(Stopped):
        train(tiny(), workdir, stop=lambda stage, step: True)
    found = run_full(way, write_config(tiny(), tmp_path), workdir, tmp_path / "space")
    *_, last = found.stderr.strip().split("\n")
    assert found.returncode == 2, found.stderr
    assert last.startswith("error: cannot write ") and f"00000002: {WAYS[way]}." in last
    assert "The last good checkpoint is that of step 1 (" in last and "the same command goes on from it" in last
    assert "Traceback" not in found.stderr
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["00000001"], (
        "nothing half-written, nothing lost"
    )
    train(tiny(), workdir)
    assert_same_run(workdir, finished)


def test_a_read_only_folder_is_left_as_it_was(tiny, tmp_path, capfd):
    workdir = tmp_path / "run"
    workdir.mkdir()
    options = [f"--config={write_config(tiny(), tmp_path)}", f"--workdir={workdir}"]
    if may_mount():
        script = 'mount --bind "$W" "$W"; mount -o remount,bind,ro "$W"; exec "$@"'
        command = ["unshare", "-rm", "sh", "-ec", script, "sh", sys.executable, "-m", "rlx.train", *options]
        code = subprocess.run(command, env=os.environ | {"W": str(workdir)}).returncode
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rlx.lock.os.open", refusing(errno.EROFS))
            code = cli(options)
    assert code == 2 and not list(workdir.iterdir())
    assert capfd.readouterr().err == f"error: cannot write {workdir}/.train.lock: Read-only file system.\n"


def test_a_lost_mount_is_missed_at_once_and_nothing_is_written_in_its_place(finished, tiny, tmp_path):
    workdir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"

    def lose(stage, step):
        if (stage, step) == ("sft", 2):  # before its checkpoint
            workdir.rename(elsewhere)
            workdir.mkdir()  # the mount point
        return False

    with pytest.raises(
        StorageError, match=r"run is no longer the folder .* \(unmounted, or moved\)\. No checkpoint has"
    ):
        train(tiny(), workdir, stop=lose)
    assert not list(workdir.iterdir())
    workdir.rmdir()
    elsewhere.rename(workdir)
    train(tiny(), workdir)
    assert_same_run(workdir, finished)


def refusing(number):
    """Stands for a system call that the disk refuses."""

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    return refuse


PLACES = [
    ("rlx.train.workdir.write_atomically", errno.EROFS, r"cannot write .*config\.json: Read-only file system\.$"),
    (
        "rlx.train.manifest.write",
        errno.ENOSPC,
        "cannot write .*00000002: No space left on device. No checkpoint",
    ),
    ("rlx.report.loggers.os.write", errno.EIO, r"cannot use .*metrics\.jsonl: Input/output error\. No checkpoint has"),
    (
        "rlx.train.manifest.sync_folder",
        errno.EDQUOT,
        "cannot write .*0000000[23]: Disk quota exceeded. No checkpoint",
    ),
    (
        "rlx.report.run_report.plots.curves",
        errno.EACCES,
        "cannot use .*run: Permission denied. The last .* step 6 ",
    ),
]


def test_what_is_refused_is_named_and_the_same_command_goes_on_afterwards(finished, tiny, tmp_path, capsys):
    workdir = tmp_path / "run"
    command = [f"--config={write_config(tiny(), tmp_path)}", f"--workdir={workdir}"]
    for place, number, message in PLACES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place, refusing(number))
            assert cli(command) == 2
        said = capsys.readouterr().err.strip().split("\n")[-1]
        assert said.startswith("error: ") and re.search(message, said), said
        assert not list(workdir.rglob("*tmp*")), "nothing half-written stays"
    train(tiny(), workdir)
    assert_same_run(workdir, finished)


def test_a_cache_that_cannot_be_written_stops_the_run(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("rlx.train.reference.np.savez", refusing(errno.ENOSPC))
    with pytest.raises(StorageError, match=r"No space left on device\. The last good checkpoint is that of step 3"):
        train(tiny(reference="cached"), tmp_path / "run")


def test_a_file_in_the_place_of_a_folder(tiny, tmp_path):
    (tmp_path / "checkpoints").write_text("")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StorageError, match=r"cannot write .*00000002: File exists\. No checkpoint has been saved"):
        train(tiny(), tmp_path, force=True)
    other = tmp_path / "other"
    (other / ".train.lock").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"cannot write .*other/\.train\.lock: Is a directory\."):
        train(tiny(), other)


def test_a_full_device_refuses_a_row_by_name(tmp_path):
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    logger.write(1, "sft", "train", {"loss": 1.0})
    descriptor = os.dup(logger._descriptor)
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), logger._descriptor)
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"):
        logger.write(2, "sft", "train", {"loss": 1.0})
    os.dup2(descriptor, logger._descriptor)
    os.close(descriptor)
    (tmp_path / "metrics.jsonl").rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
        logger.write(3, "sft", "train", {"loss": 1.0})
    logger.close()


def test_a_half_written_line_is_finished(tmp_path, monkeypatch):
    logger, write = JsonlLogger(tmp_path / "metrics.jsonl"), os.write
    monkeypatch.setattr("rlx.report.loggers.os.write", lambda descriptor, data: write(descriptor, data[:7]))
    logger.write(1, "sft", "train", {"loss": 1.0})
    logger.close()
    assert read_rows(tmp_path / "metrics.jsonl") == [{"stage": "sft", "step": 1, "split": "train", "loss": 1.0}]


def test_a_file_that_is_not_written_whole_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "table.md"
    write_atomically(path, "old")
    monkeypatch.setattr("rlx.report.rows.os.fsync", refusing(errno.ENOSPC))
    with pytest.raises(OSError, match=r"No space left on device: '.*table\.md'"):
        write_atomically(path, "new")
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == ["table.md"]


def test_the_words_of_other_libraries_are_understood():
    outer = RuntimeError("saving failed")
    outer.__cause__ = ValueError("RESOURCE_EXHAUSTED: Failed to write 16104 bytes: No space left on device [28]")
    assert reason(outer) == "No space left on device"
    assert reason(RuntimeError("a mistake")) == ""
