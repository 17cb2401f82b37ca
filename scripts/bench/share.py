"""Mode `service`: how much of the raw engine's throughput arrives over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .engines import EngineChild, EngineSpec, engine_child
from .load import Measurement, enough_s, load
from .models import SHAPES, Shape
from .service import Service, running_service
from .session import Session
from .workload import Workload

WARM_UP_S = 2
SINGLE_MAX_S = 10.0


def measure_service(session: Session) -> None:
    """Service and raw engine in turn, so that what else the machine does meets both."""
    plan = session.plan
    with session.mode("service", (len(plan.shapes) + 1) * (len(plan.connections) + 1)) as part:
        part["shapes"] = {}
        for name in (*plan.shapes, "none"):
            shape = SHAPES.get(name)
            session.step(f"service: starting with {shape.name if shape else 'no model'}")
            workload = session.workload(shape or SHAPES["minilm"])
            part["workload"] = workload.statistics()
            model = session.model(shape) if shape else None
            part["shapes"][name] = found = {"title": shape.title if shape else "no model"}
            with running_service(session.service_changes(model), plan.config) as service:
                found["info"] = service.info
                load(service.endpoint, workload.texts, 16, WARM_UP_S)
                if shape is None:
                    found["runs"] = runs = []
                    for n in plan.connections:
                        session.step(f"service: no model, {n} connections")
                        runs.append(
                            asdict(load(service.endpoint, workload.texts, n, plan.duration_s))
                        )
                else:
                    with engine_child() as engine:
                        _beside(session, shape, service, engine, found)


def raw_like(engine: EngineChild, service: Service, model: Path, workload: Workload) -> None:
    """Loads the engine that the service says it runs, with the same threads."""
    info = service.info
    spec = EngineSpec(info["engine"], info["dtype"], packing=info.get("batching") != "padded")
    engine.load(spec, model, info["num_threads"], workload)


def _beside(
    session: Session, shape: Shape, service: Service, engine: EngineChild, found: dict[str, Any]
) -> None:
    plan, workload = session.plan, session.workload(shape)
    budget = service.info["max_batch_tokens"]
    raw_like(engine, service, session.model(shape), workload)
    before = engine.rate(plan.duration_s / 2, budget)["texts_per_s"]
    found["raw_rates"], found["runs"] = [before], []
    for n in plan.connections:
        session.step(f"service: {shape.name}, {n} connections")
        if n == 1:
            found["raw_single_p50_ms"] = float(np.median(engine.single_ms(SINGLE_MAX_S)))
        duration_s = enough_s(before, plan.duration_s, max(256, 4 * n))
        run = load(service.endpoint, workload.texts, n, duration_s)
        after = engine.rate(plan.duration_s / 2, budget)["texts_per_s"]
        found["raw_rates"].append(after)
        found["runs"].append(with_share(run, (before + after) / 2))
        before = after


def with_share(run: Measurement, raw_texts_per_s: float) -> dict[str, Any]:
    """The run, and its throughput as a share of the raw engine's just before and after it."""
    share = run.requests_per_s / raw_texts_per_s
    return {
        **asdict(run),
        "raw_texts_per_s": round(raw_texts_per_s, 2),
        "share": round(share, 3),
    }
