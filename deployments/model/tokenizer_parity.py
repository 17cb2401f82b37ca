"""Whether our way of tokenizing equals AutoTokenizer's, called as transformers' pipeline calls it.

Compared on texts of our own: ids, token types and lengths, of single texts and pairs, cut and
whole. Where they differ the model is not served: its scores would be another's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np

from deployments.model.source import ModelRefused
from deployments.pipeline.tasks import Encoder
from deployments.pipeline.types import TextInput

Pair = tuple[str, str | None]

# What is cut, and how, does not depend on the limit; long texts take long.
PROVEN_LENGTH = 96
_ODD = (
    *("a", ".", "?!", "1", "好", "很好", "é", "e\u0301", "ß", "İ", "ﬁ", "㈱", "½", "①"),
    *("😀", "👩\u200d👩\u200d👧", "🇨🇳🇩🇪", "☺\ufe0f", "a\u200bb", "\u200d", "\ufeffa", "\u00ad"),
    *("नमस्ते", "สวัสดีครับ", "שָׁלוֹם", "مرحبا بكم", "한국어 텍스트", "ひらがなとカタカナ", "ﷺ"),
    *(
        "  leading",
        "trailing  ",
        "two  spaces",
        "tab\there",
        "line\nbreak",
        "cr\r\nlf",
        "\u3000全角",
    ),
    *("HELLO World", "ÀÉÎ õü", "ALL CAPS!", "CamelCaseWord", "snake_case", "don't can't it's"),
    *(
        "3.14159",
        "1,000,000",
        "2024-02-29",
        "+86 138 0013 8000",
        "$5 €7 ¥9",
        "a@b.example",
        "#tag @me",
    ),
    *("https://example.org/path?q=1&r=%20", "<b>bold</b>", "&amp;", '{"k": [1, 2]}', "\\n \\u4e2d"),
    *(
        "[CLS]",
        "[SEP] a [SEP]",
        "[MASK] and [PAD]",
        "[UNK]",
        "<s>a</s>",
        "<mask>",
        "<pad>",
        "</s></s>",
    ),
    *("<|endoftext|>", "<unk>", "▁a", "##ing", "Ġword", "<0x0A>", "[unused1]", "<cls><sep>"),
    *("x" * 120, "!" * 40, "哈" * 60, "ab " * 30, "é" * 30, "a\u0301" * 30, "。" * 20, "- - - -"),
    *(
        "质量很好，会再来！",
        "太差了，用了两天就坏。",
        "中英 mixed 文本 with 数字123",
        "𠮷野家",
        "龘靐",
    ),
    *("The food was good and the room was clean.", "Ich habe drei Wochen gewartet.", "¿Qué tal?"),
    *("Очень тонкий материал", "Γειά σου Κόσμε", "C'est la vie", "naïve café", "Việt Nam", "Łódź"),
    *("\x07bell", "a\x00b", "\u2028line", "“quotes” ‘single’", "a—b–c‐d", "…", "№ 5", "²³"),
)


def prove_parity(reference: Any, encoder: Encoder, *, typed: bool) -> int:
    """How many texts and pairs were compared.

    reference: transformers' tokenizer. typed: whether the model is given token types.

    Raises:
        ModelRefused: they differ, or the reference reads no plain text.
    """
    compared = 0
    for text, pair in probes(encoder.max_length):
        ours = encoder.encode([TextInput(text, pair)])
        if ours.errors:
            continue  # no text for any model: refused before, by an error of its own
        try:
            theirs = reference(text, text_pair=pair, truncation=True, max_length=encoder.max_length)
            ids = list(theirs["input_ids"])
        except Exception as exc:
            raise ModelRefused(
                f"the model's tokenizer ({type(reference).__name__}) can't be given a "
                f"{_kind(text, pair, None)} ({type(exc).__name__}): it is made for other input "
                "than texts. Set args.model.id to a model that classifies texts."
            ) from None
        batch = ours.batch
        what = _difference(batch.input_ids, ids)
        if what is None and typed:
            types = batch.token_type_ids
            given = np.zeros(len(ids)) if types is None else types
            if list(given) != list(theirs.get("token_type_ids", np.zeros(len(ids)))):
                what = "token types"
        if what is not None:
            raise ModelRefused(
                f"our tokenizing differs from AutoTokenizer's ({type(reference).__name__}) in the "
                f"{what} of a {_kind(text, pair, ours.truncated[0])}, so the model's scores would "
                "be off. Save the tokenizer again with the installed transformers "
                "(AutoTokenizer.from_pretrained(…).save_pretrained(…)), or set args.model.id to "
                "another model."
            )
        compared += 1
    if not compared:
        raise ModelRefused(
            "the model's tokenizer finds nothing to read in any of our texts. Save its vocabulary "
            "beside the weights (tokenizer.json)."
        )
    return compared


def probes(max_length: int) -> Iterator[Pair]:
    """Texts and pairs: odd ones, natural ones, and such as are longer than `max_length` tokens."""
    from deployments.model.probe import probe_texts

    natural = probe_texts()[:24]
    for text in (*_ODD, *natural):
        yield text, None
    yield from zip(_ODD, islice(cycle(natural), 5, 5 + len(_ODD)), strict=True)
    yield from zip(natural, reversed(_ODD), strict=False)
    for words in ("good ", "质量很好。", "Wörter und Wörter, ", "x_y 😀 "):
        # Numbered, as its beginning must not look like its end.
        much = "".join(f"{words}{i} " for i in range(2 * max_length))
        few = words * 3
        yield much, None
        yield much[: 3 * max_length], None
        # Halves that are much too long are cut by us before: short, so that theirs has an end.
        for first, second in ((much, few), (few, much), (much, much), (much[:-1], much)):
            yield first[: 6 * max_length], second[: 7 * max_length]


def _difference(ours: Sequence[int] | np.ndarray, theirs: Sequence[int]) -> str | None:
    if len(ours) != len(theirs):
        return "number of tokens"
    return "token ids" if list(ours) != list(theirs) else None


def _kind(text: str, pair: str | None, cut: bool | None) -> str:
    kind = "single text" if pair is None else "pair of texts"
    if cut:
        return f"{kind} that is too long"
    odd = any(one in _ODD for one in (text, pair))
    return f"{kind} with odd characters or marks" if odd and cut is not None else kind
