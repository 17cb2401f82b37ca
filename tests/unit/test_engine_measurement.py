"""Which engine is chosen, with engines that answer and take time as each test says."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pytest
import torch

from deployments.engines import hardware
from deployments.engines.auto import candidates
from deployments.engines.base import EngineUnavailable
from deployments.engines.measurement import (
    ANSWERS_S,
    CHUNK_TEXTS,
    REFERENCE,
    ROW_TOKENS,
    SIZES,
    TIMING_S,
    Measured,
    Measurement,
    choose,
)
from deployments.engines.parity import compare
from deployments.pipeline.types import Encoded, EngineInfo, Logits
from deployments.settings import EngineSettings

BF16, INT8, FP16 = "bfloat16", "int8", "float16"
DEFAULTS = EngineSettings()
N_TEXTS = 4 * CHUNK_TEXTS

PROBE = Encoded(np.arange(N_TEXTS, dtype=np.int32), np.ones(N_TEXTS, np.int32))


class Clock:
    """Time that passes only where an engine takes some."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Kind:
    """How an engine behaves. s_per_batch: beside its texts; compiles_s: unless it comes again.

    slow_rows: a number of row_tokens with which it takes twice as long; None: it has no rows.
    """

    s_per_text: float = 0.01
    s_per_batch: float = 0.0
    compiles_s: float = 0.0
    slow_rows: int | None = None
    load_s: float = 0.0
    drift: float = 0.0
    error: Exception | None = None
    load_error: Exception | None = None


class StandIn:
    """Text number i is of the first label if i is even, by a logit of 2."""

    def __init__(self, kind: Kind, clock: Clock) -> None:
        self.kind, self.clock = kind, clock
        self.row_tokens = None if kind.slow_rows is None else ROW_TOKENS[0]
        self.last = np.zeros(0, np.int32)

    def load(self) -> None:
        self.clock.now += self.kind.load_s
        if self.kind.load_error:
            raise self.kind.load_error

    def predict(self, batch: Encoded) -> Logits:
        if self.kind.error:
            raise self.kind.error
        slow = 2 if self.row_tokens is not None and self.row_tokens == self.kind.slow_rows else 1
        self.clock.now += slow * self.kind.s_per_text * len(batch) + self.kind.s_per_batch
        if not np.array_equal(batch.input_ids, self.last):
            self.clock.now += self.kind.compiles_s
        self.last = batch.input_ids
        first = np.where(batch.input_ids % 2 == 0, 1.0, -1.0) + self.kind.drift
        return Logits(np.stack([first, -first], axis=1).astype(np.float32))

    def info(self) -> EngineInfo:
        return EngineInfo("stand-in", "cpu", "float32", 1, {})


def rows_of(kinds: dict[str, Kind], settings: EngineSettings = DEFAULTS) -> list[Measured]:
    clock = Clock()
    measurement = Measurement(
        PROBE,
        "single_label_classification",
        settings,
        lambda dtype: StandIn(kinds[dtype], clock),
        clock,
    )
    return [measurement.measure(dtype) for dtype in kinds]


def chosen_of(
    kinds: dict[str, Kind], settings: EngineSettings = DEFAULTS
) -> tuple[Measured, dict[str, Measured]]:
    rows = choose(rows_of(kinds, settings))
    assert rows[0].chosen
    return rows[0], {row.dtype: row for row in rows}


def test_the_fastest_that_agrees_is_chosen() -> None:
    chosen, rows = chosen_of(
        {
            REFERENCE: Kind(0.010),
            BF16: Kind(0.005, drift=0.01),
            INT8: Kind(0.002, drift=0.05),
        }
    )
    assert chosen.dtype == INT8
    assert chosen.speed == pytest.approx(500)
    assert chosen.max_drift == pytest.approx(0.05)
    assert chosen.label_agreement == 1.0
    assert rows[BF16].verdict == "slower: 0.40×"


def test_a_fast_one_that_drifts_is_refused_with_its_figures() -> None:
    chosen, rows = chosen_of(
        {REFERENCE: Kind(0.010), INT8: Kind(0.001, drift=0.31), BF16: Kind(0.005)}
    )
    assert chosen.dtype == BF16
    assert rows[INT8].verdict == "refused: drift 0.31 > 0.1"
    assert not rows[INT8].rates  # and no time is lost on its speed


def test_one_that_is_fast_in_full_batches_only_is_not_taken() -> None:
    chosen, rows = chosen_of({REFERENCE: Kind(0.010), INT8: Kind(0.005, s_per_batch=0.050)})
    int8 = rows[INT8]
    assert int8.rates["full"] > 1.5 * chosen.rates["full"]
    assert int8.rates["1"] < 0.2 * chosen.rates["1"]
    assert chosen.dtype == REFERENCE


def test_the_score_is_the_geometric_mean_over_all_sizes() -> None:
    (row,) = rows_of({REFERENCE: Kind(0.010, s_per_batch=0.010)})
    assert list(row.rates) == [*map(str, SIZES), "full"]
    assert row.rates["1"] == pytest.approx(50)
    assert row.rates["4"] == pytest.approx(80)
    assert row.speed == pytest.approx(np.exp(np.mean(np.log(list(row.rates.values())))))


@pytest.mark.parametrize("slow", ROW_TOKENS)
def test_the_faster_rows_are_found(slow: int) -> None:
    (row,) = rows_of({REFERENCE: Kind(slow_rows=slow)})
    assert row.row_tokens in set(ROW_TOKENS) - {slow}
    assert row.rates["full"] == pytest.approx(100)


def test_an_engine_without_rows_has_none() -> None:
    (row,) = rows_of({REFERENCE: Kind()})
    assert row.row_tokens is None


@pytest.mark.parametrize(("slow_rows", "per_s"), [(0, 100), (None, 20)])
def test_compiling_counts_in_batches_of_few_where_there_is_no_end_of_shapes(
    slow_rows: int | None, per_s: float
) -> None:
    """Packed rows have few sizes: a service has soon compiled them all."""
    (row,) = rows_of({REFERENCE: Kind(compiles_s=0.04, slow_rows=slow_rows)})
    assert row.rates["1"] == pytest.approx(per_s, rel=0.1)


def test_all_engines_together_are_timed_for_some_seconds_only() -> None:
    """BERT-base in float32 on a slow core takes that long for a text."""
    clock = Clock()
    measurement = Measurement(
        PROBE, "regression", DEFAULTS, lambda _: StandIn(Kind(0.07), clock), clock
    )
    for dtype in (REFERENCE, BF16, INT8):
        measurement.measure(dtype)
    answers_s = 3 * (ANSWERS_S + CHUNK_TEXTS * 0.07)
    assert clock.now < 1.25 * TIMING_S + answers_s


def test_one_that_turns_labels_over_is_refused_however_far_it_may_drift() -> None:
    _, rows = chosen_of(
        {REFERENCE: Kind(), INT8: Kind(drift=1.5)}, EngineSettings(max_logit_drift=2.0)
    )
    assert rows[INT8].label_agreement == 0.5
    assert rows[INT8].verdict == "refused: label agreement 0.500 < 0.99"


def test_nan_is_refused() -> None:
    _, rows = chosen_of({REFERENCE: Kind(), INT8: Kind(drift=float("nan"))})
    assert rows[INT8].verdict.startswith("refused: logits are missing, NaN or infinite")
    assert rows[INT8].max_drift is None


@pytest.mark.parametrize(
    ("bf16_s", "int8_s", "taken"),
    [
        (0.0096, 0.0096, REFERENCE),
        (0.0080, 0.0077, BF16),
        (0.0080, 0.0070, INT8),
    ],
)
def test_of_those_that_are_nearly_as_fast_the_most_exact_is_chosen(
    bf16_s: float, int8_s: float, taken: str
) -> None:
    chosen, _ = chosen_of({REFERENCE: Kind(0.010), BF16: Kind(bf16_s), INT8: Kind(int8_s)})
    assert chosen.dtype == taken


def test_one_that_raises_is_reported_and_the_others_are_measured() -> None:
    chosen, rows = chosen_of(
        {
            REFERENCE: Kind(0.010),
            INT8: Kind(error=RuntimeError("a text in the message: 很好")),
            FP16: Kind(load_error=EngineUnavailable("no such device. Set cpu.")),
            BF16: Kind(0.005),
        }
    )
    assert chosen.dtype == BF16
    assert rows[INT8].verdict == "failed: RuntimeError"
    assert rows[FP16].verdict == "failed: no such device. Set cpu."


def test_without_a_reference_nothing_is_chosen() -> None:
    kinds = {REFERENCE: Kind(load_error=OSError()), BF16: Kind()}
    rows = choose(rows_of(kinds))
    assert not any(row.chosen for row in rows)
    assert rows[1].verdict == "skipped: float32 gave nothing to compare with"


def test_a_slow_reference_answers_fewer_texts_and_the_others_are_compared_on_these() -> None:
    kinds = {REFERENCE: Kind(1.01 * ANSWERS_S / CHUNK_TEXTS), BF16: Kind(0.001)}
    rows = rows_of(kinds)
    assert rows[0].speed == pytest.approx(CHUNK_TEXTS / ANSWERS_S, rel=0.02)
    assert rows[1].label_agreement == 1.0
    assert choose(rows)[0].dtype == BF16


def test_the_reference_is_taken_where_none_other_agrees() -> None:
    chosen, rows = chosen_of({REFERENCE: Kind(), INT8: Kind(0.001, drift=3.0)})
    assert chosen.dtype == REFERENCE
    assert rows[INT8].verdict.startswith("refused: drift")


def test_only_one_engine_is_in_memory_at_a_time() -> None:
    living: weakref.WeakSet[StandIn] = weakref.WeakSet()
    at_most = 0
    clock = Clock()

    def make(dtype: str) -> StandIn:
        nonlocal at_most
        engine = StandIn(Kind(), clock)
        engine.itself = engine  # type: ignore[attr-defined]  # only the collector frees it
        living.add(engine)
        at_most = max(at_most, len(living))
        return engine

    measurement = Measurement(PROBE, "single_label_classification", DEFAULTS, make, clock)
    for dtype in (REFERENCE, BF16, INT8):
        measurement.measure(dtype)
    assert at_most == 1


def test_rows_survive_the_way_to_disk() -> None:
    for row in rows_of({REFERENCE: Kind(), INT8: Kind(error=ValueError())}):
        assert Measured(**json.loads(json.dumps(asdict(row)))) == row


def logits(*rows: Sequence[float]) -> np.ndarray:
    return np.asarray(rows, np.float32)


def test_a_text_that_the_reference_itself_finds_hard_may_turn_over() -> None:
    reference = logits([0.02, 0.0], [3.0, 0.0])
    turned = logits([0.0, 0.02], [3.0, 0.0])
    agreement = compare(reference, turned, "single_label_classification", EngineSettings())
    assert agreement.refusal is None
    assert agreement.label_agreement == 1.0


def test_where_every_text_is_hard_only_the_drift_counts() -> None:
    reference = logits([0.02, 0.0])
    same = compare(reference, reference, "single_label_classification", EngineSettings())
    assert (same.label_agreement, same.refusal) == (None, None)


def test_several_labels_count_each_for_itself() -> None:
    reference = logits([1.0, -1.0, 0.05], [1.0, 1.0, 1.0])
    values = logits([1.0, -1.0, -0.05], [1.0, 1.0, -1.0])
    settings = EngineSettings(max_logit_drift=5.0)
    agreement = compare(reference, values, "multi_label_classification", settings)
    assert agreement.label_agreement == 0.5


def test_a_regression_has_no_labels() -> None:
    reference, values = logits([1.0], [-0.2]), logits([1.04], [-0.16])
    assert compare(reference, values, "regression", EngineSettings()).refusal is None
    far = compare(reference, values, "regression", EngineSettings(max_logit_drift=0.01))
    assert far.refusal == "refused: drift 0.04 > 0.01"


Fit = Callable[..., list[str]]


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> Fit:
    def fit(device: str = "cpu", bf16: bool = True, dtype: str = "auto") -> list[str]:
        monkeypatch.setattr(hardware, "pick_device", lambda name: torch.device(name))
        monkeypatch.setattr(hardware, "cpu_has_bfloat16", lambda: bf16)
        return candidates(EngineSettings.model_validate({"device": device, "dtype": dtype}))

    return fit


def test_candidates_are_what_the_device_has_unless_one_is_named(fit: Fit) -> None:
    assert fit() == ["float32", "int8", "bfloat16"]
    assert fit(dtype="int8") == ["int8"]


def test_bfloat16_needs_a_cpu_that_has_it_unless_it_is_named(fit: Fit) -> None:
    assert fit(bf16=False) == ["float32", "int8"]
    assert fit(bf16=False, dtype="bfloat16") == ["bfloat16"]


def test_a_gpu_has_half_precision_and_no_int8(fit: Fit) -> None:
    assert fit("cuda") == ["float32", "bfloat16", "float16"]
    assert fit("mps") == ["float32", "float16"]
    assert fit("cuda", dtype="int8") == ["int8"]  # refused when it loads
