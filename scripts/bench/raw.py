"""Mode `raw`: every engine in-process, against the matrix products that this machine can do."""

from __future__ import annotations

from typing import Any

from .child import ChildFailed
from .engines import ENGINES, REFERENCES, EngineSpec, engine_child
from .flops import flops
from .models import SHAPES, Shape
from .session import Session

PRECISIONS = ("float32", "bfloat16", "int8")
ROUNDS = 2


def measure_raw(session: Session) -> None:
    """Texts a second of each engine, and the share of the peak that this is."""
    specs = (*REFERENCES, *ENGINES)
    names = session.plan.shapes
    with session.mode("raw", len(names) * (len(specs) + 1)) as part:
        part["shapes"] = {}
        for name in names:
            shape = SHAPES[name]
            workload = session.workload(shape)
            part["workload"] = workload.statistics()
            per_text = flops(shape, workload.lengths) / len(workload.texts)
            found: dict[str, Any] = {"title": shape.title, "gflops_per_text": per_text / 1e9}
            part["shapes"][name] = found
            session.step(f"raw: {shape.name}, peak of matrix products")
            found["peaks"] = _peaks(session, name)
            found["engines"] = []
            for spec in specs:
                session.step(f"raw: {shape.name}, {spec.title}")
                row = {"title": spec.title, "name": spec.name, "dtype": spec.dtype}
                found["engines"].append(row)
                row.update(_one(session, shape, spec))
                if "texts_per_s" in row:
                    peak = found["peaks"][spec.dtype]["gflops"]
                    row["gflops"] = round(row["texts_per_s"] * per_text / 1e9, 1)
                    row["share_of_peak"] = round(row["gflops"] / peak, 3) if peak else None


def _peaks(session: Session, name: str) -> dict[str, Any]:
    with engine_child() as engine:
        return {p: engine.peak(name, p, session.plan.threads) for p in PRECISIONS}


def _one(session: Session, shape: Shape, spec: EngineSpec) -> dict[str, Any]:
    """Its figures, or why it has none."""
    if spec.missing:
        return {"unavailable": spec.missing}
    try:
        with engine_child() as engine:
            engine.load(spec, session.model(shape), session.plan.threads, session.workload(shape))
            slice_s = session.plan.duration_s / ROUNDS / 2
            rounds = [engine.rate(slice_s)["texts_per_s"] for _ in range(ROUNDS)]
            # The best: what else runs on the machine makes an engine slower, never faster.
            return {
                "texts_per_s": max(rounds),
                "rounds": rounds,
                "batching": engine.info.get("batching"),
                "batching_reason": engine.info.get("batching_reason"),
            }
    except ChildFailed as exc:
        return {"unavailable": str(exc)}
