"""Small tokenizers of the usual kinds, the same on every machine: nothing is trained."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

MAX_LENGTH = 64


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SENTENCES = """
the food was good and room clean terrible service never again delivery took two weeks I love this
book it is great screen broke after a day why would anyone buy 很好 质量 不错 太差了 再也 不买
"""
WORDS = tuple(_SENTENCES.split())
_LETTERS = [
    *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'\"-()很好质量不错太差了再也买"
]

WORDPIECE = names(
    """
    bert canine convbert electra ernie funnel layoutlm layoutlmv2 megatron-bert mobilebert
    modernvbert nomic_bert nystromformer roc_bert roformer squeezebert ultravbert
    """
)
WORDPIECE_WITHOUT_TYPES = names(
    """
    distilbert esm esmc mpnet tapas ultrabert
    """
)
UNIGRAM = names(
    """
    albert big_bird deberta-v2 fnet reformer rembert
    """
)
UNIGRAM_WITHOUT_TYPES = names(
    """
    camembert gte jina_embeddings_v3 xlm-roberta xlm-roberta-xl xmod yoso
    """
)
SEQUENCE_TO_SEQUENCE = names(
    """
    bigbird_pegasus mbart mt5 t5 t5gemma t5gemma2 umt5
    """
)
ROBERTA = names(
    """
    bart data2vec-text deberta eurobert ibert layoutlmv3 lilt longformer luke markuplm
    modernbert mra mvp plbart roberta roberta-prelayernorm
    """
)
_TYPED = ["input_ids", "token_type_ids", "attention_mask"]


def tokenizer_for(model_type: str) -> Any:
    """The usual kind for this type; otherwise byte-level BPE without marks, as decoders have."""
    if model_type in WORDPIECE:
        return _wordpiece("[CLS] $A [SEP] $B:1 [SEP]:1", model_input_names=_TYPED)
    if model_type in WORDPIECE_WITHOUT_TYPES:
        return _wordpiece("[CLS] $A [SEP] $B [SEP]")
    if model_type in UNIGRAM:
        pair = "<cls> $A <sep> $B:1 <sep>:1"
        return _unigram("<cls> $A <sep>", pair, model_input_names=_TYPED)
    if model_type in UNIGRAM_WITHOUT_TYPES:
        return _unigram("<cls> $A <sep>", "<cls> $A <sep> <sep> $B <sep>")
    if model_type == "xlnet":
        single, pair = "$A <sep> <cls>:2", "$A <sep> $B:1 <sep>:1 <cls>:2"
        return _unigram(single, pair, padding_side="left", model_input_names=_TYPED)
    if model_type in SEQUENCE_TO_SEQUENCE:
        return _unigram("$A </s>", "$A </s> $B </s>")
    if model_type in ROBERTA:
        return _byte_bpe("<s> $A </s>", "<s> $A </s> </s> $B </s>")
    return _byte_bpe("$A", "$A $B")


def _wordpiece(pair: str, **extra: Any) -> Any:
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    lower = sorted({piece.lower() for piece in (*WORDS, *_LETTERS)})
    pieces = dict.fromkeys(
        [*marks, *lower, *(f"##{letter}" for letter in lower if len(letter) == 1)]
    )
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=marks[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    _mark(tokenizer, "[CLS] $A [SEP]", pair)
    return _fast(tokenizer, "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", **extra)


def _byte_bpe(single: str, pair: str) -> Any:
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = dict.fromkeys([*marks, *sorted(pre_tokenizers.ByteLevel.alphabet())])
    merges: dict[tuple[str, str], None] = {}
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for word in WORDS:
        for piece, _ in level.pre_tokenize_str(f" {word}"):
            for end in range(1, len(piece)):
                merges[piece[:end], piece[end]] = None
                pieces[piece[: end + 1]] = None
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab, list(merges)))
    tokenizer.pre_tokenizer = level
    tokenizer.decoder = decoders.ByteLevel()
    _mark(tokenizer, single, pair)
    return _fast(tokenizer, "<s>", "</s>", "<pad>", "<unk>", "<mask>")


def _unigram(single: str, pair: str, **extra: Any) -> Any:
    marks = ["<pad>", "</s>", "<unk>", "<cls>", "<sep>", "<mask>"]
    pieces = [(mark, 0.0) for mark in marks] + [("▁", -4.0)]
    pieces += [(f"▁{word}", -3.0) for word in dict.fromkeys(WORDS)]
    pieces += [(letter, -6.0) for letter in dict.fromkeys(_LETTERS)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    _mark(tokenizer, single, pair)
    ends = ("</s>", "</s>") if "</s>" in single else ("<cls>", "<sep>")
    return _fast(tokenizer, *ends, "<pad>", "<unk>", "<mask>", **extra)


def _mark(tokenizer: Tokenizer, single: str, pair: str) -> None:
    names = {part.partition(":")[0] for part in pair.split()} - {"$A", "$B"}
    if names:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single,
            pair=pair,
            special_tokens=[(name, tokenizer.token_to_id(name)) for name in sorted(names)],
        )


def _fast(
    tokenizer: Tokenizer, begin: str, end: str, pad: str, unknown: str, mask: str, **extra: Any
) -> Any:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin,
        cls_token=begin,
        eos_token=end,
        sep_token=end,
        pad_token=pad,
        unk_token=unknown,
        mask_token=mask,
        model_max_length=MAX_LENGTH,
        **extra,
    )
