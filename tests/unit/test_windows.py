"""Long texts in windows: how they are cut, what becomes of their logits, what is never lost."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from deployments.local import LocalClassifier
from deployments.pipeline.errors import (
    EmptyText,
    InvalidInput,
    PredictionFailed,
    ServiceError,
    TextTooLong,
)
from deployments.pipeline.live_models import Encodings
from deployments.pipeline.pipeline import Pipeline
from deployments.pipeline.types import (
    Encoded,
    Flow,
    Logits,
    Options,
    Predicted,
    TextInput,
)
from deployments.pipeline.windows import Plan, planned, spans_of, surely_fits
from deployments.settings import LongTextSettings

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
TOKENIZER = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
TOKENIZER.no_truncation()
WINDOW = Options(long_text="window")
GOOD, BAD = "质量很好，会再来，非常满意。", "太差了，再也不买，很失望。"


def n_tokens(text: str) -> int:
    return len(TOKENIZER.encode(text, add_special_tokens=False))


# --- cutting


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.sampled_from("好坏，。a b.c\n é😀1"), min_size=1, max_size=300),
    room=st.integers(8, 40),
    overlap=st.integers(0, 30),
)
def test_pieces_cover_the_text_in_order_and_fit(text: str, room: int, overlap: int) -> None:
    spans = spans_of(TOKENIZER, text, room, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    for (start, end), (next_start, next_end) in pairwise(spans):
        assert start < next_start <= end < next_end
    for start, end in spans:
        assert n_tokens(text[start:end]) <= room


@settings(max_examples=30, deadline=None)
@given(text=st.text(st.sampled_from("好坏，。a b"), min_size=1, max_size=60))
def test_a_text_that_fits_is_one_piece(text: str) -> None:
    assert spans_of(TOKENIZER, text, max(1, n_tokens(text)), 4) == [(0, len(text))]


def one_token_a_byte() -> Tokenizer:
    """As byte-level BPE reads text of an alphabet that it never saw, after NFKC."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(max_size=40) | st.text(st.sampled_from("İﷺ㍿ﬃ😀é好 a"), max_size=40),
    room=st.integers(1, 300),
)
def test_what_surely_fits_fits_by_every_tokenizer(text: str, room: int) -> None:
    for tokenizer in (TOKENIZER, one_token_a_byte()):
        if surely_fits(text, room):
            assert len(tokenizer.encode(text, add_special_tokens=False)) <= room


@pytest.mark.parametrize("text", ["好" * 60, "😀" * 50, "ﷺ" * 6])
def test_a_text_of_few_characters_and_many_tokens_gets_windows(text: str) -> None:
    plan = planned(
        [TextInput(text, options=WINDOW)],
        one_token_a_byte(),
        64,
        LongTextSettings(overlap_tokens=8),
    )
    assert list(plan.windows) == [0]


def test_short_texts_surely_fit() -> None:
    assert surely_fits("a" * 62, 64)
    assert not surely_fits("a" * 63, 64)
    assert surely_fits(GOOD * 10, 510)


def test_a_window_may_be_shorter_than_what_the_model_reads() -> None:
    text = GOOD * 20
    item = TextInput(text, options=WINDOW)
    settings_ = LongTextSettings(window_tokens=24)
    plan = planned([item, TextInput(GOOD * 2, options=WINDOW)], TOKENIZER, 64, settings_)
    assert list(plan.windows) == [0]
    assert all(n_tokens(row.text) <= 22 for row in plan.inputs[:-1])
    assert n_tokens(GOOD * 2) > 22


def test_it_is_cut_where_sentences_end() -> None:
    text = (GOOD + BAD) * 20
    spans = spans_of(TOKENIZER, text, 60, 0)
    assert len(spans) > 5
    assert all(text[end - 1] == "。" for _, end in spans)
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    words = "word " * 300
    assert all(words[end - 1] == " " for _, end in spans_of(TOKENIZER, words, 60, 0)[:-1])


def test_the_number_of_pieces_grows_with_the_text() -> None:
    counts = [len(spans_of(TOKENIZER, GOOD * n, 100, 16)) for n in (50, 100, 200)]
    assert counts[1] == pytest.approx(2 * counts[0], abs=2)
    assert counts[2] == pytest.approx(2 * counts[1], abs=2)


def test_only_texts_that_ask_and_are_too_long_are_cut() -> None:
    inputs = [
        TextInput(GOOD * 20),
        TextInput(GOOD * 20, options=WINDOW),
        TextInput(GOOD, options=WINDOW),
        TextInput("1 2 3", options=WINDOW, token_ids=tuple(range(2, 90))),
    ]
    plan = planned(inputs, TOKENIZER, 32, LongTextSettings())
    assert list(plan.windows) == [1]
    assert plan.text_of.count(1) > 5
    assert [plan.inputs[row] for row in (0, -2, -1)] == [inputs[i] for i in (0, 2, 3)]
    all_of_them = planned(inputs, TOKENIZER, 32, LongTextSettings(strategy="window"))
    assert list(all_of_them.windows) == [0, 1]
    refused = TextInput(GOOD * 20, options=Options(truncation=False))
    assert not planned([refused], TOKENIZER, 32, LongTextSettings(strategy="window")).windows


def test_a_text_of_many_windows_is_bulk_and_one_of_too_many_is_refused() -> None:
    item = TextInput(GOOD * 60, options=WINDOW, flow=Flow("interactive", "me"))
    plan = planned([item], TOKENIZER, 32, LongTextSettings(max_windows=100))
    assert {row.flow for row in plan.inputs} == {plan.inputs[0].flow}
    assert plan.inputs[0].flow.priority == "bulk"
    assert plan.inputs[0].flow.client == "me"
    few = planned([item], TOKENIZER, 32, LongTextSettings(max_windows=3))
    assert re.search(r"makes \d+ windows of 32 tokens; the limit is 3\.", few.errors[0].message)
    assert isinstance(few.errors[0], TextTooLong)


def test_a_second_text_stands_beside_every_window() -> None:
    pair = TextInput(GOOD * 20, text_pair="好", options=WINDOW)
    plan = planned([pair], TOKENIZER, 32, LongTextSettings())
    assert {row.text_pair for row in plan.inputs} == {"好"}
    assert all(len(TOKENIZER.encode(row.text, row.text_pair)) <= 32 for row in plan.inputs)
    no_room = TextInput(GOOD, text_pair="好" * 30, options=WINDOW)
    error = planned([no_room], TOKENIZER, 32, LongTextSettings()).errors[0]
    assert isinstance(error, InvalidInput)
    assert "30 tokens" in error.message


def test_personal_data_goes_before_a_cut_can_go_through_it() -> None:
    def redact(item: TextInput) -> tuple[TextInput, int]:
        text, n = re.subn(r"\d+ \d+", "[PHONE]", item.text)
        return TextInput(text, options=item.options), n

    item = TextInput("打 138 0013 找他。" * 30, options=WINDOW)
    plan = planned([item], TOKENIZER, 32, LongTextSettings(), redact)
    assert not any(re.search(r"\d", row.text) for row in plan.inputs)
    assert plan.redacted == {0: 30}


# --- answers


class Chain:
    """A model whose two logits are how many 好 and how many 坏 a text has. `models`: which answers
    each call; `failing`: a text with it has no answer; blanks are no texts."""

    def __init__(self, models: Sequence[str] = ("a",), failing: str = "\0") -> None:
        self.models, self.failing = list(models), failing
        self.asked: list[list[str]] = []

    def pipeline(self, pooling: Any = "mean", **more: Any) -> Pipeline:
        settings_ = LongTextSettings(overlap_tokens=0, **more)

        async def plan(inputs: Sequence[TextInput]) -> Plan | None:
            return planned(inputs, TOKENIZER, 12, settings_)

        return Pipeline(
            self.encode, self.predict, self.postprocess, self.meet, plan=plan, pooling=pooling
        )

    async def meet(self, versions: Any) -> bool:
        return True

    async def encode(self, inputs: Sequence[TextInput]) -> Encodings:
        self.asked.append([item.text for item in inputs])
        errors: dict[int, ServiceError] = {
            i: EmptyText("nothing") for i, item in enumerate(inputs) if "#" in item.text
        }
        index = [i for i in range(len(inputs)) if i not in errors]
        counts = [[inputs[i].text.count("好"), inputs[i].text.count("坏")] for i in index]
        failing = [self.failing in inputs[i].text for i in index]
        ids = np.asarray([[*c, f] for c, f in zip(counts, failing, strict=True)], np.int32)
        lengths = np.full(len(index), 3, np.int32)
        both = Encoded(ids.ravel(), lengths, None, "a", Encoded(ids.ravel(), lengths, None, "b"))
        cut = [False] * len(index)
        return Encodings(both, index, {"a": cut, "b": cut}, errors)

    async def predict(self, batch: Encoded, deadlines: Any, flows: Any) -> Predicted:
        rows = batch.input_ids.reshape(-1, 3)
        model = self.models.pop(0) if len(self.models) > 1 else self.models[0]
        values = rows[:, :2].astype(np.float32)
        errors: dict[int, ServiceError] = {
            i: PredictionFailed("it fails") for i in np.flatnonzero(rows[:, 2]).tolist()
        }
        if model == "both":  # halves by two models
            n = len(rows) // 2
            return Predicted(
                (
                    (range(n), Logits(values[:n], None, "a")),
                    (range(n, len(rows)), Logits(values[n:], None, "b")),
                )
            )
        if model == "strange":
            return Predicted(strange=dict.fromkeys(range(len(rows)), "b"))
        return Predicted(((range(len(rows)), Logits(values, errors or None, model)),))

    async def postprocess(self, logits: Logits, options: Any) -> list[Any]:
        return [{"logits": row.tolist(), "model": logits.model} for row in logits.values]


def answered(chain: Chain, texts: Sequence[str], pooling: Any = "mean", **more: Any) -> list[Any]:
    inputs = [TextInput(text, options=WINDOW) for text in texts]

    async def run() -> list[Any]:
        until = asyncio.get_running_loop().time() + 5
        return list(await chain.pipeline(pooling, **more).run(inputs, [until] * len(inputs)))

    return asyncio.run(run())


LONG = "好好，好，好。" + "坏，坏坏，坏。" + "坏坏坏坏坏坏。"


def test_windows_become_one_answer_among_single_texts() -> None:
    chain = Chain()
    first, long, last = answered(chain, ["好", LONG, "坏"])
    assert (first["logits"], last["logits"]) == ([1, 0], [0, 1])
    assert "windows" not in first
    pieces = chain.asked[0][1:-1]
    assert len(pieces) > 2
    assert "".join(pieces) == LONG
    counts = np.asarray([[p.count("好"), p.count("坏")] for p in pieces])
    assert long["logits"] == pytest.approx(counts.mean(0).tolist())
    assert long["tokens"] == 3 * len(pieces)
    assert long["windows"]["count"] == len(pieces)
    deciding = long["windows"]["deciding"]
    place = int((counts[:, 1] - counts[:, 0]).argmax())
    assert deciding["index"] == place
    assert LONG[deciding["start"] : deciding["end"]] == pieces[place]


def test_the_highest_of_each_label() -> None:
    chain = Chain()
    (long,) = answered(chain, [LONG], "max")
    pieces = chain.asked[0]
    assert long["logits"] == [max(p.count(c) for p in pieces) for c in "好坏"]
    assert long["windows"]["pooling"] == "max"


@pytest.mark.parametrize("models", [("both", "b"), ("strange", "b"), ("both", "both", "a")])
def test_one_model_answers_all_windows_of_a_text(models: tuple[str, ...]) -> None:
    chain = Chain(models)
    short, long = answered(chain, ["好", LONG])
    assert long["model"] == models[-1]
    assert long["windows"]["count"] == len(chain.asked[0]) - 1
    assert short["logits"] == [1, 0]
    assert len(chain.asked) == len(models)


def test_a_window_that_fails_fails_its_text_alone() -> None:
    short, long, other = answered(Chain(failing="!"), ["好", LONG + "坏坏坏!坏坏。", LONG])
    assert short["logits"] == [1, 0]
    assert isinstance(long, PredictionFailed)
    assert other["windows"]["count"] > 2


def test_windows_with_nothing_to_read_don_t_count() -> None:
    chain = Chain()
    (long,) = answered(chain, ["好好好好好好好好。" + "########。" + "好好好好好好好好。"])
    assert long["windows"]["count"] < len(chain.asked[0])
    (nothing,) = answered(Chain(), ["########。" * 4])
    assert isinstance(nothing, EmptyText)


def test_too_many_windows_cost_nobody_else_an_answer() -> None:
    short, long = answered(Chain(), ["好", LONG * 5], max_windows=3)
    assert short["logits"] == [1, 0]
    assert isinstance(long, TextTooLong)


# --- the real chain


@pytest.fixture(scope="module")
def classifier() -> Any:
    engine = {"name": "torch", "dtype": "float32"}
    with LocalClassifier({"engine": engine, "model": {"id": str(DEMO)}}) as local:
        yield local


FILLER = "昨天下午收到了包裹，快递员放在门口，我打开看了看。"


def test_what_stands_last_decides_in_windows_and_is_lost_by_cutting(classifier: Any) -> None:
    text = FILLER * 25 + BAD * 30
    cut = classifier.classify(text, long_text="truncate")
    whole = classifier.classify(text, long_text="window")
    assert cut["truncated"] is True
    assert "windows" not in cut
    assert whole["truncated"] is False
    assert whole["label"] == "negative"
    assert whole["tokens"] > 512
    deciding = whole["windows"]["deciding"]
    assert BAD in text[deciding["start"] : deciding["end"]]
    swapped = classifier.classify(FILLER * 25 + GOOD * 30, long_text="window")
    assert swapped["label"] == "positive"
    assert classifier.classify(FILLER * 25 + GOOD * 30)["scores"] == pytest.approx(
        cut["scores"], abs=0.05
    )


def test_where_one_window_is_enough_nothing_changes(classifier: Any) -> None:
    for text in (GOOD, BAD, FILLER, "好" * 500):
        assert classifier.classify(text, long_text="window") == classifier.classify(text)


def test_error_and_the_order_of_a_list(classifier: Any) -> None:
    with pytest.raises(TextTooLong, match="the limit is 512"):
        classifier.classify(FILLER * 50, long_text="error")
    answers = classifier.classify([GOOD, FILLER * 40 + BAD * 30, "", BAD], long_text="window")
    assert [answer.get("label") for answer in answers] == ["positive", "negative", None, "negative"]
    assert answers[2]["error"]["code"] == "empty_text"
