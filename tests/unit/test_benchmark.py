"""scripts/benchmark.py counts right: rates, latencies, operations, texts."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

from deployments.bench.client import HUNG_UP, RIGHT, Asked, Endpoint, Load, Question
from deployments.bench.latencies import latencies, poisson_times_s, rate
from deployments.pipeline.types import Encoded
from scripts.bench import load, service, workload
from scripts.bench.bulk import figures, table_of
from scripts.bench.child import ChildFailed, child
from scripts.bench.flops import flops
from scripts.bench.models import Shape

ENDPOINT = Endpoint(
    "http://127.0.0.1:9", "/classify", lambda text: json.dumps({"text": text}).encode(), str
)


class Answers:
    """An ASGI app that counts, refuses what is bad, and says what it truncated."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.at_once = self.most_at_once = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        text = json.loads(body)["text"]
        self.texts.append(text)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep({"slow": 0.05, "slower": 1.0}.get(text, 0))
        self.at_once -= 1
        answer = b'{"label":"a","truncated":%s}' % (b"true" if text == "long" else b"false")
        headers = [(b"content-length", b"%d" % len(answer))]
        status = 503 if text == "bad" else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


@contextmanager
def served(app: Answers) -> Iterator[Endpoint]:
    port = service.free_port()
    config = uvicorn.Config(app, port=port, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Endpoint(f"http://127.0.0.1:{port}", "/classify", ENDPOINT.body, str)
    finally:
        server.should_exit = True
        thread.join()


def questions_of(texts: list[str]) -> Iterator[Question]:
    return cycle([Question(ENDPOINT.request(text), kind=text) for text in texts])


# Latency


def test_latency_counts_from_when_a_request_was_due_not_from_when_it_was_sent() -> None:
    found = latencies([Asked(1.0, 1.5, 1.6, 200)])
    assert found.p50_ms == pytest.approx(600)
    assert found.lag_p99_ms == pytest.approx(500)


def test_a_request_without_a_good_answer_is_an_error_and_has_no_latency() -> None:
    sent = [Asked(0.0, 0.0, 0.01, 200), Asked(0.1, 0.1, 9.0, 503), Asked(0.2, 0.2, None)]
    found = latencies(sent)
    assert (found.requests, found.errors) == (3, 2)
    assert found.p99_ms == pytest.approx(10)


def test_what_was_due_while_it_warmed_up_is_left_out() -> None:
    sent = [Asked(0.0, 0.0, 5.0, 200), Asked(1.0, 1.0, 1.01, 200)]
    assert latencies(sent, warm_s=0.5).p99_ms == pytest.approx(10)


def test_percentiles_are_those_of_all_requests() -> None:
    found = latencies(Asked(0.0, 0.0, i / 1_000, 200) for i in range(1, 102))
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == pytest.approx((51, 96, 100))


def test_arrivals_have_the_rate_asked_for_and_come_again_with_their_seed() -> None:
    times = poisson_times_s(500, 20, seed=1)
    assert len(times) == pytest.approx(10_000, abs=500)
    assert np.all(np.diff(times) > 0)
    assert times[-1] < 20
    # Of a Poisson process: the gaps' standard deviation is their mean.
    assert np.diff(times).std() == pytest.approx(np.diff(times).mean(), rel=0.1)
    assert np.array_equal(times, poisson_times_s(500, 20, seed=1))


# The clients


def test_the_open_loop_sends_every_request_once_in_order_and_counts_what_fails() -> None:
    app = Answers()
    with served(app) as endpoint:
        due_s = [i * 0.005 for i in range(30)]
        sent = Load(endpoint.url, questions_of(["one", "two", "bad"]), due_s).run()
    assert sorted(app.texts) == sorted(["one", "two", "bad"] * 10)
    assert [one.status for one in sent].count(503) == 10
    assert latencies(sent).errors == 10
    assert all(one.sent_s >= one.due_s for one in sent)
    assert {(one.kind, one.outcome) for one in sent} == {
        *((kind, RIGHT) for kind in ("one", "two")),
        ("bad", "503 not of ours"),
    }


def test_a_closed_loop_has_no_more_under_way_than_connections() -> None:
    app = Answers()
    with served(app) as endpoint:
        with Load(endpoint.url, questions_of(["one", "slow"]), connections=2) as load_:
            time.sleep(0.5)
        assert load_.outcomes[RIGHT] == len(app.texts) == load_.n_sent > 10
    assert app.most_at_once == 2


def test_a_load_that_fails_itself_is_loud() -> None:
    asked = threading.Event()

    def questions() -> Iterator[Question]:
        asked.set()
        raise RuntimeError("no more texts")
        yield

    with pytest.raises(RuntimeError, match="no more texts"), Load(ENDPOINT.url, questions()):
        asked.wait(10)


def test_who_hangs_up_is_told_from_who_was_answered() -> None:
    with served(Answers()) as endpoint:
        asked = Load(
            endpoint.url,
            [
                Question(ENDPOINT.request("slower"), kind="slow", hang_up_s=0.001),
                Question(ENDPOINT.request("one"), kind="one"),
            ],
        ).run()
    assert {one.kind: one.outcome for one in asked} == {"slow": HUNG_UP, "one": RIGHT}


def test_the_open_loop_tells_of_a_service_that_is_not_there() -> None:
    url = f"http://127.0.0.1:{service.free_port()}"
    sent = Load(url, questions_of(["one"]), [0.0, 0.001], timeout_s=5).run()
    assert [(one.status, one.answered_s) for one in sent] == [(0, None)] * 2
    assert {one.outcome for one in sent} == {"lost ConnectionRefusedError"}


def test_wrk_asks_every_text_in_turn_and_counts_statuses_and_truncations() -> None:
    app = Answers()
    with served(app) as endpoint:
        try:
            run = load.load(endpoint, ["one", "long", "bad"], 1, 1)
        except load.WrkMissing as missing:
            pytest.skip(str(missing))
    assert app.texts[:6] == ["one", "long", "bad"] * 2
    assert run.errors == run.statuses["503"]
    assert run.statuses["200"] == pytest.approx(2 * run.statuses["503"], abs=2)
    assert run.truncated == pytest.approx(run.statuses["503"], abs=1)


def test_what_wrk_wrote_is_read() -> None:
    head = {
        "duration_us": 10_000_000, "p50_us": 1_500, "p95_us": 2_000, "p99_us": 9_000, "marked": 3,
        "connect": 0, "read": 1, "write": 0, "timeout": 2, "statuses": {"200": 1_000, "429": 5},
    }  # fmt: skip
    times = "\n".join(f"{100 + i / 100:.6f}" for i in range(1_000))
    run = load.parse(f"{json.dumps(head)}\n{times}\n", 16, client_cpu_s=2.5)
    assert (run.p50_ms, run.p95_ms, run.p99_ms) == (1.5, 2.0, 9.0)
    assert (run.errors, run.truncated, run.client_cpu) == (8, 3, 0.25)
    assert run.requests_per_s == pytest.approx(100)


def test_a_rate_does_not_hang_on_where_in_a_burst_the_run_ends() -> None:
    def bursts(n: int) -> np.ndarray:
        return np.repeat(np.arange(1, n + 1) * 1.25, 50)  # 40 a second, in batches of 50

    # The last burst just inside of the run, and just outside of it.
    for n, duration_s in ((16, 20.0), (15, 19.9)):
        assert rate(bursts(n), duration_s, 64, 1.6) == pytest.approx(40, rel=0.02)


def test_the_requests_of_the_file_are_whole_http_requests() -> None:
    framed = load.framed(ENDPOINT, "好")
    length, request = framed.split(b"\n", 1)
    assert int(length) == len(request)
    head, body = request.split(b"\r\n\r\n")
    assert head.startswith(b"POST /classify HTTP/1.1\r\nHost: 127.0.0.1:9\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert json.loads(body) == {"text": "好"}


# Operations and texts


def test_operations_are_those_counted_by_hand() -> None:
    tiny = Shape("tiny", layers=1, hidden=2, heads=1, intermediate=4, labels=3)
    # 3 tokens. Four 2×2 projections: 3·4·4 multiplications. Up and down, 2×4: 3·2·8. Scores and
    # weighted sum, 3×3×2 each: 36. Pooler 2×2 and head 2×3, once: 10. Each with its addition.
    assert flops(tiny, [3]) == 2 * (48 + 48 + 36 + 10)
    assert flops(tiny, [3, 3]) == 2 * flops(tiny, [3])


def test_the_workload_is_the_same_ones_again_and_has_the_lengths_of_all(demo_model: Path) -> None:
    texts = ["好" * n for n in range(1, 301)]
    pool = workload.make_workload(str(demo_model), texts, size=60)
    assert pool.texts == workload.make_workload(str(demo_model), texts, size=60).texts
    assert len(set(pool.texts)) == 60
    assert np.mean([len(text) for text in pool.texts]) == pytest.approx(150.5, rel=0.02)
    assert list(pool.texts) != sorted(pool.texts, key=len)
    # A slow service sees the same mix as a quick one.
    assert np.mean([len(text) for text in pool.texts[:32]]) == pytest.approx(150.5, rel=0.1)


def test_truncated_texts_are_counted(demo_model: Path) -> None:
    made = workload.encode(str(demo_model), ["好" * 600, "好"])
    assert made.statistics()["truncated"] == 1
    assert made.lengths.max() == 512


def test_batches_keep_the_order_and_the_budget() -> None:
    lengths = np.asarray([3, 4, 9, 2], np.int32)
    made = workload.batches(Encoded(np.arange(18, dtype=np.int32), lengths), max_tokens=8)
    assert [batch.lengths.tolist() for batch in made] == [[3, 4], [9], [2]]
    assert np.concatenate([batch.input_ids for batch in made]).tolist() == list(range(18))


# Processes and settings


def test_changes_reach_args_and_user_config_and_replicas_are_fixed() -> None:
    config = service.read_config()
    changes = ["engine.name=none", "batching.min_gap_ms=1", "Classifier.max_batch_tokens=99"]
    made = service.changed_config(config, changes)["applications"][0]
    assert made["args"]["engine"]["name"] == "none"
    assert made["args"]["batching"]["min_gap_ms"] == 1
    found = {one["name"]: one for one in made["deployments"]}
    assert found["Classifier"]["user_config"]["max_batch_tokens"] == 99
    assert {one["num_replicas"] for one in found.values()} == {1}
    assert not any("autoscaling_config" in one for one in found.values())


def test_a_child_that_fails_says_why_and_ends() -> None:
    with child("scripts.bench.engines") as process:
        with pytest.raises(ChildFailed, match="AttributeError"):
            process.ask(do="nothing")
        pid = process.process
    assert pid.poll() is not None


def test_a_run_that_saw_one_burst_is_counted_by_its_latency() -> None:
    once = 113.0 + np.arange(64) * 3e-4
    assert rate(once, 20.0, connections=64, latency_s=13.1) == pytest.approx(64 / 13.1)


def test_a_rate_of_rows_counts_the_start() -> None:
    row = figures(1_000, seconds=10.0, start_s=2.0, labels=["a"], errors=3)
    assert (row["rows_per_s"], row["start_s"], row["errors"]) == (100.0, 2.0, 3)


def test_a_table_has_all_reviews_before_one_comes_again() -> None:
    texts = table_of(["a", "b", "c"], 7)
    assert sorted(texts[:3]) == ["a", "b", "c"]
    assert texts[3:] == [*texts[:3], texts[0]]
