"""What the steps of a start took, each by itself."""

from __future__ import annotations

import pytest

from deployments.model import steps
from deployments.model.steps import Steps, step
from deployments.scaling.starts import Start, read_start


def test_a_step_within_another_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(steps.time, "monotonic", lambda: now[0])
    collected = Steps()
    with collected.collected(), step("proof"):
        now[0] += 1
        with step("weights"):
            now[0] += 5
        now[0] += 2
        with step("weights"):
            now[0] += 1
    assert collected.seconds == {"weights": 6.0, "proof": 3.0}


def test_nobody_is_charged_where_nobody_collects() -> None:
    with step("weights"):
        pass
    collected = Steps()
    with collected.collected():
        pass
    with pytest.raises(OSError, match="gone"), collected.collected(), step("weights"):
        raise OSError("gone")
    assert list(collected.seconds) == ["weights"]


def test_what_a_replica_wrote_is_read_back_and_else_nothing() -> None:
    start = Start(11.0, 15.0, {"files": 1.0})
    assert read_start(start.to_json()) == start
    for text in ("", "{broken", "[]", '{"began": 1}'):
        assert read_start(text) is None
