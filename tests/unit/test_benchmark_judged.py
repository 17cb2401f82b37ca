"""Accuracy beside speed: what the table says, and that both are drawn."""

from __future__ import annotations

import csv
from pathlib import Path

from scripts.bench.beside import Candidate, Rates
from scripts.bench.judged import as_json, draw, judged, markdown
from scripts.bench.plots import THEMES


def test_models_are_judged_in_the_precision_that_they_are_served_in(
    demo_model: Path, tmp_path: Path
) -> None:
    table = tmp_path / "held.csv"
    texts = {"positive": "质量不错很满意", "negative": "太差了不会再买"}
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = [(f"第{i}次{text}", label) for i in range(20) for label, text in texts.items()]
        csv.writer(file).writerows([("text", "label"), *rows])
    (figure,) = judged([Candidate(str(demo_model), "float32")], table)
    assert (figure["macro_f1"], figure["agreement"], figure["texts"]) == (1.0, 1.0, 40)

    info = {"engine": "torch", "dtype": "float32"}
    rates = Rates(Candidate(f"{demo_model}/", "float32"), info, {16: [10.0, 30.0, 20.0]})
    last = markdown([rates], [figure]).splitlines()[-1]
    assert last == "| demo | torch float32 | 1.000 [1.000, 1.000] | 100.0% | 100.0% |"
    told = as_json([rates], [figure], "Reviews")
    assert told["models"][0]["requests_per_s"] == {"16": 20.0}
    left, right = draw([told, told], 16, THEMES[0]).axes
    assert left.get_title() == "Reviews"
    assert [text.get_text() for text in right.texts] == ["demo float32"]
