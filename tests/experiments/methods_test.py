"""METHODS.md is what the catalogue and the vectors say."""

from experiments import methods


def test_methods_md_is_current():
    committed = (methods.ROOT / "METHODS.md").read_text()
    assert committed == methods.render(), "METHODS.md is out of date: run `python -m experiments.methods`"


def test_every_name_has_vectors_or_says_that_it_has_none():
    for name, entry in methods.catalog.CATALOG.items():
        missing = [v for v in entry.vectors or (name,) if not (methods.VECTORS / f"{v}.json").exists()]
        assert not missing or entry.provenance == "equation", f"{name}: no vector file {missing}"


def test_cells_cannot_break_a_row():
    assert methods.cell("a|b") == "a\\|b"
