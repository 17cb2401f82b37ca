"""Mode `peers`: our service and others, with the same model, threads and texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deployments.bench.client import Endpoint
from deployments.engines.hardware import cpu_has_bfloat16

from .load import LoadFailed, enough_s, load
from .models import BERT_BASE
from .peers import PEERS, Peer, PeerUnavailable, running
from .peers.agreement import expected_labels, labels_by
from .report import best
from .service import ServiceFailed, free_port, running_service
from .session import Session

SAMPLE = 64
# Enough to fill the batches of all, and few enough that a slow one answers several rounds.
CONNECTIONS = (16, 64)
NULL_PEERS = ("ray-chain", "litserve")
REFERENCE_DTYPE = "float32"

Start = Callable[[], Any]


def measure_peers(session: Session) -> None:
    """Everybody in float32; where the CPU has it, in bfloat16 ours, Ray's chain and the fastest."""
    peers = [p for p in PEERS if not session.plan.only_peers or p.name in session.plan.only_peers]
    real = [peer for peer in peers if REFERENCE_DTYPE in peer.dtypes]
    null = [peer for peer in peers if peer.name in NULL_PEERS and "none" in peer.dtypes]
    with session.mode("peers", len(real) + 6 + len(null)) as part:
        workload = session.workload(BERT_BASE)
        part.update(shape=BERT_BASE.title, workload=workload.statistics(), rows=[], null=[])
        texts = workload.texts
        session.step("peers: labels by transformers alone")
        expected = expected_labels(session.model(BERT_BASE), texts[:SAMPLE])
        in_bfloat16 = cpu_has_bfloat16()
        ours = [("ours, engine: auto", "auto", "auto"), ("ours", "torch", "float32")]
        for title, engine, dtype in ours + [("ours", "torch", "bfloat16")] * in_bfloat16:
            session.step(f"peers: {title} {dtype}")
            row = {"name": "ours", "title": title, "dtype": dtype}
            part["rows"].append(row)
            start = _ours(session, session.model(BERT_BASE), engine, dtype, row)
            _measure(session, start, texts, expected, CONNECTIONS, row)
        for peer in real:
            session.step(f"peers: {peer.title}, float32")
            part["rows"].append(_peer(session, peer, "float32", texts, expected))
        for peer in _in_bfloat16(real, part["rows"]) if in_bfloat16 else ():
            session.step(f"peers: {peer.title}, bfloat16")
            part["rows"].append(_peer(session, peer, "bfloat16", texts, expected))
        session.step("peers: ours, no model")
        row = {"name": "ours", "title": "ours", "dtype": "none"}
        part["null"].append(row)
        start = _ours(session, None, "none", "auto", row)
        _measure(session, start, texts, None, session.plan.connections, row)
        for peer in null:
            session.step(f"peers: {peer.title}, no model")
            part["null"].append(_peer(session, peer, "none", texts, None))


def _in_bfloat16(peers: Sequence[Peer], rows: list[dict[str, Any]]) -> list[Peer]:
    """Ray's chain, and the other that was fastest in float32, where they offer it."""
    speed = {row["name"]: best(row) for row in rows if row["dtype"] == "float32"}
    others = [p for p in peers if p.name != "ray-chain" and speed.get(p.name)]
    fastest = sorted(others, key=lambda peer: speed[peer.name])[-1:]
    chosen = [peer for peer in peers if peer.name == "ray-chain"] + fastest
    return [peer for peer in chosen if "bfloat16" in peer.dtypes]


def _ours(
    session: Session, model: Path | None, engine: str, dtype: str, row: dict[str, Any]
) -> Start:
    @contextmanager
    def start() -> Iterator[Endpoint]:
        changes = session.service_changes(model, engine, dtype)
        with running_service(changes, session.plan.serve_config) as service:
            row["info"] = service.info
            yield service.endpoint

    return start


def _peer(
    session: Session, peer: Peer, dtype: str, texts: Sequence[str], expected: list[str] | None
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": peer.name,
        "title": peer.title,
        "dtype": dtype,
        "setup": peer.setup,
    }

    def start() -> Any:
        return running(
            peer,
            model_dir=session.model(BERT_BASE),
            dtype=dtype,
            num_threads=session.plan.threads,
            port=free_port(in_a_row=3),  # TorchServe takes three
        )

    counts = CONNECTIONS if expected else session.plan.connections
    _measure(session, start, texts, expected, counts, row)
    row["versions"] = peer.versions
    return row


def _measure(
    session: Session,
    start: Start,
    texts: Sequence[str],
    expected: list[str] | None,
    counts: Sequence[int],
    row: dict[str, Any],
) -> None:
    """Fills `row`: how many labels agree, then speed; or why it has no figures."""
    try:
        with start() as endpoint:
            started = time.perf_counter()
            labels = labels_by(endpoint, texts[:SAMPLE])
            rate = SAMPLE / (time.perf_counter() - started)
            row["sample"] = SAMPLE
            if expected is not None:
                row["agree"] = sum(a == b for a, b in zip(labels, expected, strict=True))
            row["runs"] = []
            for n in counts:
                duration_s = enough_s(rate, session.plan.duration_s, max(96, 2 * n))
                row["runs"].append(asdict(load(endpoint, texts, n, duration_s)))
                session.store.save()
    except (PeerUnavailable, ServiceFailed, LoadFailed) as exc:
        row["unavailable"] = str(exc)
