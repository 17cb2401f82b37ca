"""Engines in a process of their own: which there are, how they are asked, and what answers."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deployments.pipeline.types import Encoded

from .child import Child, answer_lines, child
from .flops import Products, flops
from .models import SHAPES
from .workload import SEED, Workload, batches

MAX_BATCH_TOKENS = 4_096
_MIN_BATCHES = 2
# Until an engine of several threads has tried its ways of sharing a batch.
_WARM_UP_BATCHES = 6
PASS_TEXTS = (1, 4, 16, 256)


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """An engine of ours by its settings, or `transformers` alone by the size of its batches."""

    name: str
    dtype: str
    packing: bool = True
    batch_size: int | None = None  # of plain transformers

    @property
    def title(self) -> str:
        if self.batch_size == 1:
            return f"transformers {self.dtype}, one text at a time"
        if self.batch_size:
            return f"transformers {self.dtype}, {self.batch_size} texts padded"
        return f"{self.name} {self.dtype}{'' if self.packing else ', padded'}"


REFERENCES = (
    EngineSpec("transformers", "float32", batch_size=32),
    EngineSpec("transformers", "float32", batch_size=1),
)
ENGINES = (
    *(EngineSpec("torch", dtype, packing) for dtype in ("float32", "bfloat16", "int8")
      for packing in (False, True)),
)  # fmt: skip


class EngineChild:
    """An engine that is loaded and waits to be asked."""

    def __init__(self, process: Child) -> None:
        self._process = process
        self.info: dict[str, Any] = {}

    def load(self, spec: EngineSpec, model: Path, num_threads: int, workload: Workload) -> None:
        """Loads the engine and gives it the texts to measure with."""
        with tempfile.NamedTemporaryFile(suffix=".npz") as file:
            np.savez(file, ids=workload.encoded.input_ids, lengths=workload.lengths)
            file.flush()
            self.info = self._process.ask(
                do="load",
                name=spec.name,
                dtype=spec.dtype,
                packing=spec.packing,
                batch_size=spec.batch_size,
                model=str(model),
                num_threads=num_threads,
                texts=file.name,
            )

    def rate(self, duration_s: float, max_tokens: int = MAX_BATCH_TOKENS) -> dict[str, float]:
        """Texts and tokens a second over whole batches, for at least `duration_s`.

        `texts_per_s` is that of texts of the workload's mean length, however far it came.
        """
        return self._process.ask(do="rate", duration_s=duration_s, max_tokens=max_tokens)

    def single_ms(self, max_s: float) -> list[float]:
        """Milliseconds of each text alone, in order, as far as it comes in `max_s` seconds."""
        times: list[float] = self._process.ask(do="single", max_s=max_s)["ms"]
        return times

    def passes(self, duration_s: float, max_tokens: int) -> list[list[float]]:
        """[tokens, Σ tokens of each text², seconds] of passes of 1, 4, 16 and all that fit."""
        found: list[list[float]] = self._process.ask(
            do="passes", duration_s=duration_s, max_tokens=max_tokens
        )["passes"]
        return found

    def beside_peak(
        self, shape: str, precision: str, n_texts: int | None, duration_s: float
    ) -> dict[str, float]:
        """Batches of `n_texts` (None: full ones) and the model's fastest product in turns.

        texts_per_s: as `rate`. gflops, peak_gflops: 1e9 operations a second of either.
        """
        return self._process.ask(
            do="beside_peak",
            shape=shape,
            precision=precision,
            n_texts=n_texts,
            duration_s=duration_s,
        )


@contextmanager
def engine_child() -> Iterator[EngineChild]:
    with child("scripts.bench.engines") as process:
        yield EngineChild(process)


class Predicts(Protocol):
    def predict(self, batch: Encoded) -> Any: ...


class Transformers:
    """The class's own forward, every batch padded to its longest text."""

    def __init__(self, model: str, dtype: str, num_threads: int) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification

        torch.set_num_threads(num_threads)
        self._torch = torch
        self._model = AutoModelForSequenceClassification.from_pretrained(
            model, dtype=getattr(torch, dtype)
        ).eval()

    def predict(self, batch: Encoded) -> Any:
        torch = self._torch
        ids = torch.zeros((len(batch), int(batch.lengths.max())), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(batch.split()):
            ids[row, : text.total_tokens] = torch.from_numpy(text.input_ids)
            mask[row, : text.total_tokens] = 1
        with torch.inference_mode():
            return self._model(input_ids=ids, attention_mask=mask).logits.float().numpy()


class Worker:
    """One engine and the texts to ask it."""

    def __init__(self) -> None:
        self._engine: Predicts | None = None
        self._texts = Encoded(np.zeros(0, np.int32), np.zeros(0, np.int32))
        self._batch_size: int | None = None
        self._products: Products | None = None
        self._num_threads = 1

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        do = question.pop("do")
        answered: dict[str, Any] = getattr(self, f"_{do}")(**question)
        return answered

    def _load(self, texts: str, batch_size: int | None, **wanted: Any) -> dict[str, Any]:
        with np.load(texts) as arrays:
            self._texts = Encoded(arrays["ids"], arrays["lengths"])
        self._batch_size, self._num_threads = batch_size, wanted["num_threads"]
        if batch_size:
            self._engine = Transformers(wanted["model"], wanted["dtype"], wanted["num_threads"])
            info = {"dtype": wanted["dtype"], "batching": "padded"}
        else:
            self._engine, info = _engine_of_ours(**wanted)
        self._engine.predict(Encoded.concat(self._texts.split()[:8]))
        return info

    def _rate(self, duration_s: float, max_tokens: int) -> dict[str, float]:
        todo = self._batches(max_tokens)
        done = texts = tokens = 0
        started = time.perf_counter()
        while done < _MIN_BATCHES or time.perf_counter() - started < duration_s:
            batch = todo[done % len(todo)]
            self._predict(batch)
            done, texts, tokens = done + 1, texts + len(batch), tokens + batch.total_tokens
        seconds = time.perf_counter() - started
        mean_tokens = self._texts.total_tokens / len(self._texts)
        return {
            "texts_per_s": round(tokens / seconds / mean_tokens, 2),
            "tokens_per_s": round(tokens / seconds, 1),
            "texts": texts,
            "seconds": round(seconds, 2),
        }

    def _single(self, max_s: float) -> dict[str, list[float]]:
        times_ms: list[float] = []
        deadline = time.perf_counter() + max_s
        for text in self._texts.split():
            started = time.perf_counter()
            if started > deadline:
                break
            self._predict(text)
            times_ms.append(round((time.perf_counter() - started) * 1_000, 3))
        return {"ms": times_ms}

    def _passes(self, duration_s: float, max_tokens: int) -> dict[str, list[list[float]]]:
        """Of all sizes in turn, of texts drawn anew each time."""
        texts, rng = self._texts.split(), np.random.default_rng(SEED)
        passes: list[list[float]] = []
        deadline = time.perf_counter() + duration_s
        while time.perf_counter() < deadline or len(passes) < len(PASS_TEXTS):
            drawn = [texts[i] for i in rng.permutation(len(texts))]
            size = PASS_TEXTS[len(passes) % len(PASS_TEXTS)]
            batch = batches(Encoded.concat(drawn[:size]), max_tokens)[0]
            started = time.perf_counter()
            self._predict(batch)
            seconds = time.perf_counter() - started
            squares = float((batch.lengths.astype(np.float64) ** 2).sum())
            passes.append([batch.total_tokens, squares, seconds])
        return {"passes": passes}

    def _beside_peak(
        self, shape: str, precision: str, n_texts: int | None, duration_s: float
    ) -> dict[str, float]:
        if self._products is None:
            self._products = Products(SHAPES[shape], precision, self._num_threads)
        todo = (
            self._batches(MAX_BATCH_TOKENS) if n_texts is None else _of_size(self._texts, n_texts)
        )
        for batch in islice(cycle(todo), 0 if self._batch_size else _WARM_UP_BATCHES):
            self._predict(batch)
        passes_s = work = possible = 0.0
        passes = tokens = 0
        while passes < _MIN_BATCHES or passes_s < duration_s:
            batch = todo[passes % len(todo)]
            started = time.perf_counter()
            self._predict(batch)
            took_s = time.perf_counter() - started
            passes, passes_s = passes + 1, passes_s + took_s
            tokens += batch.total_tokens
            work += flops(SHAPES[shape], batch.lengths)
            # What else the machine does, and how fast it lets us be, changes by the second.
            possible += took_s * self._products.gflops(took_s / 2)
        mean_tokens = self._texts.total_tokens / len(self._texts)
        return {
            "texts_per_s": round(tokens / passes_s / mean_tokens, 2),
            "gflops": round(work / passes_s / 1e9, 1),
            "peak_gflops": round(possible / passes_s, 1),
        }

    def _batches(self, max_tokens: int) -> list[Encoded]:
        if not self._batch_size:
            return batches(self._texts, max_tokens)
        return _of_size(self._texts, self._batch_size)

    def _predict(self, batch: Encoded) -> None:
        assert self._engine is not None  # noqa: S101
        self._engine.predict(batch)


def _of_size(encoded: Encoded, n_texts: int) -> list[Encoded]:
    texts = encoded.split()
    return [Encoded.concat(texts[i : i + n_texts]) for i in range(0, len(texts), n_texts)]


def _engine_of_ours(
    name: str, dtype: str, packing: bool, model: str, num_threads: int
) -> tuple[Predicts, dict[str, Any]]:
    from dataclasses import asdict

    from deployments.engines.loaded import load_engine
    from deployments.settings import EngineSettings, ModelSettings, Settings

    fields = {"name": name, "dtype": dtype, "packing": packing, "num_threads": num_threads}
    settings = Settings(model=ModelSettings(id=model), engine=EngineSettings.model_validate(fields))
    engine = load_engine(settings, num_threads)
    return engine, asdict(engine.info())


if __name__ == "__main__":
    # Not in the main thread, as in the service: OpenMP's threads spin for each other otherwise,
    # which on a machine that is busy makes an engine slower than it is there.
    thread = threading.Thread(target=answer_lines, args=(Worker().answer,))
    thread.start()
    thread.join()
