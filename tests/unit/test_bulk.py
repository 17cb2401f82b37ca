"""`rayclassify classify TABLE`: real commands, files and HTTP; the model is a stand-in."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from api.stand_in import LengthClassifier
from test_client import serving
from typer.testing import CliRunner, Result

from deployments.bulk import parts
from deployments.cli import app
from deployments.http.app import create_app
from deployments.settings import LimitSettings
from rayclassify_client.asking import BATCH_SIZE, CONCURRENCY


class Model(LengthClassifier):
    """Also fails on one text, and may be made slow."""

    pause_s = 0.0

    async def classify_inputs(self, inputs: Any, timeout_s: Any = None) -> Any:
        import asyncio

        await asyncio.sleep(self.pause_s)
        return await super().classify_inputs(inputs, timeout_s)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture(scope="module")
def url(model: Model) -> Iterator[str]:
    with serving(create_app(model, LimitSettings(max_text_chars=1_000))) as address:
        yield address


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROWS", 10)


def run(*args: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["classify", *map(str, args)], input=stdin)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(path: Path, n: int = 35) -> list[dict[str, str]]:
    """A csv with quotes, commas, line ends and Chinese in it."""
    rows = [
        {"id": str(i), "review": f'第{i}条, "好"\n{"很" * (i % 9)}', "note": ""} for i in range(n)
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "review", "note"])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def told(text: str) -> str:
    return "long" if len(text) > 10 else "short"


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.jsonl", "out.parquet", "out.csv.gz"])
def test_a_table_keeps_its_rows_order_and_columns(url: str, tmp_path: Path, name: str) -> None:
    rows = table(tmp_path / "in.csv")
    out = tmp_path / name
    result = run(tmp_path / "in.csv", "--text-column", "review", "-o", out, "--url", url)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.csv", name])
    if name.endswith("parquet"):
        got = pq.read_table(out).to_pylist()
    elif name.endswith("jsonl"):
        got = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    else:
        content = gzip.decompress(out.read_bytes()) if name.endswith("gz") else out.read_bytes()
        with io.StringIO(content.decode(), newline="") as file:
            got = list(csv.DictReader(file, delimiter="\t" if name.endswith("tsv") else ","))
    assert [{**row, "score": float(row["score"])} for row in got] == [
        {**row, "label": told(row["review"]), "score": 1.0} for row in rows
    ]


def test_parquet_keeps_its_types(url: str, tmp_path: Path) -> None:
    source = pa.table(
        {"n": pa.array([1, None, 3], pa.int16()), "t": ["a", "b" * 11, None], "l": [[1], [], None]}
    )
    pq.write_table(source, tmp_path / "in.parquet")
    add = ("--add", "label,scores,tokens,truncated,labels")
    out = tmp_path / "o.parquet"
    result = run(tmp_path / "in.parquet", "--text-column", "t", "-o", out, "--url", url, *add)
    assert result.exit_code == 1  # a row without a text
    got = pq.read_table(out)
    assert got.select(["n", "t", "l"]).equals(source)
    assert got["label"].to_pylist() == ["short", "long", None]
    assert json.loads(got["scores"][1].as_py()) == {"long": 1.0, "short": 0.0}
    assert got["tokens"].to_pylist() == [1, 11, None]
    assert got.schema.field("truncated").type == pa.bool_()
    (bad,) = (tmp_path / "o.parquet.bad.jsonl").read_text().splitlines()
    assert json.loads(bad) == {"row": 3, "code": "unreadable", "reason": "t is missing."}


def test_bad_rows_are_named_and_the_others_are_not_disturbed(url: str, tmp_path: Path) -> None:
    lines = [
        '{"t": "good"}', "", "[1]", "{", '{"t": 7}', '{"t": "  "}', '{"t": "' + "x" * 1_001 + '"}',
        '{"t": "more", "deep": {"a": [1]}}',
    ]  # fmt: skip
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "out.jsonl"
    result = run(tmp_path / "in.jsonl", "--text-column", "t", "-o", out, "--url", url)
    assert result.exit_code == 1
    got = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["label"] for row in got] == ["short", *[None] * 6, "short"]
    assert got[-1]["deep"] == {"a": [1]}
    bad = [json.loads(line) for line in (tmp_path / "out.jsonl.bad.jsonl").read_text().splitlines()]
    assert [one["row"] for one in bad] == [2, 3, 4, 5, 6, 7]
    codes = ["unreadable"] * 4 + ["empty_text", "text_too_long"]
    assert [one["code"] for one in bad] == codes
    assert "line 4 is no JSON" in bad[2]["reason"]
    assert "6 rows have no label" in result.output


def test_a_row_with_too_few_fields_is_a_bad_row(url: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("t,u\na,b\nc\nd,e,f\ng,h\n")
    out = tmp_path / "out.csv"
    result = run(tmp_path / "in.csv", "--text-column", "t", "-o", out, "--url", url)
    assert result.exit_code == 1
    assert [row["label"] for row in rows_of(out)] == ["short", "", "", "short"]
    bad = (tmp_path / "out.csv.bad.jsonl").read_text()
    assert "line 3 has 1 fields; the header has 2" in bad


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a;t\na;b\n", "separate fields by commas, not by semicolons"),
        (b"t\na\n\xff\xfe\n", "line 3 is not utf-8"),
        (b't\na\n"open\nand on\n', "line 4"),
        (b"", "the file is empty"),
        (b"t,t\na,b\n", "two columns have the same name"),
        (b"x\na\n", "there is no column t. The columns are x."),
        (b"t,label\na,b\n", "--prefix"),
    ],
)
def test_what_can_not_be_read_is_named_by_line(
    url: str, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    out = tmp_path / "out.csv"
    result = run(tmp_path / "in.csv", "--text-column", "t", "-o", out, "--url", url)
    assert result.exit_code == 2
    assert said in result.output.replace("\n", " ")
    assert not out.exists()


def test_another_encoding_and_stdin(url: str, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    content = "评论\n很好很好很好很好很好很好\n差\n".encode("gb18030")
    options = ("--input-format", "csv", "--encoding", "gb18030", "--url", url)
    result = run("-", "--text-column", "评论", "-o", out, *options, stdin=content)
    assert result.exit_code == 0, result.output
    assert [(row["评论"][0], row["label"]) for row in rows_of(out)] == [
        ("很", "long"), ("差", "short")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("in.csv", ("--encoding", "utf9"), "there is no encoding 'utf9'"),
        ("in.xlsx", (), "Say --input-format csv, tsv"),
    ],
)
def test_what_a_table_is_can_be_said(
    tmp_path: Path, name: str, options: tuple[str, ...], said: str
) -> None:
    (tmp_path / name).write_text("t\na\n")
    out = tmp_path / "out.csv"
    result = run(tmp_path / name, "--text-column", "t", "-o", out, *options)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_packed_files_are_read(url: str, tmp_path: Path) -> None:
    content = b"t\n" + b"a\n" * 25
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(content))
    (tmp_path / "in.csv.zst").write_bytes(pa.Codec("zstd").compress(content, asbytes=True))
    for name in ("in.csv.gz", "in.csv.zst"):
        out = tmp_path / f"{name}.csv"
        result = run(tmp_path / name, "--text-column", "t", "-o", out, "--url", url)
        assert result.exit_code == 0, result.output
        assert len(rows_of(out)) == 25
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(os.urandom(9_000))[:4_000])
    out = tmp_path / "cut.csv"
    result = run(tmp_path / "cut.csv.gz", "--text-column", "t", "-o", out, "--url", url)
    assert result.exit_code == 2


def test_pairs(url: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\nxxxxxx,yyyyyy\nx,y\n")
    out = tmp_path / "out.csv"
    columns = ("--text-column", "a", "--pair-column", "b")
    assert run(tmp_path / "in.csv", *columns, "-o", out, "--url", url).exit_code == 0
    assert [row["label"] for row in rows_of(out)] == ["long", "short"]


def test_an_output_that_is_there_is_left_alone(url: str, tmp_path: Path) -> None:
    table(tmp_path / "in.csv", 3)
    out = tmp_path / "out.csv"
    out.write_text("mine")
    asked = (tmp_path / "in.csv", "--text-column", "review", "-o", out, "--url", url)
    result = run(*asked)
    assert result.exit_code == 2
    assert "--force" in result.output
    assert out.read_text() == "mine"
    assert run(*asked, "--force").exit_code == 0
    assert len(rows_of(out)) == 3


def test_a_service_that_is_not_there_stops_it_and_nothing_is_lost(url: str, tmp_path: Path) -> None:
    rows = table(tmp_path / "in.csv")
    out = tmp_path / "out.csv"
    asked = (tmp_path / "in.csv", "--text-column", "review", "-o", out, "--url")
    result = run(*asked, "http://127.0.0.1:9")
    assert result.exit_code == 3
    assert "start the command again" in result.output.replace("\n", " ")
    assert not out.exists()
    assert run(*asked, url).exit_code == 0
    assert len(rows_of(out)) == len(rows)


@pytest.mark.parametrize("kind", [pytest.param("csv", marks=pytest.mark.trials), "parquet"])
def test_killed_and_started_again_it_goes_on_where_it_was(
    url: str, model: Model, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9, three times: no row twice, none missing, never half a file."""
    rows = table(tmp_path / "in.csv", 3_000)
    out = tmp_path / f"out.{kind}"
    code = (
        "from deployments.bulk import parts; parts.ROWS = 100;"
        "from deployments.cli import app; app()"
    )
    asked = ["classify", str(tmp_path / "in.csv"), "--text-column", "review", "-o", str(out)]
    command = [sys.executable, "-c", code, *asked, "--url", url]
    folder = tmp_path / f"{out.name}.parts"
    monkeypatch.setattr(model, "pause_s", 0.02)
    whole = 0
    for _ in range(3):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                made = len([p for p in folder.glob("*") if p.name.isdigit()])
                if made >= whole + 3:
                    break
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        assert not out.exists()
        whole = len([p for p in folder.glob("*") if p.name.isdigit()])
    assert 3 <= whole < 30
    monkeypatch.setattr(model, "pause_s", 0.0)
    before = len(model.seen)
    end = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{100 * whole:,} of them by an earlier run" in end.stderr.replace("\n", " ")
    # What the killed one had under way the service answers to nobody.
    assert 0 <= len(model.seen) - before - (3_000 - 100 * whole) <= BATCH_SIZE * CONCURRENCY
    got = pq.read_table(out).to_pylist() if kind == "parquet" else rows_of(out)
    assert [(row["id"], row["label"]) for row in got] == [
        (row["id"], told(row["review"])) for row in rows
    ]
    assert not folder.exists()


def test_the_parts_of_another_run_are_not_taken_for_its_own(url: str, tmp_path: Path) -> None:
    table(tmp_path / "in.csv")
    out = tmp_path / "out.csv"
    asked = (tmp_path / "in.csv", "--text-column", "review", "-o", out, "--url")
    run(*asked, "http://127.0.0.1:9")
    result = run(*asked, url, "--add", "label")
    assert result.exit_code == 2
    assert "add differ" in result.output.replace("\n", " ")
    assert run(*asked, url, "--add", "label", "--force").exit_code == 0


def test_an_empty_table_gives_an_empty_table(url: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,t\n")
    out = tmp_path / "out.csv"
    result = run(tmp_path / "in.csv", "--text-column", "t", "-o", out, "--url", url)
    assert result.exit_code == 0, result.output
    assert out.read_text() == "id,t,label,score\n"


@pytest.mark.trials
def test_a_million_rows_take_no_more_memory_than_ten_thousand(url: str, tmp_path: Path) -> None:
    peaks = []
    for n in (10_000, 1_000_000):
        source = tmp_path / f"{n}.csv"
        with source.open("w") as file:
            file.write("t\n" + "short\n" * n)
        code = (
            "import resource; from deployments.cli import app\n"
            "try: app()\n"
            "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        asked = [
            "classify",
            str(source),
            "--text-column",
            "t",
            "-o",
            str(tmp_path / f"{n}.out.csv"),
        ]
        command = [sys.executable, "-c", code, *asked, "--url", url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
        with (tmp_path / f"{n}.out.csv").open() as file:
            assert sum(1 for _ in file) == n + 1
    assert peaks[1] < peaks[0] + 30_000  # KiB
