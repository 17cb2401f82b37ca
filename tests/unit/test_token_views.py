"""Tokens with their places, and their texts again."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.model.reading import load_tokenizer
from deployments.pipeline import token_views as module
from deployments.pipeline.errors import InvalidInput, NotReady, Overloaded
from deployments.pipeline.live_models import LiveModels
from deployments.pipeline.token_views import TokenViews, texts_of, tokens_of
from deployments.settings import ModelSettings


@pytest.fixture(scope="module")
def tokenizer(demo_model: Path) -> Any:
    found = load_tokenizer(ModelSettings(id=str(demo_model)))
    found.no_truncation()
    return found


@given(text=st.text(st.characters(codec="utf-8"), max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_tokens_place_is_where_its_text_stands_in_utf_8(text: str, tokenizer: Any) -> None:
    (tokens,) = tokens_of(tokenizer, [text], True)
    assert [token.id for token in tokens] == tokenizer.encode(text).ids
    assert (tokens[0].special, tokens[-1].special) == (True, True)
    for token in tokens[1:-1]:
        assert token.start is not None
        assert text.encode()[token.start : token.stop].decode() == token.text


def test_chinese_and_emoji_count_their_bytes(tokenizer: Any) -> None:
    (tokens,) = tokens_of(tokenizer, ["好😀 坏"], False)
    assert [(token.text, token.start, token.stop) for token in tokens] == [
        ("好", 0, 3),
        ("😀", 3, 7),
        ("坏", 8, 11),
    ]


def test_a_mark_in_the_text_is_no_added_one(tokenizer: Any) -> None:
    (tokens,) = tokens_of(tokenizer, ["[SEP]"], False)
    assert [(token.text, token.special) for token in tokens] == [("[SEP]", False)]


def test_what_is_no_unicode_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InvalidInput):
        tokens_of(tokenizer, ["a", "\ud800"], True)


def test_ids_are_texts_again(tokenizer: Any) -> None:
    ids = tokenizer.encode("很好").ids
    assert texts_of(tokenizer, [ids, ids], True) == ["很 好"] * 2
    assert texts_of(tokenizer, [ids], False) == ["[CLS] 很 好 [SEP]"]
    assert texts_of(tokenizer, [[*ids, 2**32 - 1]], True) == ["很 好"]


@pytest.mark.anyio
async def test_it_stays_off_the_event_loop_and_takes_in_no_more_than_it_can(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 2)
    views, go, threads = TokenViews(lambda: tokenizer), threading.Event(), []

    def work(*_: Any) -> list[Any]:
        threads.append(threading.get_ident())
        go.wait(10)
        return []

    monkeypatch.setattr(module, "texts_of", work)
    two = [asyncio.create_task(views.decode([[1]], True)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await views.tokenize(["a"], True)
    go.set()
    assert await asyncio.gather(*two) == [[], []]
    assert threading.get_ident() not in threads
    assert len(await views.tokenize(["a"], True)) == 1


@pytest.mark.anyio
async def test_before_a_model_is_known_nothing_is_told() -> None:
    async def ask(_: Any) -> None:
        return None

    with pytest.raises(NotReady):
        await TokenViews(LiveModels(ask).tokenizer).tokenize(["a"], True)
