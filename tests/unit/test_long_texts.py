"""Long and nasty texts: the same tokens for less work, never the square of it, and nobody waits."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from virtual_time import after

from deployments.pipeline.errors import InvalidInput, TextTooLong
from deployments.pipeline.gate import Gate
from deployments.pipeline.microbatch import LONG_CHARS, MicroBatcher, Result
from deployments.pipeline.tokenize import Beginnings, TextEncoder
from deployments.pipeline.types import Options, TextInput
from tests.trials.corpus import NASTY_UNITS

MAX_LENGTH = 16
PIECES = [
    *NASTY_UNITS.values(), " ", "  ", "\n", "\u3000", "\u0301", "\x0b", "\x85", "\u2028", "\x00",
    "[SEP]", "[MASK]", "[", "很", "豈", "々", "か", "ß", "İ", "Σ", "good", "Text", "classification",
    "ab" * 60, "，", "!", "9", "\U0001f600",
]  # fmt: skip


def load(demo_model: Path, **normalizer: Any) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(demo_model / "tokenizer.json"))
    tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)
    return tokenizer


VARIANTS: dict[str, dict[str, Any]] = {
    "uncased": {},
    "cased": {"lowercase": False},
    "accents kept": {"strip_accents": False},
    "words of ideographs": {"handle_chinese_chars": False},
    "not cleaned": {"clean_text": False},
}


@cache
def both(demo_model: Path, variant: str) -> tuple[Tokenizer, TextEncoder]:
    """The library's own way, and ours."""
    reference = load(demo_model, **VARIANTS[variant])
    reference.enable_truncation(MAX_LENGTH)
    return reference, TextEncoder(load(demo_model, **VARIANTS[variant]), MAX_LENGTH)


@pytest.mark.parametrize("variant", VARIANTS)
@given(
    parts=st.lists(
        st.tuples(
            st.sampled_from(PIECES) | st.text(st.characters(codec="utf-8"), max_size=9),
            st.integers(1, 120),
        ),
        max_size=12,
    )
)
@settings(max_examples=150, deadline=None)
def test_a_beginning_gives_the_tokens_of_the_whole_text(
    demo_model: Path, variant: str, parts: list[tuple[str, int]]
) -> None:
    text = "".join(piece * times for piece, times in parts)
    reference, encoder = both(demo_model, variant)
    expected = reference.encode(text)
    found = encoder._encode_one(TextInput(text))
    assert found.ids == expected.ids
    assert bool(found.overflowing) is bool(expected.overflowing)


def test_the_search_above_has_texts_that_are_cut(demo_model: Path) -> None:
    rng = random.Random(2)
    beginnings = Beginnings(load(demo_model), MAX_LENGTH)
    texts = ["".join(rng.choice(PIECES) * rng.randrange(120) for _ in range(6)) for _ in range(99)]
    assert sum(len(list(beginnings.of(text))) > 1 for text in texts) > 20


def with_other_words(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()


def with_a_token_that_looks_right(tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens([AddedToken("abc", single_word=True)])


def with_a_token_of_two_words(tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens(["very good"])


@pytest.mark.parametrize(
    "change", [with_other_words, with_a_token_that_looks_right, with_a_token_of_two_words]
)
def test_where_a_cut_might_show_all_of_the_text_is_read(
    demo_model: Path, change: Callable[[Tokenizer], None]
) -> None:
    tokenizer = load(demo_model)
    change(tokenizer)
    text = "very good 很好 " * 1_000
    assert list(Beginnings(tokenizer, MAX_LENGTH).of(text)) == [text]


def test_what_is_behind_the_cut_is_still_refused_where_it_must_be(demo_model: Path) -> None:
    encoder = TextEncoder(load(demo_model), MAX_LENGTH)
    encoded = encoder.encode([TextInput("很好" * 1_000 + "\ud800"), TextInput("很好")])
    assert encoded.index == [1]
    assert isinstance(encoded.errors[0], InvalidInput)
    encoded = encoder.encode([TextInput("很好" * 1_000, options=Options(truncation=False))])
    assert isinstance(encoded.errors[0], TextTooLong)
    assert encoded.errors[0].message.startswith("text has 2002 tokens; the limit is 16.")


@pytest.mark.parametrize("unit", ["很好", "good ", "a", "\u200b ", "한", "!"])
def test_what_the_tokenizer_is_given_grows_no_faster_than_the_text(
    demo_model: Path, unit: str
) -> None:
    beginnings = Beginnings(load(demo_model), MAX_LENGTH)
    for n in (100, 10_000, 1_000_000):
        text = (unit * n)[:n]
        given_chars = [len(part) for part in beginnings.of(text)]
        assert given_chars == sorted(given_chars)
        assert given_chars[-1] == n
        assert sum(given_chars) < 2 * n


def test_of_an_ordinary_long_text_only_the_beginning_is_read(demo_model: Path) -> None:
    tokenizer = load(demo_model)
    encoder, read = TextEncoder(tokenizer, MAX_LENGTH), []

    class Reading:
        """The real tokenizer, and the texts that it is given."""

        def encode_batch_fast(self, texts: list[str]) -> list[Any]:
            read.extend(texts)
            return tokenizer.encode_batch_fast(texts)  # type: ignore[no-any-return]

    encoder._tokenizer = Reading()  # type: ignore[assignment]
    encoded = encoder.encode([TextInput("很好" * 50_000), TextInput("a good room " * 8_000)])
    assert encoded.truncated == [True, True]
    assert [len(text) < 150 for text in read] == [True, True]


@pytest.mark.parametrize("kind", NASTY_UNITS)
def test_four_times_as_long_a_text_takes_about_four_times_the_time(
    demo_model: Path, kind: str
) -> None:
    """Not sixteen times. By this thread's own processor time, which no neighbour changes much."""
    encoder = TextEncoder(load(demo_model), 512)

    def least_s(item: TextInput) -> float:
        times = []
        for _ in range(4):
            started = time.thread_time()
            encoder.encode([item])
            times.append(time.thread_time() - started)
        return min(times)

    def of(n: int) -> str:
        return (NASTY_UNITS[kind] * n)[:n]

    n, strict = 25_000, Options(truncation=False)
    for short, long in (
        (TextInput(of(n), options=strict), TextInput(of(4 * n), options=strict)),
        (TextInput(of(n), of(n)), TextInput(of(4 * n), of(4 * n))),
    ):
        # Linear: 4 and some noise; quadratic: 16.
        assert least_s(long) < 9 * least_s(short)


@pytest.mark.anyio
async def test_nobody_waits_for_the_tokenizing_of_a_long_text() -> None:
    calls: list[list[str]] = []
    gate = asyncio.Event()

    async def run(inputs: Sequence[TextInput], timeouts_s: Sequence[float]) -> list[Result]:
        calls.append([item.text[:4] for item in inputs])
        if len(inputs[0].text) > LONG_CHARS:
            await gate.wait()
        return [{"label": item.text[:4]} for item in inputs]

    batcher = MicroBatcher(
        run, max_texts=9, max_inflight=4, min_gap_s=0.0, gate=Gate(99, 10.0, time.monotonic)
    )
    texts = ["a", "long" * LONG_CHARS, "b"]
    tasks = [asyncio.create_task(batcher.submit([TextInput(text)], after(10))) for text in texts]
    assert await tasks[0] == [{"label": "a"}]
    assert await tasks[2] == [{"label": "b"}]
    assert not tasks[1].done()
    gate.set()
    assert await tasks[1] == [{"label": "long"}]
    assert sorted(calls) == [["a", "b"], ["long"]]
    pair = TextInput("pair", "b" * LONG_CHARS)
    assert await batcher.submit([TextInput("c"), pair], after(10)) == [
        {"label": "c"},
        {"label": "pair"},
    ]
    assert sorted(calls[2:]) == [["c"], ["pair"]]
    assert batcher.pending == 0
    await asyncio.sleep(0)  # the last call's end is told
    assert not batcher._at_classifier
