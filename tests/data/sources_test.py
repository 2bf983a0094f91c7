"""Files are read line by line within bounds; what is wrong is named by file and line, or skipped and counted."""

import gzip
import json

import pytest

from rlx.data import sources
from rlx.data.formats import Parser, Record
from rlx.data.sources import MemorySource, Rows, find_file, jsonl_rows, memory_rows
from rlx.errors import UserError

GOOD = b'{"prompt": "p", "chosen": "c", "rejected": "r"}'
RECORD = Record("p", ("c", "r"))


def read(path, *, skip=False, limit=None, kind="pairs"):
    return Rows(jsonl_rows(path), Parser("auto"), kind, skip=skip, limit=limit, origin=str(path))


@pytest.fixture
def write(tmp_path):
    def make(*lines, name="data.jsonl", end=b"\n"):
        path = tmp_path / name
        content = end.join(lines)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return make


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n"])
def test_rows_of_a_file(write, name, end):
    assert list(read(write(GOOD, GOOD, b"", name=name, end=end))) == [RECORD, RECORD]


def test_a_byte_order_mark_is_no_content(write):
    assert list(read(write(b"\xef\xbb\xbf" + GOOD))) == [RECORD]


BAD = [
    (b"{oops", "not JSON"),
    (b"[1]", "expected an object"),
    (b"\xff\xfe", "byte 1 of the line is not UTF-8"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"prompt": "p", "chosn": "c", "rejected": "r"}', "no field 'chosen' .* Did you mean 'chosn'"),
    (b'{"prompt": "p", "chosen": "", "rejected": "r"}', "field 'chosen' is empty"),
    (b'{"prompt": "p", "chosen": 1, "rejected": "r"}', "field 'chosen' must be a string, found int 1"),
    (b'{"prompt": "p", "prompt": "q", "chosen": "c", "rejected": "r"}', "the key 'prompt' stands twice"),
    (b'{"prompt": "p", "chosen": ' + b"[" * 90 + b"]" * 90 + b', "rejected": "r"}', "more than 64 levels"),
    (b'{"prompt": "p", "chosen": "c", "rejected": ' + b"9" * 5000 + b"}", "not JSON .*4300 digits"),
    (b'{"prompt": "p", "chosen": "c\0", "rejected": "r"}', "not JSON"),
    (
        b'{"prompt": "p", "chosen": {"' + b"k" * 99 + b'": 1}, "rejected": "r"}',
        "must be a string, found dict ..k+[.]{4}$",
    ),
    (b"{" + b",".join(b'"k%d": 0' % i for i in range(5000)) + b"}", "no field 'prompt' among .{400,500} Rename"),
    (b'{"prompt": "' + b"x" * 400_000 + b'"}', "longer than 300000 bytes"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[message[:20] for _, message in BAD])
def test_a_bad_row_is_named_by_file_and_line_or_skipped(write, monkeypatch, line, message):
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 300_000)
    path = write(GOOD, b"", line, GOOD)
    with pytest.raises(UserError, match=f"data.jsonl:3: .*{message}"):
        list(read(path))
    rows = read(path, skip=True)
    assert list(rows) == [RECORD, RECORD]
    assert rows.skipped == 1
    assert "data.jsonl:3: " in rows.reasons[0]


def test_a_line_as_long_as_the_bound_is_read(write, monkeypatch):
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", len(GOOD))
    assert list(read(write(GOOD, GOOD, GOOD))) == [RECORD] * 3


def test_auto_skips_to_the_first_usable_row(write):
    rows = read(write(b"{oops", GOOD), skip=True)
    assert list(rows) == [RECORD]
    assert rows.skipped == 1


def test_the_first_row_may_be_the_misspelt_one(write):
    with pytest.raises(UserError, match="data.jsonl:1: no format for 'pairs' .* Did you mean 'chosn'"):
        list(read(write(GOOD.replace(b"chosen", b"chosn"))))


def test_no_usable_row(write):
    with pytest.raises(UserError, match="data.jsonl holds no usable row \\(0 skipped\\)"):
        list(read(write(b"")))
    with pytest.raises(UserError, match="no usable row \\(2 skipped; the first: .*data.jsonl:1: not JSON"):
        list(read(write(b"x", b"y"), skip=True))


def test_a_gzip_file_that_is_cut_off_or_damaged(write):
    lines = [json.dumps({"prompt": str(i**9), "chosen": "c", "rejected": "r"}).encode() for i in range(2000)]
    path = write(*lines, name="data.jsonl.gz")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:500] + b"\0" * 50 + whole[550:], whole[:-8] + b"\0" * 8):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"data.jsonl.gz:\d+: the gzip file is damaged or cut off .* get it again"):
            list(read(path, skip=True))


def test_the_file_is_bounded(write, monkeypatch):
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 100)
    with pytest.raises(UserError, match="holds more than 100 bytes: set data.limit"):
        list(read(write(*[GOOD] * 5)))
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 20)
    with pytest.raises(UserError, match="holds more than 100 bytes"):
        list(read(write(b"x" * 1000), skip=True))


def test_limit_counts_usable_rows_and_reads_no_further(write):
    path = write(GOOD, b"{oops", GOOD, b"{never seen")
    rows = read(path, skip=True, limit=2)
    assert list(rows) == [RECORD, RECORD]
    assert rows.skipped == 1


def test_files_are_found_or_named(write, tmp_path):
    path = write(GOOD)
    assert find_file(str(path)) == path
    with pytest.raises(UserError, match="no file .*dota.jsonl. Did you mean 'data.jsonl'"):
        find_file(tmp_path / "dota.jsonl")
    with pytest.raises(UserError, match="is a folder; name a .jsonl"):
        find_file(tmp_path)


def test_records_in_memory_are_named_by_number():
    rows = [json.loads(GOOD), {"prompt": "p", "chosen": "c"}]
    with pytest.raises(UserError, match=r"data.records\[1\]: no field 'rejected'"):
        MemorySource(Rows(memory_rows(rows), Parser("pairs"), "pairs", skip=False, limit=None, origin="data.records"))


def test_numbers_that_no_float_holds(write):
    line = b'{"prompt": "p", "chosen": "c", "rejected": "r", "rewards": [1, %s]}'
    for number in (b"9" * 400, b"1e39", b"NaN", b"-Infinity", b"null", b"[1]"):
        rows = jsonl_rows(write(line % b"2", line % number))
        parser = Parser("auto", arrays={"rewards": "rewards"})
        with pytest.raises(UserError, match="data.jsonl:2: field 'rewards' must hold 2 numbers, one per response"):
            list(Rows(rows, parser, "pairs", skip=False, limit=None, origin="data"))
