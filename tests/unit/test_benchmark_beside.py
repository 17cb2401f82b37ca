"""Models beside each other: ratios are of the same turn, and the table says them."""

from __future__ import annotations

from scripts.bench.beside import Candidate, Rates, markdown


def test_a_ratio_is_of_one_turn() -> None:
    info = {"engine": "torch", "dtype": "int8"}
    large = Rates(Candidate("a/large"), info, {1: [10.0, 20.0, 40.0]})
    small = Rates(Candidate("a/small/"), info, {1: [30.0, 40.0, 100.0]}, errors=2)
    assert small.ratios(large, 1) == [2.0, 2.5, 3.0]
    *_, first, second = markdown([large, small]).splitlines()
    assert first == "| large | torch int8 | 20.0 | 0 |"
    assert second == "| small | torch int8 | 40.0 (2.50 ×, 2.00 to 3.00) | 2 |"


def test_a_precision_stands_behind_a_colon() -> None:
    assert Candidate.of("./m:int8") == Candidate("./m", "int8")
    assert Candidate.of("./m") == Candidate("./m", "auto")
    assert "engine.name=torch" in Candidate("./m", "int8").changes(2)
    assert "engine.name=auto" in Candidate("./m").changes(2)
