"""The faster tokenizer gives what `tokenizers` gives, or is not used; and remembers no text."""

from __future__ import annotations

import gc
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.model.reading import load_tokenizer
from deployments.pipeline import fast_tokenizer as module
from deployments.pipeline.errors import InvalidInput
from deployments.pipeline.fast_tokenizer import FastEncoder, WordPiece, faster
from deployments.pipeline.tokenize import EncodedTexts, TextEncoder
from deployments.pipeline.types import Int32, Options, TextInput
from deployments.settings import ModelSettings

nanotoken = pytest.importorskip("nanotoken")

MAX_LENGTH = 16


def made(directory: Path, max_length: int = MAX_LENGTH) -> TextEncoder:
    return TextEncoder(load_tokenizer(ModelSettings(id=str(directory))), max_length)


@pytest.fixture(scope="module")
def reference(demo_model: Path) -> TextEncoder:
    return made(demo_model)


@pytest.fixture(scope="module")
def fast(reference: TextEncoder) -> FastEncoder:
    found = faster(reference)
    assert isinstance(found, FastEncoder)
    return found


def same(one: EncodedTexts, other: EncodedTexts) -> bool:
    def plain(made: EncodedTexts) -> Any:
        ids, lengths = made.batch.input_ids.tolist(), made.batch.lengths.tolist()
        errors = {i: (type(e), e.message) for i, e in made.errors.items()}
        return ids, lengths, made.index, made.truncated, errors, made.batch.token_type_ids is None

    return bool(plain(one) == plain(other))


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=80), max_size=5),
    truncation=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_ids_cuts_and_errors_are_the_references(
    texts: list[str], truncation: bool, fast: FastEncoder, reference: TextEncoder
) -> None:
    inputs = [TextInput(text, options=Options(truncation=truncation)) for text in texts]
    assert same(fast.encode(inputs), reference.encode(inputs))
    assert fast.is_fast


def test_where_the_end_is_kept_it_is_kept_here_too(demo_model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(ModelSettings(id=str(demo_model)))
    tokenizer.enable_truncation(MAX_LENGTH, direction="left")
    reference = TextEncoder(tokenizer, MAX_LENGTH)
    fast = faster(reference)
    assert isinstance(fast, FastEncoder)
    inputs = [TextInput("很好" * 40 + "太差了", options=Options(truncation=True)), TextInput("好")]
    assert same(fast.encode(inputs), reference.encode(inputs))


@pytest.mark.parametrize(
    "inputs",
    [
        [TextInput("好", "坏"), TextInput("好")],
        [TextInput("\ud800"), TextInput("好")],
        [TextInput("好" * 20_000, options=Options(truncation=True))],
        [],
    ],
    ids=["pairs", "no Unicode", "long", "none"],
)
def test_what_it_cannot_do_the_reference_does(
    inputs: list[TextInput], fast: FastEncoder, reference: TextEncoder
) -> None:
    assert same(fast.encode(inputs), reference.encode(inputs))
    if inputs and inputs[0].text == "\ud800":
        assert isinstance(fast.encode(inputs).errors[0], InvalidInput)


class Wrong:
    """Gives another id for one character."""

    def __init__(self, right: WordPiece, character: str) -> None:
        self.prefix, self.suffix = right.prefix, right.suffix
        self._right, self._character = right, character

    def encode(self, texts: Sequence[str]) -> tuple[Int32, Int32]:
        ids, lengths = self._right.encode(texts)
        ids = ids.copy()
        if any(self._character in text for text in texts):
            ids[1] += 1
        return ids, lengths


def test_one_that_is_wrong_on_a_probe_is_not_taken(reference: TextEncoder) -> None:
    right = WordPiece(reference.untruncated.to_str())
    found = faster(reference, lambda _: Wrong(right, "\u0e01"))  # one Thai letter of all Unicode
    assert found is reference


def test_one_that_turns_out_wrong_later_is_dropped_and_the_log_holds_no_text(
    reference: TextEncoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = WordPiece(reference.untruncated.to_str())
    hidden = "好坏好坏好坏"
    encoder = faster(reference, lambda _: Wrong(right, hidden))
    assert isinstance(encoder, FastEncoder)
    inputs = [TextInput("不错"), TextInput(hidden)]
    monkeypatch.setattr(module, "SAMPLED_TEXTS", 2)
    encoder.encode(inputs)
    module._SAMPLING.submit(lambda: None).result()
    assert not encoder.is_fast
    assert same(encoder.encode(inputs), reference.encode(inputs))
    assert "other ids" in caplog.text
    assert hidden not in caplog.text


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_other_kinds_of_tokenizers_stay_with_tokenizers(kind: str) -> None:
    from tokenizers import Tokenizer, models

    model = models.BPE() if kind == "bpe" else models.Unigram([("a", -1.0), ("<unk>", -2.0)], 1)
    assert module.fast_tokenizer(Tokenizer(model)) is None


def test_a_tokenizer_that_it_does_not_know_stays_with_tokenizers(reference: TextEncoder) -> None:
    content = json.loads(reference.untruncated.to_str())
    content["normalizer"] = {"type": "Nmt"}
    odd = type(reference.untruncated).from_str(json.dumps(content))
    assert module.fast_tokenizer(odd) is None


def test_without_nanotoken_all_is_as_before(
    reference: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "nanotoken", None)
    assert faster(reference) is reference


def in_memory(hidden: list[bytes]) -> int:
    """How many of these words, each xor 0x5a, this process's writable memory holds."""
    words = [bytes(byte ^ 0x5A for byte in word) for word in hidden]
    pattern = re.compile(b"|".join(words))
    words.clear()
    found: set[bytes] = set()
    own = pattern.pattern
    with Path("/proc/self/mem").open("rb", 0) as memory:
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, mode, *_ = line.split()
            first, last = (int(part, 16) for part in span.split("-"))
            if "rw" not in mode or "[v" in line or last - first > 2**30:
                continue
            try:
                memory.seek(first)
                data = memory.read(last - first)
            except OSError:
                continue
            found |= set(pattern.findall(data.replace(own, b"")))
    return len(found)


# A minute and a half, in which all of the process's memory is searched again and again.
@pytest.mark.trials
def test_it_remembers_no_more_of_texts_than_tokenizers_does(reference: TextEncoder) -> None:
    """Words that were seen once, 4,000 other texts ago: what freed memory still shows of them."""

    def left_of(encode: Any, seed: int) -> int:
        draw = random.Random(seed)
        hidden = []
        for _ in range(300):
            word = "".join(draw.choice("bcdfghjklmnpqrstvwxz") for _ in range(13))
            hidden.append(bytes(byte ^ 0x5A for byte in word.encode()))
            encode(word + " x")
        del word
        for number in range(4_000):
            encode(f"{number} again {number * 7919}")
        gc.collect()
        return in_memory(hidden)

    kept = WordPiece(reference.untruncated.to_str())
    ours = left_of(lambda text: kept.encode([text]), 1)
    theirs = left_of(lambda text: reference.untruncated.encode_batch_fast([text]), 2)
    assert nanotoken.get_cache_entries() == 1
    assert ours <= theirs + 60  # with its own cache of a million all 300 are found


def test_ids_are_flat_and_int32(fast: FastEncoder) -> None:
    batch = fast.encode([TextInput("好"), TextInput("不错")]).batch
    assert batch.input_ids.dtype == batch.lengths.dtype == np.int32
    assert batch.input_ids.ndim == 1


@given(
    texts=st.lists(st.text("好坏不很差abc 12，", min_size=1, max_size=80), min_size=1, max_size=5),
    sides=st.lists(st.sampled_from(["left", "right", None]), min_size=5, max_size=5),
)
@settings(max_examples=100, deadline=None)
def test_each_text_is_cut_at_the_end_that_it_asks_for(
    texts: list[str], sides: list[Any], fast: FastEncoder, reference: TextEncoder
) -> None:
    inputs = [
        TextInput(text, options=Options(truncation_side=side))
        for text, side in zip(texts, sides, strict=False)
    ]
    assert fast._encoded(inputs) is not None  # none of them slows its neighbours
    assert same(fast.encode(inputs), reference.encode(inputs))
