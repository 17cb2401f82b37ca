"""What `engine: auto` chose beside each precision fixed by hand, over HTTP at every load."""

from __future__ import annotations

from dataclasses import replace

from .beside import Candidate, measure
from .models import SHAPES
from .session import Session

CHOICES = ("auto", "int8", "bfloat16", "float32")
CONNECTIONS = (1, 4, 16, 64)
TURNS = 3


def measure_choice(session: Session) -> None:
    """Requests a second of each, median of the turns; the first of `--shapes`."""
    shape = SHAPES[session.plan.shapes[0]]
    workload, model = session.workload(shape), str(session.model(shape))
    with session.mode("choice", len(CHOICES) + TURNS * len(CONNECTIONS)) as part:
        part.update(shape=shape.title, workload=workload.statistics(), rows=[])
        found = measure(
            [Candidate(model, dtype) for dtype in CHOICES],
            workload.texts,
            CONNECTIONS,
            TURNS,
            replace(session.plan, duration_s=session.plan.duration_s / 2),
            lambda said: session.step(f"choice: {said}"),
        )
        for one in found:
            rates = {str(n): each for n, each in one.rates.items()}
            dtype = one.candidate.dtype
            part["rows"].append(
                {"dtype": dtype, "info": one.info, "rates": rates, "errors": one.errors}
            )
