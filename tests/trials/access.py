"""Access: keys that are wrong, expired or revoked; scopes, rates and quotas; odd headers."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import requests

from deployments.access.keys import hash_of, new_token
from deployments.bench.client import BrokenAnswer, Load
from scripts.bench.process import wait_until

from .guarded import (
    BURST,
    PATIENCE_S,
    QUOTA,
    RATE,
    Guarded,
    flood,
    guarded_service,
    kind_of,
)
from .session import Finding, Session

BATCH, QUOTA_BATCH = 8, 64
SEEN_WITHIN_S = 3.0
"""The service looks at the file every second."""


def try_access(session: Session) -> None:
    """All of it, on one service without a model."""
    trials: list[tuple[str, Callable[[Guarded, bool], Finding]]] = [
        ("wrong keys", try_wrong_keys),
        ("scopes", try_scopes),
        ("an expiring key", try_expiry),
        ("keys that change under load", try_rotation),
        ("a rate", try_rate),
        ("a quota", try_quota),
        ("headers of all sizes", try_headers),
        ("time limits of callers", try_time_limits),
    ]
    with session.mode("access", steps=len(trials) + 1) as part:
        session.step("starting a service with keys")
        with guarded_service() as service:
            for what, trial in trials:
                session.step(what)
                part.findings.append(trial(service, session.quick))


def seen(condition: Callable[[], bool]) -> None:
    """Waits until a change of the keys has its effect."""
    wait_until(condition, "a change of the keys to be seen", PATIENCE_S)


def _count(statuses: Counter[Any]) -> str:
    return ", ".join(f"{status}: {n:,}" for status, n in sorted(statuses.items(), key=str))


def _wrong_tokens(token: str, chance: random.Random) -> Iterator[bytes]:
    """Endless: near misses of a real token, and what people and attackers send."""
    yield from (b"", b"null", b"undefined", b"Bearer", b"*", b"' OR 1=1 --", b"../../keys.json")
    yield from (hash_of(token).encode(), token[4:].encode(), token.upper().encode())
    yield from (token.encode() + b" ", token.encode()[::-1], b"x" * 4_000, b"a.b.c", b"\xff\xfe")
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
    while True:
        position = chance.randrange(len(token))
        other = chance.choice(alphabet.replace(token[position], ""))
        yield (token[:position] + other + token[position + 1 :]).encode()
        yield new_token().encode()
        yield chance.randbytes(chance.randrange(1, 64)).hex().encode()


def try_wrong_keys(service: Guarded, quick: bool) -> Finding:
    n = 600 if quick else 6_000
    chance = random.Random(5)
    tokens = _wrong_tokens(service.secret.tokens["shop"], chance)
    # A trailing space is trimmed by HTTP itself: that one is the key.
    wrong = [t for t, _ in zip(tokens, range(n), strict=False) if not t.endswith(b" ")]
    load = Load(service.url, map(service.question, wrong), connections=8)
    load.run()
    kinds = load.outcomes
    return Finding(
        "Without a valid key nobody gets in",
        "near misses of a real key, its hash, random ones and rubbish, as Bearer",
        len(wrong),
        _count(kinds),
        set(kinds) == {"401 unauthorized"},
    )


def try_scopes(service: Guarded, quick: bool) -> Finding:
    wanted: list[tuple[str | None, str, str, int]] = []
    for key, classify, info in (
        (None, 401, 401), ("shop", 200, 200), ("explainer", 403, 200), ("admin", 200, 200),
    ):  # fmt: skip
        wanted += [(key, "POST", "/classify", classify), (key, "GET", "/info", info)]
        wanted += [(key, "GET", path, 200) for path in ("/health", "/ready", "/docs", "/")]
        nowhere = 404 if classify == 200 else classify
        wanted += [(key, "GET", path, nowhere) for path in ("/nowhere", "/health/x")]
        wanted += [(key, method, "/classify", 405 if classify == 200 else classify)
                   for method in ("PUT", "DELETE", "OPTIONS")]  # fmt: skip
    wrong = []
    for key, method, path, status in wanted:
        headers = {} if key is None else {"X-API-Key": service.secret.tokens[key]}
        answer = requests.request(
            method, service.url + path, json={"text": "很好"}, headers=headers, timeout=PATIENCE_S
        )
        if answer.status_code != status:
            wrong.append(f"{key} {method} {path}: {answer.status_code}")
    return Finding(
        "A key opens what its scopes name and nothing else",
        "no key and keys of each scope × paths × methods, against a table",
        len(wanted),
        "; ".join(wrong) or "all as the table says",
        not wrong,
    )


def try_expiry(service: Guarded, quick: bool) -> Finding:
    ends = datetime.now(UTC) + timedelta(seconds=SEEN_WITHIN_S + 3)
    token = service.secret.add("ending", expires=ends.isoformat())
    service.secret.write()
    seen(lambda: service.answers(token))
    kinds: Counter[str] = Counter()
    late = 0
    deadline = ends.timestamp() + 2
    while time.time() < deadline:
        asked = time.time()
        kind = kind_of(service.ask(token))
        kinds[kind] += 1
        late += kind == "200" and asked > ends.timestamp()
    return Finding(
        "A key ends when it says",
        "asked without a pause from before its end until after",
        kinds.total(),
        f"{_count(kinds)}; {late} let in after the end",
        late == 0 and set(kinds) == {"200", "401 unauthorized"},
    )


def try_rotation(service: Guarded, quick: bool) -> Finding:
    rounds = 3 if quick else 20
    secret = service.secret
    current = {"token": secret.add("rotated-0")}
    secret.write()
    seen(lambda: service.answers(current["token"]))
    questions = (service.question(current["token"]) for _ in count())
    slowest_s = 0.0
    with Load(service.url, questions, connections=4) as load:
        for n in range(1, rounds + 1):
            old, new = current["token"], secret.add(f"rotated-{n}")
            secret.write()
            seen(partial(service.answers, new))
            current["token"] = new
            time.sleep(0.3)  # what is under way with the old one ends
            del secret.keys[f"rotated-{n - 1}"]
            revoked = time.monotonic()
            secret.write()
            seen(partial(service.refuses, old))
            slowest_s = max(slowest_s, time.monotonic() - revoked)
    kinds = load.outcomes
    return Finding(
        f"Keys are rotated without a restart; a revoked one ends within {SEEN_WITHIN_S:g} s",
        f"{rounds} times: new key beside the old, caller changes, old one revoked; 4 connections "
        "ask all the while",
        kinds.total(),
        f"{_count(kinds)}; a revoked key ended after {slowest_s:.1f} s at most",
        set(kinds) == {"200"} and slowest_s <= SEEN_WITHIN_S,
    )


def try_rate(service: Guarded, quick: bool) -> Finding:
    tokens = service.secret.tokens
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(flood, service, tokens["shop"], 3.0, ["很好"], 1)
        kinds, took_s, silent = flood(
            service, tokens["slow"], 5.0 if quick else 30.0, ["很好"] * BATCH
        )
        beside, _, _ = other.result()
    texts = kinds["200"] * BATCH
    most = RATE * took_s + BURST + BATCH
    return Finding(
        "A key gets its rate, and its flood is not felt by others",
        f"8 connections flood with batches of {BATCH}; the key has {RATE} texts/s and a burst of "
        f"{BURST}; another key asks beside them",
        kinds.total() + beside.total(),
        f"{_count(kinds)}: {texts:,} texts in {took_s:.0f} s, at most {most:.0f}; {silent} refused "
        f"without Retry-After; the other key: {_count(beside)}",
        0.9 * RATE * took_s <= texts <= most
        and not silent
        and set(kinds) == {"200", "429 rate_limited"}
        and set(beside) == {"200"},
    )


def try_quota(service: Guarded, quick: bool) -> Finding:
    kinds, _, silent = flood(service, service.secret.tokens["poor"], 2.0, ["很好"] * QUOTA_BATCH)
    texts = kinds["200"] * QUOTA_BATCH
    return Finding(
        "A quota of a day ends, give or take one batch",
        f"8 connections send batches of {QUOTA_BATCH} at once; the key has {QUOTA} texts a day",
        kinds.total(),
        f"{_count(kinds)}: {texts:,} texts; {silent} refused without Retry-After",
        QUOTA <= texts < QUOTA + QUOTA_BATCH
        and not silent
        and set(kinds) == {"200", "429 quota_exceeded"},
    )


def try_headers(service: Guarded, quick: bool) -> Finding:
    token = service.secret.tokens["shop"]
    shapes: list[tuple[str, dict[str, str]]] = []
    for size in (1_000, 8_000, 16_000, 33_000, 66_000, 200_000, 1_000_000, 10_000_000):
        shapes += [("bearer", {"Authorization": f"Bearer {'x' * size}"})]
        shapes += [("key", {"X-API-Key": "x" * size}), ("other", {"X-Other": "x" * size})]
    for lines in (50, 100, 500, 2_000):
        shapes += [("many", {f"X-Header-{n}": "x" for n in range(lines)})]
    repeats = 1 if quick else 10
    kinds: Counter[str] = Counter()
    for what, headers in shapes * repeats:
        try:
            answer = service.ask(None if what in ("bearer", "key") else token, **headers)
            kinds[str(answer.status)] += 1
        except (OSError, BrokenAnswer):
            kinds["hung up"] += 1
    alive = service.answers(token)
    return Finding(
        "Headers of any size are refused or answered, and harm nobody",
        "one header up to 10 MB, up to 2,000 headers, with and without a key",
        kinds.total(),
        f"{_count(kinds)}; afterwards a good request is {'answered' if alive else 'NOT answered'}",
        alive and set(kinds) <= {"200", "400", "401", "413", "431", "hung up"},
    )


def try_time_limits(service: Guarded, quick: bool) -> Finding:
    token = service.secret.tokens["shop"]
    values = {
        "200": ("0", "-1", "-0.0", "nan", "inf", "-inf", "1e999", "1e9", "30", "", "soon", "1;2"),
        "408 deadline_exceeded": ("1e-9", "0.0000001", "1e-300"),
    }
    wrong: list[str] = []
    cases = 0
    for expected, group in values.items():
        for value in group * (1 if quick else 20):
            cases += 1
            kind = kind_of(service.ask(token, **{"x-request-timeout-seconds": value}))
            if kind != expected:
                wrong.append(f"{value}: {kind}")
    return Finding(
        "A caller can shorten its time but not lift the server's, and gets no error in plain text",
        "x-request-timeout-seconds of all kinds",
        cases,
        "; ".join(sorted(set(wrong))) or "what is no time above 0 is ignored, tiny ones get 408",
        not wrong,
    )
