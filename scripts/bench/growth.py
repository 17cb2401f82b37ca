"""Mode `growth`: throughput by replicas and nodes, and what a text costs by its length."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .child import ChildFailed, child
from .engines import engine_child
from .load import enough_s, load
from .models import MINILM
from .service import our_endpoint, running_service
from .session import Session
from .share import WARM_UP_S, raw_like
from .workload import encode, texts_of_tokens

# Of the stand-in in standin.py, which imports Ray.
TOKENS_PER_S = 20_000.0
LENGTHS = (8, 16, 32, 64, 128, 256, 512)
CONNECTIONS = 256
COST_CONNECTIONS = 64
# Nodes, Classifier replicas, Tokenizer replicas.
WAITING = ((1, 1, 1), (1, 2, 1), (2, 4, 1), (3, 8, 2))
NULL = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (3, 3, 3))
KINDS = {
    "waiting": ("scripts.bench.standin:build", WAITING),
    "none": ("deployments.app:build", NULL),
}


def measure_growth(session: Session) -> None:
    """A cluster of several Ray nodes on this machine, then one service and texts of one length."""
    steps = sum(len(sizes) for _, sizes in KINDS.values()) + len(LENGTHS) + 1
    with session.mode("growth", steps) as part:
        part.update(waiting_tokens_per_s=TOKENS_PER_S, shape=MINILM.title, replicas=[], cost=[])
        part["workload"] = session.workload(MINILM).statistics()
        _replicas(session, part)
        _cost(session, part)


def _replicas(session: Session, part: dict[str, Any]) -> None:
    texts = session.workload(MINILM).texts
    try:
        with child("scripts.bench.cluster") as cluster:
            for kind, (import_path, sizes) in KINDS.items():
                for nodes, classifiers, tokenizers in sizes:
                    session.step(f"growth: {kind}, {nodes} nodes, {classifiers} classifiers")
                    replicas = {"Classifier": classifiers, "Tokenizer": tokenizers}
                    cluster.ask(do="grow", nodes=nodes)
                    deployed = cluster.ask(
                        do="deploy",
                        import_path=import_path,
                        changes=["engine.name=none"],
                        options={name: {"num_replicas": n} for name, n in replicas.items()},
                    )
                    endpoint = our_endpoint(deployed["url"])
                    holding = cluster.ask(do="state")["nodes_with_classifier"]
                    placed = {"nodes": nodes, "nodes_with_classifier": holding}
                    load(endpoint, texts, CONNECTIONS, WARM_UP_S)
                    run = load(endpoint, texts, CONNECTIONS, session.plan.duration_s)
                    row = {"kind": kind, **placed, "replicas": replicas, **asdict(run)}
                    part["replicas"].append(row)
    except ChildFailed as exc:
        part["unavailable"] = str(exc)


def _cost(session: Session, part: dict[str, Any]) -> None:
    """Milliseconds of the engine and of the whole service a text, where both are kept busy."""
    plan, model = session.plan, session.model(MINILM)
    session.step("growth: starting the service for the cost of a text")
    texts = texts_of_tokens(str(model), LENGTHS)
    changes = session.service_changes(model)
    with running_service(changes, plan.config) as service, engine_child() as engine:
        part["info"] = service.info
        load(service.endpoint, texts[64], 16, WARM_UP_S)
        for length in LENGTHS:
            session.step(f"growth: texts of {length} tokens")
            # Enough of them for batches as full as the service's.
            workload = encode(str(model), texts[length] * 64)
            raw_like(engine, service, model, workload)
            raw = engine.rate(plan.duration_s / 4, service.info["max_batch_tokens"])["texts_per_s"]
            seconds = enough_s(raw, plan.duration_s / 2, 4 * COST_CONNECTIONS)
            run = load(service.endpoint, texts[length], COST_CONNECTIONS, seconds)
            part["cost"].append(
                {
                    "tokens": length,
                    "engine_ms": round(1_000 / raw, 4),
                    "service_ms": round(1_000 / run.requests_per_s, 4),
                    "errors": run.errors,
                }
            )
