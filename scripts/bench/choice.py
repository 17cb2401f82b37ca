"""What `engine: auto` chose beside each precision fixed by hand, over HTTP at every load.

All services are up at once and asked in turns: a shared machine changes within minutes.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from .load import enough_s, load
from .models import SHAPES
from .service import running_service
from .session import Session

CHOICES = ("auto", "int8", "bfloat16", "float32")
CONNECTIONS = (1, 16, 64)
TURNS = 3


def measure_choice(session: Session) -> None:
    """Requests a second of each, median of the turns; the first of `--shapes`."""
    plan = session.plan
    shape = SHAPES[plan.shapes[0]]
    texts = session.workload(shape).texts
    with session.mode("choice", len(CHOICES) + TURNS * len(CONNECTIONS)) as part:
        part.update(shape=shape.title, workload=session.workload(shape).statistics(), rows=[])
        rows: dict[str, dict[str, Any]] = {}
        with ExitStack() as stack:
            services = {}
            for dtype in CHOICES:
                session.step(f"choice: starting {dtype}")
                changes = session.service_changes(
                    session.model(shape), engine="auto" if dtype == "auto" else "torch", dtype=dtype
                )
                service = stack.enter_context(running_service(changes, plan.serve_config))
                services[dtype] = service
                load(service.endpoint, texts, 16, 2)
                rows[dtype] = {"dtype": dtype, "info": service.info, "rates": {}, "errors": 0}
                part["rows"].append(rows[dtype])
            for turn in range(TURNS):
                for n in CONNECTIONS:
                    session.step(f"choice: turn {turn + 1}, {n} connections")
                    for dtype in CHOICES[turn:] + CHOICES[:turn]:
                        rate = rows[dtype]["rates"].get(str(n), [20.0])[-1]
                        seconds = enough_s(rate, plan.duration_s / 2, 4 * n)
                        run = load(services[dtype].endpoint, texts, n, seconds)
                        rows[dtype]["rates"].setdefault(str(n), []).append(
                            round(run.requests_per_s, 2)
                        )
                        rows[dtype]["errors"] += run.errors
