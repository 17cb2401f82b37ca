"""`engine: auto`: measured once, kept on disk, never fatal."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.engines import hardware, isolation, make_engine, torch_engine
from deployments.engines.auto import AutoEngine, candidates
from deployments.engines.base import EngineUnavailable
from deployments.engines.measurement import REFERENCE, Measured
from deployments.model.cache import CACHE_DIR_ENV
from deployments.pipeline.types import Encoded
from deployments.settings import EngineSettings, ModelSettings, Settings

ONE_TEXT = Encoded(np.arange(5, 9, dtype=np.int32), np.asarray([4], np.int32))


CRASHES_ON_INT8 = """
import os, sys
from importlib.machinery import PathFinder
class Trap:
    def find_spec(self, name, path=None, target=None):
        if name != "deployments.engines.linear":
            return None
        spec = PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            module.Int8Dense.__init__ = lambda *args, **kwargs: os.abort()
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Trap())
"""


class Measurer:
    """Finds every candidate in agreement, bfloat16 the fastest, int8 next; counts its calls."""

    def __init__(self, error: OSError | None = None) -> None:
        self.calls = 0
        self.error = error

    def __call__(
        self, model: ModelSettings, engine: EngineSettings, num_threads: int, dtypes: Sequence[str]
    ) -> list[Measured]:
        self.calls += 1
        if self.error:
            raise self.error
        speeds = {"bfloat16": 300.0, "int8": 200.0, "float32": 50.0}
        return [
            Measured(dtype, {"full": speeds[dtype]}, 0.01, row_tokens=256, agrees=True)
            for dtype in dtypes
        ]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_DIR_ENV, str(tmp_path / "cache"))
    monkeypatch.setattr(hardware, "cpu_has_bfloat16", lambda: True)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model(make_tiny_model: Callable[..., Path]) -> ModelSettings:
    return ModelSettings(id=str(make_tiny_model()))


def loaded(model: ModelSettings, measurer: Measurer, **settings: Any) -> AutoEngine:
    engine = AutoEngine(
        model, EngineSettings(device="cpu", **settings), num_threads=1, measure=measurer
    )
    engine.load()
    return engine


def test_the_choice_is_measured_once_and_then_read(model: ModelSettings) -> None:
    measurer = Measurer()
    first, second = loaded(model, measurer), loaded(model, measurer)
    assert measurer.calls == 1
    assert (first.info().dtype, first.info().selected_by) == ("bfloat16", "measurement")
    assert (second.info().dtype, second.info().selected_by) == ("bfloat16", "cache")
    np.testing.assert_array_equal(first.predict(ONE_TEXT).values, second.predict(ONE_TEXT).values)


def test_other_bounds_threads_or_weights_are_measured_again(
    model: ModelSettings, make_tiny_model: Callable[..., Path]
) -> None:
    measurer = Measurer()
    loaded(model, measurer)
    loaded(model, measurer, max_logit_drift=0.2)
    loaded(ModelSettings(id=str(make_tiny_model(num_labels=3))), measurer)
    loaded(ModelSettings(id=model.id, max_length=32), measurer)
    engine = AutoEngine(model, EngineSettings(device="cpu"), num_threads=2, measure=measurer)
    engine.load()
    assert measurer.calls == 5


def test_a_model_that_was_only_moved_is_not_measured_again(
    model: ModelSettings, tmp_path: Path
) -> None:
    measurer = Measurer()
    loaded(model, measurer)
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in Path(model.id).iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    loaded(ModelSettings(id=str(moved)), measurer)
    assert measurer.calls == 1


def test_without_a_place_for_the_cache_it_measures_each_time_and_says_so(
    model: ModelSettings,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own_cache.write_text("a file in the way")
    measurer = Measurer()
    assert loaded(model, measurer).info().dtype == "bfloat16"
    assert loaded(model, measurer).info().selected_by == "measurement"
    assert measurer.calls == 2
    assert "choices are made anew at each start: set RAYCLASSIFY_CACHE_DIR" in caplog.text


def test_a_cache_that_turned_read_only_stops_no_start(
    model: ModelSettings, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_cache.mkdir()
    (own_cache / "choices").write_text("no directory can be made here")
    (own_cache / "choices.lock").mkdir()
    assert loaded(model, Measurer()).info().selected_by == "measurement"
    assert "can't be cached" in caplog.text
    assert "going on without a lock" in caplog.text


def test_a_damaged_cache_file_is_measured_anew(model: ModelSettings, own_cache: Path) -> None:
    measurer = Measurer()
    loaded(model, measurer)
    (kept,) = (own_cache / "choices").iterdir()
    kept.write_text(kept.read_text()[:200])
    loaded(model, measurer)
    loaded(model, measurer)
    assert measurer.calls == 2


def test_where_the_chosen_engine_loads_no_more_the_next_best_is_taken(
    model: ModelSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    measurer = Measurer()
    loaded(model, measurer)

    def gone(name: str, device: Any) -> str:
        if name == "bfloat16":
            raise EngineUnavailable("gone since the last start")
        return name

    monkeypatch.setattr(torch_engine, "pick_dtype", gone)
    assert loaded(model, measurer).info().dtype == "int8"
    assert measurer.calls == 1
    assert "bfloat16 was measured but does not load (EngineUnavailable)" in caplog.text


def test_where_nothing_can_be_measured_it_is_float32(
    model: ModelSettings, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = loaded(model, Measurer(OSError("no process")))
    assert engine.info().dtype == "float32"
    assert "can't be measured here" in caplog.text
    assert not list(own_cache.glob("choices/*"))  # the next start tries again


@pytest.mark.parametrize(
    "verdict",
    ["failed: OSError", "failed: its process was killed by SIGKILL (out of memory?)"],
)
def test_where_one_failed_the_next_start_measures_again(
    model: ModelSettings, verdict: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk, memory that was short: it may have been chance."""
    measurer = Measurer()

    def unlucky(*task: Any) -> list[Measured]:
        *rows, last = measurer(*task)
        return [*rows, Measured(last.dtype, verdict=verdict)]

    for _ in range(2):
        AutoEngine(model, EngineSettings(device="cpu"), num_threads=1, measure=unlucky).load()
    assert measurer.calls == 2
    assert "the next start measures again" in caplog.text


class Shared:
    """A store that all nodes of an application reach."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        return self.kept.get(key)

    def put(self, key: str, value: str) -> None:
        self.kept[key] = value


def test_what_one_node_measured_no_node_of_the_application_measures_again(
    model: ModelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurer, store = Measurer(), Shared()

    def start(node: str) -> AutoEngine:
        monkeypatch.setenv(CACHE_DIR_ENV, str(tmp_path / node))
        engine = AutoEngine(
            model, EngineSettings(device="cpu"), num_threads=1, store=store, measure=measurer
        )
        engine.load()
        return engine

    assert start("one").info().selected_by == "measurement"
    another = start("another")
    assert (another.info().selected_by, another.info().dtype) == ("cache", "bfloat16")
    assert another.row_tokens == 256
    assert measurer.calls == 1


def test_what_a_nodes_disk_knows_of_an_earlier_cluster_the_others_learn(
    model: ModelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurer = Measurer()
    for node, store in (("one", Shared()), ("one", later := Shared()), ("another", later)):
        monkeypatch.setenv(CACHE_DIR_ENV, str(tmp_path / node))
        AutoEngine(model, EngineSettings(device="cpu"), 1, store=store, measure=measurer).load()
    assert measurer.calls == 1


def test_what_is_kept_and_unreadable_is_measured_again(
    model: ModelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurer, store = Measurer(), Shared()
    for node in ("one", "another"):
        monkeypatch.setenv(CACHE_DIR_ENV, str(tmp_path / node))
        AutoEngine(model, EngineSettings(device="cpu"), 1, store=store, measure=measurer).load()
        store.kept = dict.fromkeys(store.kept, '{"found": {"rows": [1]}}')
    assert measurer.calls == 2


@pytest.mark.parametrize("name", ["auto", "torch"])
def test_a_precision_that_is_named_is_taken_unmeasured(model: ModelSettings, name: str) -> None:
    settings = {"device": "cpu", "name": name, "dtype": "float32"}
    engine = make_engine(Settings(model=model, engine=EngineSettings.model_validate(settings)), 1)
    engine.load()
    assert (engine.info().dtype, engine.info().selected_by) == ("float32", "config")


def test_the_log_shows_the_table(model: ModelSettings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    loaded(model, Measurer())
    lines = caplog.text[caplog.text.index("engine: torch bfloat16, by measurement:") :]
    assert lines.splitlines()[1:4] == [
        "  engine          1  4  16  full  score  rows of  max drift  same labels  verdict",
        "  torch bfloat16  -  -   -   300    300      256       0.01            -  chosen",
        "  torch int8      -  -   -   200    200      256       0.01            -  slower: 0.67×",
    ]


def _start(model_id: str, log: str, together: Any) -> None:
    def measure(*task: Any) -> list[Measured]:
        with Path(log).open("a") as file:
            file.write("measured\n")
        time.sleep(0.5)
        return [Measured(REFERENCE, {"full": 50.0}, 0.0, agrees=True)]

    engine = AutoEngine(ModelSettings(id=model_id), EngineSettings(device="cpu"), 1, None, measure)
    candidates(EngineSettings())  # imports torch
    together.wait(60)
    engine.load()


def test_of_replicas_that_start_together_one_measures(model: ModelSettings, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log, together = tmp_path / "log", context.Barrier(2)
    replicas = [
        context.Process(target=_start, args=(model.id, str(log), together)) for _ in range(2)
    ]
    for replica in replicas:
        replica.start()
    for replica in replicas:
        replica.join()
    assert [replica.exitcode for replica in replicas] == [0, 0]
    assert log.read_text() == "measured\n"


def test_real_engines_are_measured_in_a_process_of_their_own(model: ModelSettings) -> None:
    rows = isolation.measure(model, EngineSettings(device="cpu"), 1, ["float32", "bfloat16"])
    assert [row.dtype for row in rows] == ["float32", "bfloat16"]
    assert all(row.agrees and row.speed > 0 and row.row_tokens for row in rows)
    assert rows[0].max_drift == 0.0


def test_an_engine_that_crashes_its_process_is_a_row_and_the_next_is_measured(
    model: ModelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the process that measures too, as by an instruction that this CPU has not.
    (tmp_path / "sitecustomize.py").write_text(CRASHES_ON_INT8)
    monkeypatch.syspath_prepend(tmp_path)
    engine = AutoEngine(model, EngineSettings(device="cpu"), num_threads=1)
    rows = {row.dtype: row for row in engine.measured()}
    assert rows["int8"].verdict == "failed: its process was killed by SIGABRT"
    assert rows["float32"].agrees
    assert rows["bfloat16"].agrees
    assert not engine.cached()
