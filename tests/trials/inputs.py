"""Mode `inputs`: bad input of every kind, beside clients that must not notice."""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from collections.abc import Iterator

import requests

from deployments.bench.client import RIGHT, Load
from scripts.bench.service import Config, Service, read_config, running_service

from . import corpus
from .framing import shapes
from .growth import MAX_GROWTH_MB, WINDOW, Levelling, rounds_until_level
from .guests import Known, faults_of, guests, known_texts
from .session import Part, Session
from .slow_clients import BODY_TIMEOUT_S, HEAD_TIMEOUT_S, SILENCE_S, slow_clients
from .throwing import Tally, throw, throw_shapes
from .watch import replicas_mb, tracebacks

CASES = 10_000
QUICK_CASES = 700
# Of one round of those that show whether memory levels off, beside all the large bodies.
ROUND_CASES = 300
ROUND_TEXTS = 320
CHANGES = ("engine.name=torch", "engine.dtype=float32", f"limits.body_timeout_s={BODY_TIMEOUT_S:g}")


def try_inputs(session: Session) -> None:
    """Findings by group; figures: statuses by group, times, memory."""
    with session.mode("inputs", 8) as part:
        session.step("inputs: reference labels")
        known = known_texts(640 if session.quick else 6_400)
        session.step("inputs: start")
        with running_service(CHANGES, _config()) as service:
            _Trial(session, part, service, known).run()


def _config() -> Config:
    """serve_config.yaml with less patience for silent clients, so that a trial sees its end."""
    config = read_config()
    variables = config["controller_options"]["runtime_env"]["env_vars"]
    variables["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"] = f"{SILENCE_S:g}"
    lines = variables["RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"]
    variables["RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"] = re.sub(
        r"(?m)^timeout http-request .*$", f"timeout http-request {HEAD_TIMEOUT_S}s", lines
    )
    return config


class _Trial:
    def __init__(self, session: Session, part: Part, service: Service, known: Known) -> None:
        self.session, self.part, self.known = session, part, known
        self.port = int(service.endpoint.url.rpartition(":")[2])
        self.url = service.endpoint.url

    def run(self) -> None:
        step, figures = self.session.step, self.part.figures
        before = replicas_mb()
        with guests(self.url, self.known, itertools.cycle(self.known), 4) as beside:
            step("inputs: bad bodies and headers")
            tally = throw(self.port, self._cases())
            step("inputs: framing")
            framing = throw_shapes(self.port, shapes(), 1 if self.session.quick else 5)
            step("inputs: slow clients")
            slow = slow_clients(self.port, 40 if self.session.quick else 400)
        step("inputs: 64 connections")
        crosstalk = guests(self.url, self.known, self.known, 64)
        crosstalk.run()
        step("inputs: memory, round after round")
        again = Tally()
        levelling = rounds_until_level(
            lambda number: self._round(number, again), lambda: sum(replicas_mb().values())
        )
        step("inputs: afterwards")
        after = replicas_mb()
        figures["statuses"] = {
            group: dict(sorted(c.items())) for group, c in tally.statuses.items()
        }
        figures["framing"] = {name: dict(sorted(n.items())) for name, n in framing.statuses.items()}
        figures["slow"] = slow.figures
        figures["slowest_s"] = tally.slowest_s
        faults = tally.faults + framing.faults + faults_of(beside) + faults_of(crosstalk)
        faults += again.faults
        figures["faults"] = faults[:50]
        figures["rounds_rss_mb"] = levelling.after_mb
        figures["rss_mb"] = {name: [before.get(name), now] for name, now in after.items()}
        for group in tally.statuses:
            self._group(group, tally)
        self._framing(framing)
        self._slow(slow.kept, slow.result, slow.clients)
        self._guests(
            "Nobody else pays for bad input", "4 clients with good texts all the while", beside
        )
        self._guests(
            "An answer belongs to its request",
            "64 connections, unique texts, against transformers in float32",
            crosstalk,
        )
        self._levelling(levelling, sum(before.values()), again.faults)
        self._afterwards(before, after)

    def _round(self, number: int, tally: Tally) -> None:
        """Large bodies, some broken ones and good texts from 64 connections, as many each time."""
        bad = corpus.generated(ROUND_CASES, seed=number)
        thrown = throw(self.port, itertools.chain(corpus.sizes(quick=False), bad))
        good = guests(self.url, self.known, itertools.islice(self.known, ROUND_TEXTS), 64)
        good.run()
        tally.faults += thrown.faults + faults_of(good)
        for group, statuses in thrown.statuses.items():
            tally.statuses[group] += statuses

    def _cases(self) -> Iterator[corpus.Case]:
        count = QUICK_CASES if self.session.quick else CASES
        fixed = [*corpus.types(), *corpus.encodings(), *corpus.headers()]
        if self.session.quick:
            fixed = fixed[:: 1 + len(fixed) // (count // 2)]
        fixed += corpus.sizes(self.session.quick)
        return itertools.chain(fixed, corpus.generated(max(0, count - len(fixed))))

    def _group(self, group: str, tally: Tally) -> None:
        faults = [fault for fault in tally.faults if fault.startswith(group)]
        self._add(
            f"Bad input is answered with a reason: {group}",
            "a fixed corpus over raw sockets",
            tally.statuses[group],
            f"slowest {tally.slowest_s[group]:.2f} s",
            faults,
        )

    def _framing(self, tally: Tally) -> None:
        statuses = sum(tally.statuses.values(), Counter())
        how = (
            "smuggling shapes, broken chunks, lines and targets, pipelines, through HAProxy; "
            "behind each a second request, whose answer, known by its id, is second or never comes"
        )
        promise = "Broken framing gets no 5xx and no traceback, and both servers see the same end"
        self._add(promise, how, statuses, "", tally.faults)

    def _slow(self, kept: bool, result: str, clients: int) -> None:
        promise = "Silence, and a head or a body that never ends, are ended"
        how = (
            f"body_timeout_s {BODY_TIMEOUT_S:g}, HAProxy's time for a head {HEAD_TIMEOUT_S} s "
            f"and for silence {SILENCE_S:g} s"
        )
        self.part.add(promise, how, clients, result, kept)

    def _guests(self, promise: str, how: str, load: Load) -> None:
        faults, right = faults_of(load), load.outcomes[RIGHT]
        result = f"{right:,} right" + "".join(f"; {fault}" for fault in faults[:2])
        kept = not faults and right > 0
        self.part.add(promise, how, len(load.asked), result, kept)

    def _add(
        self, promise: str, how: str, statuses: Counter[str], note: str, faults: list[str]
    ) -> None:
        counted = ", ".join(f"{count:,} × {status}" for status, count in sorted(statuses.items()))
        wrong = f"{len(faults)} wrong, e.g. {faults[0]}" if faults else ""
        result = "; ".join(text for text in (counted, note, wrong) if text)
        cases = sum(statuses.values())
        self.part.add(promise, how, cases, result, not faults)

    def _levelling(self, levelling: Levelling, before_mb: float, faults: list[str]) -> None:
        after = levelling.after_mb
        wrong = f"; {len(faults)} wrong, e.g. {faults[0]}" if faults else ""
        result = (
            f"replicas: {before_mb:.0f} MB when started, then {after[0]:.0f} to "
            f"{after[-1]:.0f} MB; "
            f"of the last {WINDOW} rounds {levelling.growth_mb:+.0f} MB{wrong}"
        )
        kept = levelling.level and not faults
        self.part.add(
            "Memory levels off, however much bad input comes",
            f"rounds of all large bodies, {ROUND_CASES} broken ones and {ROUND_TEXTS} good "
            f"texts, until {WINDOW} rounds need at most {MAX_GROWTH_MB:.0f} MB more than "
            f"the {WINDOW} before",
            len(after),
            result,
            kept,
        )

    def _afterwards(self, before: dict[str, float], after: dict[str, float]) -> None:
        ready = requests.get(f"{self.url}/ready", timeout=10).ok
        # Logs are written in bursts.
        time.sleep(2)
        found = tracebacks()
        same = before.keys() == after.keys()
        result = f"ready: {ready}, same processes: {same}, tracebacks in logs: {found}"
        kept = ready and same and not found
        promise = "Afterwards the service is as before"
        self.part.add(promise, "readiness, pids, logs", 1, result, kept)
