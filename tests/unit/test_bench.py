"""`rayclassify bench` against the real application over real HTTP, and servers that misbehave."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from api.stand_in import LIMITS, LengthClassifier
from served import serving
from typer.testing import CliRunner, Result

from deployments.access.keys import hash_of, new_token
from deployments.bench import run
from deployments.bench.dialects import DIALECTS
from deployments.cli import app
from deployments.http.app import create_app
from deployments.model.probe import N_TEXTS, probe_texts
from deployments.pipeline.errors import EmptyText, NotReady, Overloaded
from deployments.settings import AccessSettings, DialectName

WIDE = LIMITS.model_copy(update={"max_body_bytes": 100_000, "max_text_chars": 5_000})
SHORTLY = ("--duration-s", "0.3", "--connections", "2")
# Where several servers share a path, ours answers at another one.
PATHS = {"infinity": ("--path", "/infinity/classify"), "vllm": ("--path", "/v1/classify")}
MODELS = {"kserve": ("--model", "demo"), "oip": ("--model", "demo")}


class BestFirst(LengthClassifier):
    """Its scores are best first, as the service's are."""

    def _classify(self, item: Any) -> Any:
        answer = super()._classify(item)
        if isinstance(answer, dict):
            scores = sorted(answer["scores"].items(), key=lambda one: -one[1])
            answer["scores"] = dict(scores)
        return answer


@pytest.fixture
def service() -> LengthClassifier:
    return BestFirst()


@pytest.fixture
def url(service: LengthClassifier) -> Iterator[str]:
    with serving(create_app(service, WIDE)) as address:
        yield address


def bench(*args: str) -> Result:
    return CliRunner().invoke(app, ["bench", *args])


def measured(*args: str) -> dict[str, Any]:
    result = bench(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*args: str) -> str:
    """The one line that ends the command before any load."""
    result = bench(*args)
    assert (result.exit_code, result.stdout) == (3, "")
    (line,) = result.stderr.strip().splitlines()
    return line


def test_every_dialect_of_the_service_has_a_way_to_be_asked() -> None:
    # A tool for language models is no server to compare with.
    assert {*DialectName.__args__, "ours"} - {"mcp"} == DIALECTS.keys()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dialect_is_asked_and_its_labels_are_read(dialect: str, url: str) -> None:
    options = (*PATHS.get(dialect, ()), *MODELS.get(dialect, ()), "--texts-per-request", "3")
    found = measured(url, "--dialect", dialect, *options, *SHORTLY)
    # The first of our own texts has two characters.
    assert [one["first_label"] for one in found["servers"]] == ["short"]
    (row,) = found["results"]
    assert row["failed"] == {}
    assert row["requests"] > 0
    assert row["texts_per_s"] == pytest.approx(3 * row["requests_per_s"], abs=0.02)
    assert row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]


def test_servers_take_turns_under_each_load(url: str, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("好\n这一条比十个字要长得多\n", encoding="utf-8")
    found = measured(
        *(url, url, "--dialect", "tei", "--dialect", "ours", "--texts", str(texts)),
        *("--connections", "1,4", "--rates", "40", "--duration-s", "0.3"),
    )
    assert found["texts"] == 2
    rows = [(one["dialect"], one["connections"], one["rate_per_s"]) for one in found["results"]]
    loads = [(1, None), (4, None), (None, 40.0)]
    assert rows == [(dialect, *load) for load in loads for dialect in ("tei", "ours")]
    assert all(one["requests"] and not one["failed"] for one in found["results"])


def test_all_texts_are_asked_in_turn(url: str, service: LengthClassifier) -> None:
    one_by_one = ("--connections", "1", "--duration-s", "0.5")
    measured(url, *one_by_one, "--texts-per-request", "4")
    # The question beforehand, and the first round of the load.
    seen = [one.text for one in service.seen[4 : 4 + N_TEXTS]]
    assert len(set(seen)) == N_TEXTS


def test_arrivals_only_where_only_rates_are_named(url: str) -> None:
    found = measured(url, "--rates", "30,60", "--duration-s", "0.3")
    assert [one["rate_per_s"] for one in found["results"]] == [30.0, 60.0]


def test_as_a_table_and_as_csv(url: str) -> None:
    table = bench(url, url, *SHORTLY).stdout
    assert [line.split()[:2] for line in table.splitlines()[:2]] == [["1:", "ours"], ["2:", "ours"]]
    assert "2 connections" in table
    (row,) = csv.DictReader(io.StringIO(bench(url, *SHORTLY, "--format", "csv").stdout))
    assert (row["url"], row["dialect"], row["connections"]) == (url, "ours", "2")
    assert float(row["requests_per_s"]) > 0


def test_a_plot(url: str, tmp_path: Path) -> None:
    path = tmp_path / "bench.svg"
    assert bench(url, *SHORTLY, "--rates", "30", "--plot", str(path)).exit_code == 0
    assert "texts a second" in path.read_text(encoding="utf-8")


def test_nobody_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert f"no server answers at {address}" in refused(address)


def test_another_dialect_is_found_out_before_the_load(url: str, service: LengthClassifier) -> None:
    assert "--dialect" in refused(url, "--path", "/nowhere")
    assert "404" in refused(url, "--dialect", "kserve", "--model", "another")
    line = refused(url, "--dialect", "tei", "--path", "/infinity/classify")
    assert "answered 422" in line or "answered 400" in line
    line = refused(url, "--dialect", "sagemaker", "--path", "/predict")
    assert "not as sagemaker does" in line
    assert len(service.seen) <= 1


def test_a_server_that_wants_a_key(
    service: LengthClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, keys = new_token(), tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"id": "shop", "sha256": hash_of(token)}]}))
    with serving(create_app(service, WIDE, AccessSettings(keys_file=str(keys)))) as url:
        assert "401" in refused(url, *SHORTLY)
        assert bench(url, *SHORTLY, "--key", token).exit_code == 0
        monkeypatch.setenv("RAYCLASSIFY_KEY", token)
        assert bench(url, *SHORTLY).exit_code == 0
        # What is another server's gets our key only where somebody says so.
        assert "--key" in refused(url, *SHORTLY, "--dialect", "tei")


def test_what_a_server_says_of_itself_is_shown(url: str, service: LengthClassifier) -> None:
    service.failure = NotReady("The model is loading. Try again soon.", 2.4)
    assert "The model is loading" in refused(url)


def test_errors_are_counted_by_status(service: LengthClassifier) -> None:
    asked = create_app(service, WIDE)

    async def once_then_full(scope: Any, receive: Any, send: Any) -> None:
        await asked(scope, receive, send)
        service.failure = Overloaded("8 texts are waiting. Try again in 1 s.", 1.0)

    with serving(once_then_full) as url:
        # Longer than a busy machine may stand still: it must be refused at least once.
        result = bench(url, "--duration-s", "1.5", "--connections", "2", "--json")
    (row,) = json.loads(result.stdout)["results"]
    assert result.exit_code == 1
    assert row["failed"].keys() == {"429"}
    assert (row["requests_per_s"], row["p99_ms"]) == (0, None)


def test_a_bad_text_within_an_answer_of_200_counts(url: str, service: LengthClassifier) -> None:
    service.bad_texts = {probe_texts()[5]: EmptyText("text is empty")}
    result = bench(url, *SHORTLY, "--texts-per-request", "4", "--json")
    assert set(json.loads(result.stdout)["results"][0]["failed"]) <= {"200 not of ours"}
    assert json.loads(result.stdout)["results"][0]["failed"]


def test_ctrl_c_shows_what_was_measured(url: str) -> None:
    command = [sys.executable, "-m", "deployments.cli", "bench", url, "--json"]
    command += ["--connections", "2,1", "--duration-s", "20"]
    # Where the tests run in the background of a shell, a child would be deaf to Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while b"Ctrl-C ends it" not in (line := process.stderr.readline()):
            assert line
        try:
            process.communicate(timeout=1.0)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        out, _ = process.communicate()
    signal.signal(signal.SIGINT, before)
    found = json.loads(out)
    assert (process.returncode, found["stopped"]) == (0, True)
    assert [one["connections"] for one in found["results"]] == [2]
    assert found["results"][0]["requests"] > 0


def test_tls(service: LengthClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, certificate = trustme.CA(), tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with serving(create_app(service, WIDE), ssl_certfile=str(certificate)) as url:
        assert "SSLCertVerificationError" in refused(url)
        monkeypatch.setenv(
            ssl.get_default_verify_paths().openssl_cafile_env, str(tmp_path / "ca.pem")
        )
        assert measured(url, *SHORTLY)["results"][0]["failed"] == {}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("ftp://host",), "no address"),
        (("http://host:port",), "no address"),
        (("http://a", "--dialect", "tgi"), "there are ours, tei"),
        (("http://a", "http://b", "--path", "/x", "--path", "/y", "--path", "/z"), "3 for 2 URLs"),
        (("http://a", "--dialect", "oip"), "--model"),
        (("http://a", "--connections", "1,many"), "no list of numbers"),
        (("http://a", "--connections", "0"), "from 1 to"),
        (("http://a", "--connections", ","), "one at least"),
        (("http://a", "--rates", "-1"), "above 0"),
        (("http://a", "--plot", "a.doc"), "none of"),
        (("http://a", "--texts", "/no/such"), "is no file"),
    ],
)
def test_a_wrong_command_line_is_said_at_once(args: tuple[str, ...], words: str) -> None:
    result = CliRunner(env={**os.environ, "COLUMNS": "200"}).invoke(app, ["bench", *args])
    assert result.exit_code == 2
    assert words in result.output


@pytest.mark.parametrize(
    ("cpu", "lag_ms", "is_doubted"), [(0.5, 1.0, False), (0.9, 1.0, True), (0.5, 30.0, True)]
)
def test_a_client_that_spoils_the_figures_says_so(
    cpu: float, lag_ms: float, is_doubted: bool
) -> None:
    figures = (100.0, 100.0, 10.0, 20.0, 30.0)
    result = run.Result("http://a", "ours", 4, None, 1, 10.0, 1_000, *figures, {}, cpu, lag_ms)
    assert (result.doubt is not None) == is_doubted
