"""A vocabulary cut to the tokens that some texts use, and the model's embeddings with it.

Texts made of kept tokens get the same tokens, and so the same logits, as before. Others are spelt
in smaller pieces: single characters stay, and of byte-level tokenizers single bytes.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedTokenizerBase


class CannotTrim(Exception):
    """This tokenizer or model can't be cut so. The message says why."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """kept: the old ids of the new rows, ascending, so that special tokens keep their order."""

    model: Any
    tokenizer: Any
    kept: tuple[int, ...]


def trim(
    model: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], min_count: int = 1
) -> Trimmed:
    """Copies of both that know the tokens which `texts` hold `min_count` times and more, the
    special ones and single characters.

    Raises:
        CannotTrim: the tokenizer is of a kind that is not known here.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CannotTrim(
            f"{type(tokenizer).__name__} has no tokenizer.json: save it as a fast one."
        )
    content = json.loads(backend.to_str())
    kind = content["model"].get("type")
    if kind not in _KINDS:
        raise CannotTrim(
            f"the tokenizer is of the kind {kind}; {', '.join(_KINDS)} can be trimmed."
        )
    if content["model"].get("end_of_word_suffix"):
        raise CannotTrim("the tokenizer marks the ends of words, which can't be trimmed here.")
    names = backend.get_vocab(with_added_tokens=True)
    counts = Counter(i for ids in _encoded(tokenizer, texts) for i in ids)
    used = {i for i, n in counts.items() if n >= min_count}
    used |= {int(token["id"]) for token in content["added_tokens"]}
    used |= {i for token, i in names.items() if _is_single(token, content["model"])}
    unknown = content["model"].get("unk_token")
    used |= {names[unknown]} if isinstance(unknown, str) else set()
    if isinstance(content["model"].get("unk_id"), int):
        used.add(content["model"]["unk_id"])
    if kind == "Unigram":
        # What an unknown character costs is counted from the least likely piece.
        scores = [score for _, score in content["model"]["vocab"]]
        used.add(scores.index(min(scores)))
    if kind == "BPE":
        used |= _on_the_way(content["model"], {i: token for token, i in names.items()}, used)
    kept = sorted(used)
    place = {old: new for new, old in enumerate(kept)}
    _KINDS[kind](content["model"], place)
    for token in content["added_tokens"]:
        token["id"] = place[token["id"]]
    _move_ids(content.get("post_processor"), place)
    if content.get("padding"):
        content["padding"]["pad_id"] = place[content["padding"]["pad_id"]]
    new = copy.deepcopy(tokenizer)
    new._tokenizer = Tokenizer.from_str(json.dumps(content, ensure_ascii=False))
    return Trimmed(_cut(model, kept, place), new, tuple(kept))


def changed(tokenizer: Any, trimmed: Trimmed, texts: Sequence[str]) -> list[str]:
    """The texts whose tokens are others now."""
    pairs = zip(_encoded(tokenizer, texts), _encoded(trimmed.tokenizer, texts), strict=True)
    return [
        text
        for text, (old, new) in zip(texts, pairs, strict=True)
        if old != [trimmed.kept[i] for i in new]
    ]


def _encoded(tokenizer: Any, texts: Sequence[str]) -> Iterable[list[int]]:
    """In pieces, as all at once would hold the ids of all."""
    for start in range(0, len(texts), 1_000):
        ids: list[list[int]] = tokenizer(list(texts[start : start + 1_000]))["input_ids"]
        yield from ids


def _is_single(token: str, model: dict[str, Any]) -> bool:
    """One character, be it within a word: what everything can be spelt with."""
    prefix = model.get("continuing_subword_prefix") or ""
    bare = token.removeprefix(prefix) if prefix else token
    # SentencePiece's bytes, <0x00> to <0xFF>.
    return len(bare.removeprefix("▁")) <= 1 or (len(token) == 6 and token.startswith("<0x"))


def _trim_vocab(model: dict[str, Any], place: dict[int, int]) -> None:
    vocab = {token: place[i] for token, i in model["vocab"].items() if i in place}
    model["vocab"] = vocab


def _trim_bpe(model: dict[str, Any], place: dict[int, int]) -> None:
    _trim_vocab(model, place)
    vocab = model["vocab"]
    merges = [_pair(merge) for merge in model["merges"]]
    model["merges"] = [
        [first, second]
        for first, second in merges
        if first in vocab and second in vocab and _joined(first, second, model) in vocab
    ]


def _trim_unigram(model: dict[str, Any], place: dict[int, int]) -> None:
    model["vocab"] = [piece for i, piece in enumerate(model["vocab"]) if i in place]
    if isinstance(model.get("unk_id"), int):
        model["unk_id"] = place[model["unk_id"]]


_KINDS = {"WordPiece": _trim_vocab, "BPE": _trim_bpe, "Unigram": _trim_unigram}


def _on_the_way(model: dict[str, Any], names: dict[int, str], used: set[int]) -> set[int]:
    """The tokens that merges pass through on the way to those that are used.

    A merge whose result is never seen in a text was never made there, so leaving it out changes
    nothing; one on the way to a token that is seen must stay.
    """
    vocab = model["vocab"]
    ranks = {_pair(merge): rank for rank, merge in enumerate(model["merges"])}
    prefix = model.get("continuing_subword_prefix") or ""
    found = set()
    for i in used:
        token = names[i]
        bare = token.removeprefix(prefix) if prefix else token
        parts = [(prefix if k or bare != token else "") + char for k, char in enumerate(bare)]
        while len(parts) > 1:
            rank, k = min(
                (ranks.get(pair, len(ranks)), k) for k, pair in enumerate(pairwise(parts))
            )
            if rank == len(ranks):
                break
            parts[k : k + 2] = [_joined(parts[k], parts[k + 1], model)]
            found.add(vocab[parts[k]])
    return found


def _pair(merge: Any) -> tuple[str, str]:
    """As a list, or as older files have it: with a space between."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def _joined(first: str, second: str, model: dict[str, Any]) -> str:
    return first + second.removeprefix(model.get("continuing_subword_prefix") or "")


def _move_ids(part: Any, place: dict[int, int]) -> None:
    """In a post-processor, of whatever kind: ids of the tokens that it puts around a text."""
    if isinstance(part, list):
        for one in part:
            _move_ids(one, place)
    elif isinstance(part, dict):
        if isinstance(part.get("ids"), list):
            part["ids"] = [place[i] for i in part["ids"]]
        for key, value in part.items():
            if key in ("sep", "cls") and isinstance(value, list):
                part[key] = [value[0], place[value[1]]]
            elif key != "ids":
                _move_ids(value, place)


def _cut(model: Any, kept: Sequence[int], place: dict[int, int]) -> Any:
    new = copy.deepcopy(model)
    old = new.get_input_embeddings()
    if max(kept) >= old.num_embeddings:
        raise CannotTrim(
            f"the tokenizer has the id {max(kept)}; the model has {old.num_embeddings} rows."
        )
    rows = old.weight.data[torch.as_tensor(kept)]
    padding = place.get(old.padding_idx) if old.padding_idx is not None else None
    others = [m for m in new.modules() if isinstance(m, nn.Embedding) and m is not old]
    if padding != old.padding_idx and any(one.padding_idx is not None for one in others):
        # RoBERTa and its kin count positions from the padding's id on.
        raise CannotTrim(f"the padding's id, {old.padding_idx}, would move, and positions with it.")
    embedding = nn.Embedding(len(kept), rows.shape[1], padding_idx=padding)
    embedding.weight = nn.Parameter(rows)
    new.set_input_embeddings(embedding)
    new.config.vocab_size = len(kept)
    for key, value in list(new.config.to_dict().items()):
        if key.endswith("_token_id") and isinstance(value, int):
            setattr(new.config, key, place.get(value))
    return new
