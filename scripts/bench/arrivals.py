"""Mode `openloop`: latency where requests arrive by chance, at a share of what the service can."""

from __future__ import annotations

from .load import enough_s, load
from .models import MINILM
from .openloop import open_loop
from .service import running_service
from .session import Session
from .share import WARM_UP_S
from .workload import SEED

SHARES = (0.25, 0.5, 0.75, 0.9)
CAPACITY_CONNECTIONS = 64
# p99 of an open loop needs many requests, and near capacity long runs.
LENGTHEN = 2


def measure_openloop(session: Session) -> None:
    """Capacity by a closed loop, then Poisson arrivals, with the MiniLM shape."""
    plan, texts = session.plan, session.workload(MINILM).texts
    with session.mode("openloop", len(SHARES) + 3) as part:
        part.update(shape=MINILM.title, workload=session.workload(MINILM).statistics(), seed=SEED)
        session.step("open loop: starting")
        changes = session.service_changes(session.model(MINILM))
        with running_service(changes, plan.config) as service:
            part["info"] = service.info
            load(service.endpoint, texts, 16, WARM_UP_S)
            session.step("open loop: latency at 1 connection")
            part["p50_at_1_ms"] = load(service.endpoint, texts, 1, plan.duration_s).p50_ms
            session.step("open loop: capacity")
            rates = [
                load(service.endpoint, texts, CAPACITY_CONNECTIONS, plan.duration_s).requests_per_s
                for _ in range(2)
            ]
            part["capacity_per_s"] = round(sum(rates) / 2, 1)
            part["rows"] = []
            for share in SHARES:
                session.step(f"open loop: {share:.0%} of capacity")
                rate = share * part["capacity_per_s"]
                duration_s = enough_s(rate, LENGTHEN * plan.duration_s, 1_000)
                row = open_loop(service.endpoint, texts, rate, duration_s, SEED)
                part["rows"].append({"share": share, **row})
