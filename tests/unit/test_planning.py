"""Queues by formula agree with single calls simulated; the simulation with policy and formula."""

from __future__ import annotations

import asyncio
import dataclasses
import math

import numpy as np
import pytest
from ray.serve.config import AutoscalingConfig
from virtual_time import VirtualModel, run_virtually, texts

from deployments.bench.latencies import poisson_times_s
from deployments.planning import serve_delays, traces
from deployments.planning.gpus import GPUS, SHAPES, estimated
from deployments.planning.queueing import BatchQueue, Calls, Device, event_loop_waits_s
from deployments.planning.serve_delays import Autoscaler
from deployments.planning.service_times import MEASURED, Traffic
from deployments.planning.simulation import Fixed, Pool, Simulation
from deployments.planning.stages import Replicas, microbatches, steady
from deployments.scaling.policy import BUSY, FollowWork, Work
from scripts.bench import flops
from scripts.bench.ideal import PassTime, latencies_s
from scripts.bench.models import MINILM

SMALL = Device(0.02, 20_000, 8_192)
GPU = Device(0.003, 1_000_000, 32_768)
SCALING = {
    "min_replicas": 1, "max_replicas": 8, "metrics_interval_s": 1.0, "look_back_period_s": 10.0,
    "upscale_delay_s": 5.0, "downscale_delay_s": 60.0,
    "policy": {"policy_function": "deployments.scaling.policy:FollowWork", "policy_kwargs": {}},
}  # fmt: skip
LISTS = Traffic(64, 32, 0.0)


def single_calls_s(device: Device, rate_per_s: float, tokens: float, spread: float) -> np.ndarray:
    """Latency of 25,000 calls, one after the other, through the benchmark's own simulation."""
    times_s = poisson_times_s(rate_per_s, 25_000 / rate_per_s, seed=1)
    sizes = np.full(len(times_s), tokens)
    if spread:
        shape = 1 / spread**2
        sizes = np.random.default_rng(7).gamma(shape, tokens / shape, len(times_s)).clip(1)
    cost = PassTime(device.start_s, 1 / device.tokens_per_s, 0.0)
    return latencies_s(times_s, sizes, cost, 10**9, device.max_batch_tokens)


@pytest.mark.parametrize(
    ("device", "tokens", "spread"),
    [
        (Device(0.0, 10_000, 100), 100, 0.0),  # one call a pass: M/D/1
        (SMALL, 2_048, 0.0),  # four calls a pass
        (GPU, 2_400, 0.3),  # micro-batches
        (GPU, 80, 1.0),  # single texts of many lengths, hundreds a pass
    ],
)
@pytest.mark.parametrize("load", [0.4, 0.85])
def test_the_formula_agrees_with_single_calls(
    device: Device, tokens: float, spread: float, load: float
) -> None:
    rate = load * device.capacity_tokens_per_s / tokens
    queue = BatchQueue(device, Calls(rate, tokens, tokens**2 * (1 + spread**2)))
    by_formula, one_by_one = queue.samples_s(), single_calls_s(device, rate, tokens, spread)
    assert by_formula.mean() == pytest.approx(one_by_one.mean(), rel=0.06)
    for level in (0.5, 0.95, 0.99):
        assert np.quantile(by_formula, level) == pytest.approx(
            np.quantile(one_by_one, level), rel=0.1
        )


def real_batcher_s(device: Device, rate_per_s: float, tokens: int, n: int) -> np.ndarray:
    """Latency of calls through the queue that serves, in virtual time."""

    async def main() -> np.ndarray:
        loop = asyncio.get_running_loop()
        batcher = VirtualModel(lambda read, longest: device.pass_s(read)).batcher(
            max_batch_tokens=device.max_batch_tokens
        )
        took: list[float] = []

        async def ask() -> None:
            began = loop.time()
            await batcher.submit(texts(tokens), np.full(1, 1e3, np.float32))
            took.append(loop.time() - began)

        tasks = []
        for at in poisson_times_s(rate_per_s, n / rate_per_s, seed=3):
            await asyncio.sleep(max(0.0, at - loop.time()))
            tasks.append(loop.create_task(ask()))
        await asyncio.gather(*tasks)
        return np.array(took)

    return run_virtually(main())


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_the_formula_agrees_with_the_queue_that_serves(load: float) -> None:
    device = Device(0.02, 20_000, 4_096)
    queue = BatchQueue(device, Calls(load * device.capacity_tokens_per_s / 512, 512, 512**2))
    real, formula = real_batcher_s(device, queue.calls.rate_per_s, 512, 4_000), queue.samples_s()
    assert formula.mean() == pytest.approx(real.mean(), rel=0.08)
    for level in (0.5, 0.95):
        assert np.quantile(formula, level) == pytest.approx(np.quantile(real, level), rel=0.12)


def test_with_one_call_a_pass_the_mean_is_pollaczek_and_khinchines() -> None:
    for load in (0.2, 0.5, 0.8):
        queue = BatchQueue(Device(0.0, 10_000, 100), Calls(100 * load, 100, 10_000))
        assert queue.busy == pytest.approx(load, rel=0.01)
        exact = 0.01 * (1 + load / (2 * (1 - load)))
        assert queue.samples_s().mean() == pytest.approx(exact, rel=0.05)


def test_a_replica_that_batches_looks_busy_long_before_it_is_full() -> None:
    """So the share of busy time says little of how much more a fast device could read."""
    rate = 0.2 * GPU.capacity_tokens_per_s / 80
    queue = BatchQueue(GPU, Calls(rate, 80, 2 * 80**2))
    assert queue.utilisation == pytest.approx(0.2)
    assert queue.busy > 0.99


@pytest.mark.parametrize("load", [0.0, 1.0, 3.0])
def test_a_queue_without_a_balance_is_an_error_with_numbers(load: float) -> None:
    with pytest.raises(ValueError, match="full passes read 19,0"):
        BatchQueue(SMALL, Calls(load * SMALL.capacity_tokens_per_s / 64, 64, 64**2))


def test_an_event_loop_waits_as_m_m_1() -> None:
    levels = (np.arange(100_000) + 0.5) / 100_000
    waits = event_loop_waits_s(600, 0.001, levels)
    assert waits.mean() == pytest.approx(0.6 * 0.001 / 0.4, rel=0.01)
    assert (waits == 0).mean() == pytest.approx(0.4, rel=0.01)
    with pytest.raises(ValueError, match="fill a core"):
        event_loop_waits_s(1_000, 0.001, levels)


def test_microbatches_hold_all_that_comes_and_no_more_than_they_may() -> None:
    for rate in (1.0, 100.0, 3_000.0, 1e6):
        calls, waits = microbatches(rate, Traffic(80), MEASURED, 0.02)
        assert calls.tokens_per_s == pytest.approx(80 * rate)
        assert calls.mean_tokens <= 80 * MEASURED.max_microbatch_texts + 1e-6
        assert 0 <= waits <= 1
    few, many = (microbatches(r, Traffic(80), MEASURED, 0.02)[0] for r in (1.0, 3_000.0))
    assert few.mean_tokens == pytest.approx(80, rel=0.02)
    assert many.mean_tokens == pytest.approx(80 * 30, rel=0.05)


def test_more_replicas_answer_no_later_and_more_requests_no_sooner() -> None:
    def p99(rate: float, classifiers: int) -> float:
        return steady(rate, Replicas(2, classifiers, 2), LISTS, MEASURED, SMALL).quantile_s(0.99)

    assert p99(20, 3) > p99(20, 4) > p99(20, 8)
    assert p99(10, 4) < p99(20, 4) < p99(30, 4)
    with pytest.raises(ValueError, match="3 Classifiers have 3"):
        p99(30, 3)


def test_flops_are_the_benchmarks() -> None:
    shape = SHAPES["minilm"]
    assert (shape.layers, shape.hidden) == (MINILM.layers, MINILM.hidden)
    theirs = flops.flops(MINILM, [100]) / 100
    assert shape.flops_per_token(100) == pytest.approx(theirs, rel=0.01)  # the head apart
    assert estimated(GPUS["h100"], shape, 80, 1).tokens_per_s > 1e6


def serve_says(autoscaler: Autoscaler, follow: FollowWork, work: Work, now: float) -> float:
    """What `FollowWork.__call__` answers Serve for that work, told by one replica's numbers."""
    sample = type("Sample", (), {"timestamp": now, "value": work.busy})
    wait = type("Sample", (), {"timestamp": now, "value": work.wait_s})
    context = type("Context", (), {
        "app_name": "plan", "deployment_name": "Classifier", "current_time": now,
        "raw_metrics": {BUSY: {"a": [sample]}, "wait_s": {"a": [wait]}},
        "current_num_replicas": 1, "target_num_replicas": 1, "config": autoscaler.config,
        "capacity_adjusted_min_replicas": 1, "capacity_adjusted_max_replicas": 8,
    })  # fmt: skip
    return follow(context)[0]


def test_the_simulation_drives_the_policy_that_serve_drives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each number that Serve's delays are given is the one that the policy gives Serve."""
    seen: list[float] = []
    factors = serve_delays._apply_scaling_factors
    monkeypatch.setattr(
        serve_delays,
        "_apply_scaling_factors",
        lambda wanted, *args: (seen.append(wanted), factors(wanted, *args))[1],
    )
    autoscaler, follow = Autoscaler(SCALING), FollowWork()
    for k, (busy, wait_s) in enumerate([(0.3, 0.0), (0.9, 0.4), (1.0, 5.5), (0.2, 0.0)]):
        work = Work(busy, wait_s, 1)
        autoscaler.target(work, 100.0 + k, target=1, running=1)
        assert seen[-1] == pytest.approx(serve_says(autoscaler, follow, work, 100.0 + k))


def scaled(trace: np.ndarray, **changes: float) -> tuple[Pool, np.ndarray]:
    pool = Pool(1, Autoscaler({**SCALING, **changes}), start_s=6.0)
    simulation = Simulation([Pool(2), pool, Pool(2)], LISTS, MEASURED, SMALL, slo_s=1.0)
    return pool, simulation.run(trace).running["Classifier"]


def test_a_crowd_brings_replicas_after_serves_delay_and_their_start() -> None:
    per_s = SMALL.capacity_tokens_per_s / LISTS.request_tokens
    trace = np.where(np.arange(90) < 20, 0.3, 4.0) * per_s
    _, running = scaled(trace)
    first = int(np.argmax(running > 1))
    assert 20 + 5 + 6 <= first <= 20 + 5 + 6 + 3
    assert running[-1] >= 5


def test_quiet_lets_them_go_after_the_delay_and_never_below_the_least() -> None:
    per_s = SMALL.capacity_tokens_per_s / LISTS.request_tokens
    trace = np.where(np.arange(900) < 60, 3.0, 0.05) * per_s
    _, running = scaled(trace)
    assert running.max() >= 4
    fell = int(np.argmax(np.diff(running) < 0))
    assert fell >= 60 + SCALING["downscale_delay_s"] - 1
    assert running[-1] == 1


def test_nothing_is_lost_refusals_apart_and_what_waits_is_answered_later() -> None:
    per_s = 2 * SMALL.capacity_tokens_per_s / LISTS.request_tokens
    trace = np.where(np.arange(60) < 10, 1.5, 0.1) * per_s
    pools = [Pool(2, Fixed()), Pool(2, Fixed()), Pool(2, Fixed())]
    found = Simulation(pools, LISTS, MEASURED, SMALL, slo_s=1.0).run(trace)
    came = (found.arrivals_per_s * (1 - found.refused)).sum()
    assert found.answered_per_s.sum() == pytest.approx(came, rel=1e-6)
    assert found.refused.sum() == 0
    assert found.p99_s[9] > 4 > found.p99_s[-1]
    assert 0.2 < found.attainment < 0.9


def test_who_would_wait_too_long_is_refused_and_nobody_waits_longer() -> None:
    per_s = 2 * SMALL.capacity_tokens_per_s / LISTS.request_tokens
    pools = [Pool(2, Fixed()), Pool(2, Fixed()), Pool(2, Fixed())]
    simulation = Simulation(pools, LISTS, MEASURED, SMALL, slo_s=1.0, max_queue_s=5.0)
    found = simulation.run(np.full(120, 3 * per_s))
    assert found.refused[-1] == pytest.approx(2 / 3, abs=0.02)
    assert found.p50_s.max() < 5.0 + 2 * SMALL.full_pass_s + 1
    assert found.answered_per_s[-1] == pytest.approx(per_s, rel=0.02)


def test_nodes_come_late_and_stay_for_a_while() -> None:
    pool = Pool(4, per_node=4, start_s=5.0, node_start_s=60.0, idle_s=100.0)

    class Steps(Fixed):
        def target(self, work: Work, now: float, *, target: int, running: int) -> int:
            return 6 if now < 100 else 4

    pool.scaler = Steps()
    running, nodes = [], []
    for now in range(300):
        pool.begin(now)
        pool.end(now, Work(0, 0, pool.running))
        running.append(pool.running)
        nodes.append(pool.nodes)
    assert running[64] == 4
    assert running[65] == 6
    assert nodes[0] == 2
    assert nodes[150] == 2
    assert nodes[-1] == 1


def test_a_replica_on_a_node_that_is_still_awaited_waits_for_it_too() -> None:
    pool = Pool(4, per_node=4, start_s=5.0, node_start_s=60.0)

    class Steps(Fixed):
        def target(self, work: Work, now: float, *, target: int, running: int) -> int:
            return 5 if now < 10 else 7

    pool.scaler = Steps()
    running = []
    for now in range(80):
        pool.begin(now)
        pool.end(now, Work(0, 0, pool.running))
        running.append(pool.running)
    assert running[64] == 4
    assert running[65] == 7


def test_a_quantile_over_windows_is_that_of_each_where_all_are_alike() -> None:
    rate = 0.7 * GPU.capacity_tokens_per_s / 80
    pools = [Pool(20), Pool(1), Pool(8)]
    found = Simulation(pools, Traffic(80), MEASURED, GPU, slo_s=1.0).run(np.full(30, rate))
    settled = slice(20, 30)
    assert found.quantile_s(0.5, settled) == pytest.approx(found.p50_s[-1], rel=0.01)
    assert found.quantile_s(0.99, settled) == pytest.approx(found.p99_s[-1], rel=0.01)


def test_a_day_is_lowest_at_3_and_a_crowd_fades() -> None:
    trace = traces.day(1_000.0, 0.25, step_s=60)
    assert len(trace) == 1_440
    assert np.argmin(trace) == 180
    assert np.argmax(trace) == 900
    assert (trace.min(), trace.max()) == (pytest.approx(250), pytest.approx(1_000))
    crowd = traces.with_crowd(np.ones(1_000), 100, 4.0, 50, 10)
    assert crowd[99] == 1
    assert crowd[115] == pytest.approx(4)
    assert crowd[200] == pytest.approx(1 + 3 / 2, rel=0.02)
    assert math.isclose(crowd[-1], 1, rel_tol=1e-3)


def test_serves_config_is_what_the_policy_is_driven_with() -> None:
    config = Autoscaler(SCALING).config
    assert isinstance(config, AutoscalingConfig)
    assert config.upscale_delay_s == SCALING["upscale_delay_s"]
    with pytest.raises(ValueError, match="target_busy is 2"):
        Autoscaler(
            {**SCALING, "policy": {**SCALING["policy"], "policy_kwargs": {"target_busy": 2}}}
        )
    assert dataclasses.is_dataclass(Pool)
