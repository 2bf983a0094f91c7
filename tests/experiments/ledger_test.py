"""Rows that survive kills and are computed once."""

from pathlib import Path

from experiments.ledger import Ledger

KEYS = ("config", "method", "seed")
CELLS = [{"config": "c0", "method": "dpo", "seed": seed} for seed in range(3)]


def test_rows_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    Ledger(path, KEYS).add({**CELLS[1], "reward": 0.5})
    again = Ledger(path, KEYS)
    assert again.missing(CELLS) == [CELLS[0], CELLS[2]]
    assert again.select(CELLS) == [{**CELLS[1], "reward": 0.5}]


def test_other_settings_are_computed_anew_and_left_out(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "metrics.jsonl", KEYS)
    ledger.add({**CELLS[0], "reward": 0.5})
    changed = [{**cell, "config": "c1"} for cell in CELLS]
    assert ledger.missing(changed) == changed and ledger.select(changed) == []


def test_a_half_written_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    Ledger(path, KEYS).add({**CELLS[0], "reward": 0.5})
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"config": "c0", "method": "dp')
    ledger = Ledger(path, KEYS)
    assert ledger.missing(CELLS) == CELLS[1:]
    ledger.add({**CELLS[1], "reward": float("nan")})
    assert len(Ledger(path, KEYS).rows) == 2
