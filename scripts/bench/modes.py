"""The modes that measure engines and our own service; versus.py measures others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from deployments.bench.client import Asked
from deployments.bench.latencies import latencies, poisson_times_s

from .child import ChildFailed, child
from .engines import ENGINES, REFERENCES, EngineChild, EngineSpec, engine_child
from .flops import flops
from .ideal import ideal
from .kinds import LISTS, Kind
from .load import Measurement, enough_s, load
from .models import MINILM, SHAPES, Shape
from .openloop import ask
from .passes import TOKENS_PER_S, PassTime, exact, fitted, waiting
from .service import Service, our_endpoint, running_service
from .session import Plan, Session
from .workload import SEED, Workload, encode, texts_of_tokens

FEW_TEXTS = 4
WARM_UP_S = 2
SINGLE_MAX_S = 10.0
SHARES = (0.25, 0.5, 0.75, 0.9)
CAPACITY_CONNECTIONS = 64
# p99 of an open loop needs many requests, and near capacity long runs.
LENGTHEN_OPENLOOP = 2
OPENLOOP_RUNS = 6
LENGTHS = (8, 16, 32, 64, 128, 256, 512)
GROWTH_CONNECTIONS = 256
COST_CONNECTIONS = 64
# Nodes, Classifier replicas, Tokenizer replicas.
WAITING = ((1, 1, 1), (1, 2, 1), (2, 4, 1), (3, 8, 2))
NULL = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (3, 3, 3))
KINDS = {
    "waiting": ("scripts.bench.standin:build", WAITING),
    "none": ("deployments.app:build", NULL),
}


def measure_raw(session: Session) -> None:
    """Texts a second of each engine, and its share of the fastest product measured in turns."""
    specs = (*REFERENCES, *ENGINES)
    names = session.plan.shapes
    with session.mode("raw", len(names) * len(specs)) as part:
        part["shapes"] = {}
        for name in names:
            shape = SHAPES[name]
            workload = session.workload(shape)
            part["workload"] = workload.statistics()
            per_text = flops(shape, workload.lengths) / len(workload.texts)
            found: dict[str, Any] = {"title": shape.title, "gflops_per_text": per_text / 1e9}
            part["shapes"][name] = found
            found["engines"] = []
            for spec in specs:
                session.step(f"raw: {shape.name}, {spec.title}")
                row: dict[str, Any] = {"title": spec.title, "name": spec.name, "dtype": spec.dtype}
                found["engines"].append(row)
                row.update(_one(session, name, spec))


def _one(session: Session, name: str, spec: EngineSpec) -> dict[str, Any]:
    """Its figures, or why it has none."""
    shape, duration_s = SHAPES[name], session.plan.duration_s
    try:
        with engine_child() as engine:
            engine.load(spec, session.model(shape), session.plan.threads, session.workload(shape))
            found = _with_share(engine.beside_peak(name, spec.dtype, None, duration_s))
            if spec.batch_size is None:
                few = engine.beside_peak(name, spec.dtype, FEW_TEXTS, duration_s / 2)
                found["few"] = _with_share(few)
            return {
                **found,
                "batching": engine.info.get("batching"),
                "batching_reason": engine.info.get("batching_reason"),
            }
    except ChildFailed as exc:
        return {"unavailable": str(exc)}


def _with_share(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "share_of_peak": round(found["gflops"] / found["peak_gflops"], 3)}


def measure_service(session: Session) -> None:
    """Service and raw engine in turn, so that what else the machine does meets both."""
    plan = session.plan
    runs_each = 1 + len(plan.connections) + len(LISTS)
    with session.mode("service", (len(plan.shapes) + 1) * runs_each) as part:
        part["shapes"] = {}
        for name in (*plan.shapes, "none"):
            shape = SHAPES.get(name)
            session.step(f"service: starting with {shape.name if shape else 'no model'}")
            workload = session.workload(shape or SHAPES["minilm"])
            part["workload"] = workload.statistics()
            model = session.model(shape) if shape else None
            found: dict[str, Any] = {"title": shape.title if shape else "no model"}
            part["shapes"][name] = found
            with running_service(session.service_changes(model), plan.serve_config) as service:
                found["info"] = service.info
                load(service.endpoint, workload.texts, 16, WARM_UP_S)
                if shape is None:
                    found["runs"] = runs = []
                    for n in plan.connections:
                        session.step(f"service: no model, {n} connections")
                        runs.append(
                            asdict(load(service.endpoint, workload.texts, n, plan.duration_s))
                        )
                    found["lists"] = lists = []
                    for kind in LISTS:
                        session.step(f"service: no model, {kind}")
                        run = _load_lists(kind, service, workload, plan.duration_s)
                        lists.append({**asdict(run), **_texts_of(kind, run)})
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
    found["lists"] = []
    for kind in LISTS:
        session.step(f"service: {shape.name}, {kind}")
        requests = 2 * kind.connections
        duration_s = enough_s(before / kind.texts, plan.duration_s, requests)
        run = _load_lists(kind, service, workload, duration_s)
        after = engine.rate(plan.duration_s / 2, budget)["texts_per_s"]
        shared = with_share(run, (before + after) / 2, kind.texts)
        found["lists"].append({**shared, **_texts_of(kind, run)})
        before = after


def _load_lists(kind: Kind, service: Service, workload: Workload, duration_s: float) -> Measurement:
    endpoint, requests = kind.endpoint(service.endpoint), kind.requests(workload.texts)
    return load(endpoint, requests, kind.connections, duration_s)


def _texts_of(kind: Kind, run: Measurement) -> dict[str, Any]:
    return {"texts": kind.texts, "texts_per_s": round(run.requests_per_s * kind.texts, 1)}


def with_share(run: Measurement, raw_texts_per_s: float, texts: int = 1) -> dict[str, Any]:
    """The run, and its throughput as a share of the raw engine's just before and after it.

    texts: in a request.
    """
    share = run.requests_per_s * texts / raw_texts_per_s
    return {
        **asdict(run),
        "raw_texts_per_s": round(raw_texts_per_s, 2),
        "share": round(share, 3),
    }


def measure_openloop(session: Session) -> None:
    """Capacity by a closed loop, then Poisson arrivals, with the MiniLM shape.

    Between runs the engine alone is timed, for the ideal server of the same arrivals. Then the same
    before a stand-in that takes as long and no core: there, the chain has this machine to itself.
    """
    plan, workload, model = session.plan, session.workload(MINILM), session.model(MINILM)
    config = plan.serve_config
    with session.mode("openloop", 2 * (len(SHARES) + 3)) as part:
        part.update(shape=MINILM.title, workload=workload.statistics(), seed=SEED)
        session.step("open loop: starting")
        with (
            running_service(session.service_changes(model), config) as service,
            engine_child() as engine,
        ):
            part["info"] = service.info
            raw_like(engine, service, model, workload)
            max_tokens = service.info["max_batch_tokens"]
            timed = partial(engine.passes, plan.duration_s / OPENLOOP_RUNS, max_tokens)
            _open_loops(session, service, workload, timed, part)
        costs = [row["pass"] for row in part["rows"]]
        cost = PassTime(**{key: median(one[key] for one in costs) for key in costs[0]})
        part["own_device"] = alone = {"pass": asdict(cost)}
        session.step("open loop: starting before a stand-in")
        config["applications"][0]["import_path"] = "scripts.bench.standin:build"
        changes = [f"model.id={model}", "engine.name=none"]
        with waiting(cost), running_service(changes, config) as service:
            _open_loops(session, service, workload, partial(exact, cost), alone)


def _open_loops(
    session: Session,
    service: Service,
    workload: Workload,
    timed: Callable[[], list[list[float]]],
    part: dict[str, Any],
) -> None:
    """A lone caller's p50, the capacity, and a row for each share of it, into `part`."""
    plan, endpoint, texts = session.plan, service.endpoint, workload.texts
    load(endpoint, texts, 16, WARM_UP_S)
    session.step("open loop: latency at 1 connection")
    part["p50_at_1_ms"] = load(endpoint, texts, 1, plan.duration_s).p50_ms
    session.step("open loop: capacity")
    rates = [
        load(endpoint, texts, CAPACITY_CONNECTIONS, plan.duration_s).requests_per_s
        for _ in range(2)
    ]
    part["capacity_per_s"] = round(sum(rates) / 2, 1)
    part["rows"] = []
    for share in SHARES:
        session.step(f"open loop: {share:.0%} of capacity")
        rate = share * part["capacity_per_s"]
        part["rows"].append(
            {"share": share, **_beside_the_ideal(service, workload, rate, plan, timed)}
        )


def _beside_the_ideal(
    service: Service,
    workload: Workload,
    rate_per_s: float,
    plan: Plan,
    timed: Callable[[], list[list[float]]],
) -> dict[str, Any]:
    """Runs of Poisson arrivals, with the engine alone timed before and after each.

    Machines get faster and slower within seconds. A run counts against pass times of its own.
    """
    whole_s = enough_s(rate_per_s, LENGTHEN_OPENLOOP * plan.duration_s, 1_000)
    run_s = whole_s / OPENLOOP_RUNS
    asked: list[Asked] = []
    passes, arrivals, cpu = [], [], 0.0
    before = timed()
    for seed in range(SEED, SEED + OPENLOOP_RUNS):
        run, run_cpu = ask(service.endpoint, workload.texts, rate_per_s, run_s, seed)
        after = timed()
        times_s = poisson_times_s(rate_per_s, run_s, seed)
        arrivals.append((times_s, workload.lengths, fitted(before + after)))
        passes += before + after
        asked, before, cpu = asked + run, after, cpu + run_cpu / OPENLOOP_RUNS
    return {
        "rate_per_s": round(rate_per_s, 1),
        **asdict(latencies(asked)),
        "client_cpu": round(cpu, 3),
        **ideal(arrivals, service.info["max_batch_tokens"]),
        "pass": asdict(fitted(passes)),
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
                    load(endpoint, texts, GROWTH_CONNECTIONS, WARM_UP_S)
                    run = load(endpoint, texts, GROWTH_CONNECTIONS, session.plan.duration_s)
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
    with running_service(changes, plan.serve_config) as service, engine_child() as engine:
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
