"""Our batch encoding against transformers' own tokenizer call, on the demo model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.model.load import load_parts
from deployments.model.reading import load_tokenizer
from deployments.model.source import ModelRefused
from deployments.pipeline.errors import EmptyText, InvalidInput, TextTooLong
from deployments.pipeline.tokenize import TextEncoder
from deployments.pipeline.types import Options, TextInput
from deployments.settings import ModelSettings

MAX_LENGTH = 16


@pytest.fixture(scope="module")
def encoder(demo_model: Path) -> TextEncoder:
    return TextEncoder(load_tokenizer(ModelSettings(id=str(demo_model))), MAX_LENGTH)


@pytest.fixture(scope="module")
def reference(demo_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(demo_model)


@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda t: not t.isspace()),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=200, deadline=None)
def test_ids_equal_transformers_own(texts: list[str], encoder: TextEncoder, reference: Any) -> None:
    encoded = encoder.encode([TextInput(text) for text in texts])
    expected = reference(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    read = [i for i, ids in enumerate(expected) if len(ids) > 2]  # the others have no token at all
    assert encoded.index == read
    assert [text.input_ids.tolist() for text in encoded.batch.split()] == [
        expected[i] for i in read
    ]
    assert all(isinstance(error, EmptyText) for error in encoded.errors.values())
    assert encoded.batch.token_type_ids is None


def test_pairs_carry_token_types_as_transformers_gives_them(
    encoder: TextEncoder, reference: Any
) -> None:
    pair, single = encoder.encode([TextInput("很好", "不错"), TextInput("很好")]).batch.split()
    expected = reference("很好", "不错")
    assert pair.input_ids.tolist() == expected["input_ids"]
    assert pair.token_type_ids.tolist() == expected["token_type_ids"]
    assert single.token_type_ids.tolist() == [0] * 4


@given(
    first=st.text("好坏不很差abc 12，", min_size=1, max_size=300).filter(lambda t: not t.isspace()),
    second=st.text("好坏不很差abc 12，", min_size=1, max_size=300).filter(
        lambda t: not t.isspace()
    ),
)
@settings(max_examples=200, deadline=None)
def test_long_pairs_are_cut_as_transformers_cuts_them(
    first: str, second: str, encoder: TextEncoder, reference: Any
) -> None:
    encoded = encoder.encode([TextInput(first, second)])
    expected = reference(first, second, truncation=True, max_length=MAX_LENGTH)
    assert encoded.batch.input_ids.tolist() == expected["input_ids"]
    assert encoded.batch.token_type_ids is not None
    assert encoded.batch.token_type_ids.tolist() == expected["token_type_ids"]
    assert encoded.truncated == [len(reference(first, second)["input_ids"]) > MAX_LENGTH]


@pytest.fixture(scope="module")
def keeps_end(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer cuts off the beginning."""
    directory = Path(shutil.copytree(demo_model, tmp_path_factory.mktemp("left") / "model"))
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "truncation_side": "left"}))
    return directory


def test_where_the_tokenizer_keeps_the_end_so_do_we(keeps_end: Path) -> None:
    from transformers import AutoTokenizer

    settings = ModelSettings(id=str(keeps_end), max_length=MAX_LENGTH)
    encoder = load_parts(settings).encoder()
    reference = AutoTokenizer.from_pretrained(keeps_end)
    long, pair = "很好" * 5_000 + "太差了", ("好" * 900 + "极", "坏" * 800 + "差")
    encoded = encoder.encode([TextInput(long), TextInput(*pair), TextInput("短")])
    expected = [
        reference(long, truncation=True, max_length=MAX_LENGTH),
        reference(*pair, truncation=True, max_length=MAX_LENGTH),
        reference("短"),
    ]
    assert [text.input_ids.tolist() for text in encoded.batch.split()] == [
        one["input_ids"] for one in expected
    ]
    assert encoded.truncated == [True, True, False]


@pytest.mark.parametrize("swapped", [False, True])
def test_of_a_long_pair_the_half_with_more_tokens_keeps_the_odd_one(
    swapped: bool, encoder: TextEncoder, reference: Any
) -> None:
    """Not the half with more characters."""
    first, second = "room " * 200, "很" * 900  # 200 and 900 tokens
    if swapped:
        first, second = second, first
    encoded = encoder.encode([TextInput(first, second)])
    expected = reference(first, second, truncation=True, max_length=MAX_LENGTH)
    assert encoded.batch.token_type_ids is not None
    assert encoded.batch.token_type_ids.tolist() == expected["token_type_ids"]
    assert encoded.batch.input_ids.tolist() == expected["input_ids"]


@pytest.mark.parametrize("chars", [100, 1_000, 10_000])
def test_what_is_cut_off_a_pair_does_not_grow_with_the_square_of_its_length(
    demo_model: Path, chars: int
) -> None:
    """2 x 100,000 characters, one request, made the library take tens of gigabytes."""
    made: list[int] = []

    class Counting:
        """The real tokenizer, and how many encodings it made."""

        def __init__(self, tokenizer: Any) -> None:
            self._tokenizer = tokenizer

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tokenizer, name)

        def encode_batch_fast(self, pairs: list[Any]) -> list[Any]:
            encodings = self._tokenizer.encode_batch_fast(pairs)
            made.extend(len(encoding.overflowing) for encoding in encodings)
            return encodings

    tokenizer = load_tokenizer(ModelSettings(id=str(demo_model)))
    encoder = TextEncoder(tokenizer, 128)
    encoder._tokenizer = Counting(tokenizer)
    encoded = encoder.encode([TextInput("好" * chars, "坏" * chars)])
    assert encoded.truncated == [chars > 62]
    assert made
    assert max(made) < 20


def test_a_model_without_tokenizer_files_is_refused(make_tiny_model: Callable[..., Path]) -> None:
    """transformers makes it a tokenizer to which every word is unknown."""
    directory = make_tiny_model()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).unlink()
    with pytest.raises(ModelRefused, match="has no vocabulary"):
        load_tokenizer(ModelSettings(id=str(directory)))


def test_a_length_limit_without_room_for_text_is_refused(demo_model: Path) -> None:
    tokenizer = load_tokenizer(ModelSettings(id=str(demo_model)))
    with pytest.raises(ValueError, match=r"reads 3 tokens.*max_length to 4 or more"):
        TextEncoder(tokenizer, 3)
    encoded = TextEncoder(tokenizer, 4).encode([TextInput("好坏好坏")])
    assert encoded.batch.lengths.tolist() == [4]


def test_truncation_is_told(encoder: TextEncoder) -> None:
    encoded = encoder.encode([TextInput("好" * 14), TextInput("好" * 15)])
    assert encoded.batch.lengths.tolist() == [MAX_LENGTH, MAX_LENGTH]
    assert encoded.truncated == [False, True]


def test_without_truncation_a_long_text_is_refused_with_number_limit_and_cure(
    encoder: TextEncoder,
) -> None:
    strict = Options(truncation=False)
    encoded = encoder.encode(
        [TextInput("好" * 100, options=strict), TextInput("好", options=strict)]
    )
    assert encoded.index == [1]
    assert isinstance(encoded.errors[0], TextTooLong)
    assert encoded.errors[0].message == (
        "text has 102 tokens; the limit is 16. Shorten it or send truncation=true."
    )


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "　", "\u200b", "\ufeff\x00", "\u200d " * 9])
def test_blank_texts_are_refused(encoder: TextEncoder, blank: str) -> None:
    encoded = encoder.encode([TextInput(blank)])
    assert isinstance(encoded.errors[0], EmptyText)
    assert len(encoded.batch) == 0


def test_a_lone_surrogate_fails_alone(encoder: TextEncoder) -> None:
    encoded = encoder.encode([TextInput("很好"), TextInput("bad \ud800"), TextInput("不错")])
    assert encoded.index == [0, 2]
    assert isinstance(encoded.errors[1], InvalidInput)
    assert "lone surrogate" in encoded.errors[1].message


SIDES = ("left", "right", None)
LONG_WORDS = "很好" * 30 + "abc " * 5 + "太差了"


def asked(side: Any, text: str, pair: str | None = None, truncation: bool = True) -> TextInput:
    return TextInput(text, pair, Options(truncation=truncation, truncation_side=side))


def rows(encoder: Any, inputs: list[TextInput]) -> list[list[int]]:
    return [one.input_ids.tolist() for one in encoder.encode(inputs).batch.split()]


@pytest.mark.parametrize("own", ["left", "right"])
@pytest.mark.parametrize(
    "text", [(LONG_WORDS, None), (LONG_WORDS * 100, None), (LONG_WORDS, "差" * 40), ("短", None)]
)
def test_a_request_may_choose_the_end_that_is_cut_off(
    own: str, text: tuple[str, str | None], demo_model: Path, reference: Any
) -> None:
    tokenizer = load_tokenizer(ModelSettings(id=str(demo_model)))
    tokenizer.enable_truncation(MAX_LENGTH, direction=own)
    encoder = TextEncoder(tokenizer, MAX_LENGTH)
    whole = reference(*text)
    for several in ([asked(side, *text)] for side in SIDES):
        side = several[0].options.truncation_side or own
        reference.truncation_side = side
        expected = reference(*text, truncation=True, max_length=MAX_LENGTH)
        reference.truncation_side = "right"
        for encoded in (encoder.encode(several), encoder.encode([TextInput("\ud800"), *several])):
            (one,) = encoded.batch.split()
            assert one.input_ids.tolist() == expected["input_ids"]
            assert encoded.truncated == [len(whole["input_ids"]) > MAX_LENGTH]
            if text[1] is not None:
                assert one.token_type_ids is not None
                assert one.token_type_ids.tolist() == expected["token_type_ids"]


def test_one_that_is_cut_elsewhere_changes_nothing_for_its_neighbours(encoder: TextEncoder) -> None:
    usual = [TextInput(LONG_WORDS), TextInput("短"), TextInput(LONG_WORDS, "差" * 40)]
    odd = [asked("left", LONG_WORDS), asked("left", LONG_WORDS, "差" * 40)]
    first, second, third = rows(encoder, usual)
    mixed = [usual[0], odd[0], usual[1], odd[1], usual[2], asked("left", LONG_WORDS, None, False)]
    encoded = encoder.encode(mixed)
    assert [text.input_ids.tolist() for text in encoded.batch.split()] == [
        first,
        *rows(encoder, odd[:1]),
        second,
        *rows(encoder, odd[1:]),
        third,
    ]
    assert encoded.truncated == [True, True, False, True, True]
    assert list(encoded.errors) == [5]
    assert (
        encoded.errors[5].message
        == encoder.encode([asked(None, LONG_WORDS, None, False)]).errors[0].message
    )


def test_the_tokenizer_of_the_other_end_is_made_once_and_only_where_a_text_is_cut(
    demo_model: Path,
) -> None:
    encoder = TextEncoder(load_tokenizer(ModelSettings(id=str(demo_model))), MAX_LENGTH)
    encoder.encode([asked("left", "短"), asked("right", LONG_WORDS), TextInput(LONG_WORDS)])
    assert encoder._other_end is None
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: encoder._of_other_end(), range(16)))
    assert len(set(map(id, made))) == 1
    encoder.encode([asked("left", LONG_WORDS)])
    assert encoder._other_end is made[0]
    assert made[0].untruncated is encoder.untruncated
