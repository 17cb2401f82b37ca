"""Overload through the real chain: one answer each, and each client its turns."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from running import Service, deployment, read_config

pytestmark = pytest.mark.slow

LONG = "房间不大，但是很干净，前台也很热情，下次还会再来。" * 12
# A flood is 64 clients with lists of so many: five seconds of work where two cores read 30,000
# tokens/s. The two texts that a guest waits for take 20 ms there, so that a machine that stutters
# refuses the flood and not the guest.
LIST = 8
MAX_QUEUE_S = 1.0


@pytest.fixture(scope="module")
def narrow(service: Service) -> Service:
    """Short waits and small passes, so that some clients are too many."""
    config = read_config()
    limits = config["applications"][0]["args"].setdefault("limits", {})
    limits |= {"max_queue_s": MAX_QUEUE_S, "client_header": "x-client"}
    deployment(config, "Classifier")["user_config"]["max_batch_tokens"] = 512
    for name in ("Tokenizer", "Classifier"):
        one = deployment(config, name)
        del one["autoscaling_config"]
        one["num_replicas"] = 1
    service.deploy(config)
    return service


def ask(
    service: Service, client: str, n: int, text: str | list[str] = LONG
) -> list[requests.Response]:
    """`n` requests, one after the other."""
    with requests.Session() as session:
        return [
            session.post(
                f"{service.url}/classify",
                json={"text": text},
                headers={"X-Client": client},
                timeout=60,
            )
            for _ in range(n)
        ]


def test_a_flood_gets_an_answer_each_and_a_guest_all_of_his(narrow: Service) -> None:
    with ThreadPoolExecutor(65) as pool:
        flood = [pool.submit(ask, narrow, "flood", 10, [LONG] * LIST) for _ in range(64)]
        guest = pool.submit(ask, narrow, "guest", 20).result()
        flooding = [answer for asked in flood for answer in asked.result()]
    assert Counter(answer.status_code for answer in guest) == {200: 20}
    statuses = Counter(answer.status_code for answer in flooding)
    assert set(statuses) == {200, 429}
    assert sum(statuses.values()) == 640
    for answer in flooding:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            message = answer.json()["error"]["message"]
            assert "A text would wait about" in message
            assert f"the limit is {MAX_QUEUE_S:.3g} s" in message
    assert ask(narrow, "flood", 1)[0].status_code == 200


def test_a_deadline_travels_down_the_chain(narrow: Service) -> None:
    texts = [LONG] * 300
    for answer in (
        narrow.post({"text": texts, "timeout_ms": 50}),
        narrow.post({"text": texts}, headers={"X-Timeout-Ms": "50"}),
    ):
        assert answer.status_code == 408
        assert "No answer within 0.05 s" in answer.json()["error"]["message"]
    # Nothing is run for those who left: the next one has the model to himself.
    assert narrow.post({"text": "很好", "timeout_ms": 20_000}).status_code == 200


def test_a_senseless_deadline_or_priority_is_named(narrow: Service) -> None:
    answer = narrow.post({"text": "很好"}, headers={"X-Timeout-Ms": "soon"})
    assert answer.status_code == 422
    assert "X-Timeout-Ms must be a whole number" in answer.json()["error"]["message"]
    answer = narrow.post({"text": "很好", "priority": "urgent"})
    assert answer.status_code == 422
    assert "interactive or bulk" in answer.json()["error"]["message"]


def test_bulk_is_answered_beside_interactive(narrow: Service) -> None:
    with ThreadPoolExecutor(2) as pool:
        bulk = pool.submit(narrow.post, {"text": [LONG] * 60, "priority": "bulk"})
        interactive = pool.submit(ask, narrow, "guest", 10)
        assert bulk.result().status_code == 200
        assert len(bulk.result().json()) == 60
        assert {answer.status_code for answer in interactive.result()} == {200}
