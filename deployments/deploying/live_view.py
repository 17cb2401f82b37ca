"""What a service does just now, out of its cluster, or only of its own URL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import nan
from typing import Any

import requests

from deployments.deploying.dashboard import Dashboard
from deployments.deploying.rates import Rates, merged
from deployments.deploying.serve_state import AppState, read_applications

STAGES = ("http", "grpc", "parse", "tokenize", "queue", "model", "postprocess")
_TIMEOUT_S = 5.0
_AT_ONCE = 32

Numbers = dict[str, dict[str, float]]
"""Heading → name → value."""


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Of one stage, of what came last. per_s: how often; the others in seconds."""

    name: str
    per_s: float
    mean_s: float
    p50_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class ReplicaNow:
    """cpu: shares of a core. gpu: what Ray says of its node's, as "0: 43 %". Unknown is None."""

    deployment: str
    name: str
    state: str
    node: str
    busy: float | None = None
    cpu: float | None = None
    memory_bytes: float | None = None
    gpu: str = ""


@dataclass(slots=True)
class View:
    """What is shown. numbers: heading → name → value, NaN where it is not known (yet).

    notes: what could not be asked, and why.
    """

    title: str
    numbers: Numbers = field(default_factory=dict)
    stages: list[StageTimes] = field(default_factory=list)
    replicas: list[ReplicaNow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def session_for(dashboard: Dashboard) -> requests.Session:
    """For the nodes of its cluster."""
    session = requests.Session()
    session.trust_env = not dashboard.cluster.is_local
    return session


def metrics_pages(dashboard: Dashboard, session: requests.Session) -> list[str]:
    """What the metrics endpoints of the nodes answer; of those that can be reached."""

    def page(url: str) -> str:
        try:
            answer = session.get(url, timeout=_TIMEOUT_S)
        except requests.RequestException:
            return ""
        return answer.text if answer.ok else ""

    # At once: from outside a cluster none may answer, and each is waited for.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(filter(None, pool.map(page, dashboard.metrics())))


class ClusterSource:
    """By Ray's dashboard and the nodes' metrics endpoints."""

    def __init__(self, dashboard: Dashboard, app: str | None) -> None:
        self._dashboard = dashboard
        self._app = app
        self._rates = Rates()
        self._session = session_for(dashboard)

    def look(self) -> View:
        """Raises DashboardError: the dashboard does not answer."""
        details = self._dashboard.serve_details()
        there = read_applications(details)
        app = (
            there.get(self._app)
            if self._app
            else next((a for a in there.values() if a.is_ours), None)
        )
        if app is None:
            return View(f"{self._dashboard.cluster.url}: no application of ours", notes=[_NO_APP])
        pages = metrics_pages(self._dashboard, self._session)
        self._rates.look(merged(pages), time.monotonic())
        view = View(f"{app.name}: {app.status}, {self._dashboard.cluster.url}")
        view.numbers = _numbers(self._rates, app.name)
        view.stages = list(_stages(self._rates, app.name))
        view.replicas = list(self._replicas(details, app))
        if not self._rates.values("stage_seconds_count"):
            view.notes.append(
                "no metrics of ours yet: replicas hand them to Ray's endpoints, which change every "
                "10 s"
                if pages
                else "no metrics endpoint of a node can be reached from here"
            )
        return view

    def _replicas(self, details: dict[str, Any], app: AppState) -> Iterator[ReplicaNow]:
        busy = self._rates.values("busy_ratio", "replica", application=app.name)
        nodes: dict[str, dict[str, Any]] = {}
        deployments = details["applications"][app.name].get("deployments") or {}
        for deployment, told in deployments.items():
            for replica in told.get("replicas") or []:
                node = str(replica.get("node_id") or "")
                if node and node not in nodes:
                    nodes[node] = self._dashboard.node(node)
                workers = {w.get("pid"): w for w in nodes.get(node, {}).get("workers") or []}
                worker = workers.get(replica.get("pid"), {})
                percent = worker.get("cpuPercent")
                name = str(replica.get("replica_id"))
                yield ReplicaNow(
                    deployment,
                    name,
                    str(replica.get("state")),
                    str(replica.get("node_ip") or "no place yet"),
                    busy.get(name),
                    None if percent is None else float(percent) / 100,
                    (worker.get("memoryInfo") or {}).get("rss"),
                    _gpu(nodes.get(node, {}).get("gpus") or [], replica.get("pid")),
                )


class UrlSource:
    """By GET /info and /state of a service, where there is no way to its cluster."""

    def __init__(self, url: str, key: str | None) -> None:
        self._url = url.rstrip("/")
        self._session = requests.Session()
        if key:
            self._session.headers["X-API-Key"] = key
        self._before: tuple[float, dict[str, float]] | None = None

    def look(self) -> View:
        """Raises requests.RequestException: nobody answers."""
        info, state = self._get("/info"), self._get("/state")
        told = info if isinstance(info, dict) else {}
        how = " ".join(str(told.get(name)) for name in ("engine", "dtype", "device"))
        model = f"{told.get('model')}, {how}"
        view = View(f"{self._url}: {model if told else 'says nothing of its model'}")
        view.notes += [said for said in (info, state) if isinstance(said, str)]
        if isinstance(state, dict):
            view.numbers = self._numbers(state)
            for deployment in state.get("deployments") or []:
                for status, n in (deployment.get("replicas") or {}).items():
                    view.replicas += [
                        ReplicaNow(str(deployment.get("name")), "", status, "")
                    ] * int(n)
        return view

    def _get(self, path: str) -> dict[str, Any] | str:
        """What it says, or why it does not."""
        answer = self._session.get(f"{self._url}{path}", timeout=_TIMEOUT_S)
        if answer.status_code in (401, 403):
            return f"GET {path} wants a key with the scope admin: --key"
        if answer.status_code == 404:
            return f"this service has no {path}"
        try:
            told = answer.json()
        except ValueError:
            return f"GET {path} answers {answer.status_code}, and no JSON"
        return (
            told
            if answer.ok and isinstance(told, dict)
            else f"GET {path} answers {answer.status_code}"
        )

    def _numbers(self, state: dict[str, Any]) -> Numbers:
        classifiers, ingress = state.get("classifiers") or [], state.get("ingress") or {}
        totals = {
            name: float(sum(classifier.get(name) or 0 for classifier in classifiers))
            for name in ("passes", "read_texts", "read_tokens", "queued_tokens")
        }
        totals["refused"] = float(ingress.get("refused_requests") or 0)
        now, gained = time.monotonic(), dict.fromkeys(totals, nan)
        if self._before is not None and now > self._before[0]:
            before_s, before = self._before
            # Through a balancer another replica may have answered, which counts from elsewhere.
            gained = {n: max(0.0, v - before[n]) / (now - before_s) for n, v in totals.items()}
        self._before = now, totals
        passes, texts, tokens = (gained[n] for n in ("passes", "read_texts", "read_tokens"))
        return {
            "a second": {"texts": texts, "tokens": tokens, "refused": gained["refused"]},
            "batches": {
                "a second": passes,
                "texts": texts / (passes or nan),
                "tokens": tokens / (passes or nan),
            },
            "queue": {
                "tokens": totals["queued_tokens"],
                "pending texts": float(ingress.get("pending_texts") or 0),
                "s ahead": float(ingress.get("ahead_s") or 0),
            },
        }


_NO_APP = "`rayclassify deploy CONFIG` deploys one; --app names one that has another import_path"


def _numbers(rates: Rates, app: str) -> Numbers:
    def gain(name: str, **where: str) -> float:
        return rates.per_s(name, application=app, **where).get("", nan)

    def now(name: str) -> float:
        return rates.values(name, application=app).get("", nan)

    def most(name: str) -> float:
        return max(rates.values(name, "replica", application=app).values(), default=nan)

    requests_ = rates.per_s("requests_total", "outcome", application=app)
    refused = rates.per_s("refused_total", "reason", application=app)
    return {
        "a second": {
            **{f"requests {outcome}": value for outcome, value in requests_.items()},
            "texts": gain("texts_total", stage="postprocess"),
            "tokens": gain("tokens_total"),
            **{f"refused {reason}": value for reason, value in refused.items() if value},
        },
        "batches": {
            "a second": gain("batch_texts_count"),
            "texts": rates.mean("batch_texts", application=app),
            "tokens": rates.mean("batch_tokens", application=app),
        },
        "queue": {
            "tokens": now("queue_tokens"),
            "oldest s": most("queue_oldest_seconds"),
            "pending texts": now("pending_texts"),
            "s ahead": most("ahead_seconds"),
        },
    }


def _stages(rates: Rates, app: str) -> Iterator[StageTimes]:
    per_s = rates.per_s("stage_seconds_count", "stage", application=app)
    for stage in STAGES:
        if per_s.get(stage):
            where = {"application": app, "stage": stage}
            mean = rates.mean("stage_seconds", **where)
            p50, p99 = (rates.quantile("stage_seconds", q, **where) for q in (0.5, 0.99))
            yield StageTimes(stage, per_s[stage], mean, p50, p99)


def _gpu(gpus: list[dict[str, Any]], pid: Any) -> str:
    """Those that the process uses, as the driver says; it names none inside some containers."""
    used = [g for g in gpus if pid in {p.get("pid") for p in g.get("processesPids") or []}]
    return ", ".join(f"{g.get('index')}: {g.get('utilizationGpu') or 0:.0f} %" for g in used)
