"""docs/models.md: what the sweep found, a line for each class. Run to write it anew:

python tests/unit/sweep/document.py
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from judge import BOUNDS, Verdict, judge
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSES,
)

PAGE = Path(__file__).resolve().parents[3] / "docs" / "models.md"

# Names that people search for → the type in config.json.
_KNOWN_AS: tuple[tuple[str, str], ...] = (
    ("BERT, MacBERT, multilingual BERT, FinBERT, BioBERT, LegalBERT, TinyBERT, MiniLM", "bert"),
    ("Chinese RoBERTa-wwm (a BERT by its config.json)", "bert"),
    ("RoBERTa, Twitter-RoBERTa, GoEmotions, RoBERTa-large-MNLI", "roberta"),
    ("XLM-R, XLM-RoBERTa, multilingual sentiment, BGE rerankers", "xlm-roberta"),
    ("XLM-R XL and XXL", "xlm-roberta-xl"),
    ("CamemBERT", "camembert"),
    ("DistilBERT, DistilBERT-SST-2", "distilbert"),
    ("ELECTRA", "electra"),
    ("ALBERT", "albert"),
    ("MPNet", "mpnet"),
    ("ERNIE", "ernie"),
    ("ModernBERT", "modernbert"),
    ("Ettin and other causal ModernBERTs", "modernbert-decoder"),
    ("EuroBERT", "eurobert"),
    ("GTE rerankers and encoders", "gte"),
    ("DeBERTa v1, DeBERTa-MNLI", "deberta"),
    ("DeBERTa v2 and v3, mDeBERTa, Prompt-Guard, NLI cross-encoders, zero-shot NLI", "deberta-v2"),
    ("Longformer", "longformer"),
    ("BigBird", "big_bird"),
    ("BART, BART-large-MNLI", "bart"),
    ("T5, Flan-T5", "t5"),
    ("mT5", "mt5"),
    ("XLNet", "xlnet"),
    ("ESM (proteins)", "esm"),
    ("GPT-2", "gpt2"),
    ("OPT", "opt"),
    ("BLOOM", "bloom"),
    ("Llama 2 and 3, Llama-Guard-like heads, reward models", "llama"),
    ("Mistral, reward models", "mistral"),
    ("Qwen 2 and 2.5", "qwen2"),
    ("Qwen 3", "qwen3"),
    ("Gemma", "gemma"),
    ("Gemma 2, ShieldGemma-like heads", "gemma2"),
    ("Gemma 3, text only", "gemma3_text"),
    ("Phi 3 and 4", "phi3"),
)

_HEAD = """\
# Models

What runs, and how near it comes to transformers' own answers. Every class of
`AutoModelForSequenceClassification` is built small, with random weights and a tokenizer of its
usual kind, and asked {n_single} texts and {n_pairs} pairs, from one word to more than it reads. Its
scores are held against transformers' own text-classification pipeline in float32, which is given
one text at a time. **held**: no score is further away than {bounds}. What isn't
held is refused: the service doesn't start, and says why.

This page is written by `python tests/unit/sweep/document.py`; a test fails where it and the sweep
differ. For your model the same is measured again at each start, on its own weights: `/info` tells.

- **packed**: texts share a pass without padding, the fastest. **padded**: texts of about one length
  do. **one length**: only texts of exactly one length do, as padding changes this class's answers.
  **one by one**: a text, a pass.
- bfloat16 and int8 want a CPU that has them; `dtype: auto` measures what is fastest and near
  enough.

## By the names people search for

| Model | Class | Runs | float32 | bfloat16 | int8 |
|---|---|---|---|---|---|
{known}

## Every class

| Class | `model_type` | Runs | Pairs | float32 | bfloat16 | int8 | Remarks |
|---|---|---|---|---|---|---|---|
{all}
"""


def page(verdicts: Iterable[Verdict]) -> str:
    """The whole page."""
    from judge import PAIRS, SINGLE

    by_type = {verdict.model_type: verdict for verdict in verdicts}
    known = [
        f"| {name} | {_class(by_type[kind])} | {_runs(by_type[kind])} | "
        + " | ".join(_cell(by_type[kind], dtype) for dtype in BOUNDS)
        + " |"
        for name, kind in _KNOWN_AS
        if kind in by_type
    ]
    return _HEAD.format(
        n_single=len(SINGLE),
        n_pairs=len(PAIRS),
        bounds=", ".join(f"{bound:g} in {dtype}" for dtype, bound in BOUNDS.items()),
        known="\n".join(known),
        all="\n".join(line(by_type[kind]) for kind in sorted(by_type)),
    )


def line(verdict: Verdict) -> str:
    """One class's line of the last table."""
    cells = [_cell(verdict, dtype) for dtype in BOUNDS]
    pairs = "yes" if verdict.pairs and verdict.held else "-"
    return (
        f"| {_class(verdict)} | `{verdict.model_type}` | {_runs(verdict)} | {pairs} | "
        + " | ".join(cells)
        + f" | {_remark(verdict)} |"
    )


def _class(verdict: Verdict) -> str:
    return verdict.name.removesuffix("ForSequenceClassification")


def _runs(verdict: Verdict) -> str:
    return verdict.batching if verdict.held else "-"


def _cell(verdict: Verdict, dtype: str) -> str:
    if verdict.not_built:
        return "not tried"
    if ("torch", dtype) in verdict.held:
        return "held"
    return "refused" if ("torch", dtype) in verdict.refused else "**wrong**"


def _remark(verdict: Verdict) -> str:
    if verdict.not_built:
        return f"{verdict.not_built[0].upper()}{verdict.not_built[1:]}."
    if said := verdict.refused.get(("torch", "float32")):
        return "It reads more than a text." if "reads more than a text" in said else _first(said)
    found = [_ABOUT[start] for start in _ABOUT if any(r.startswith(start) for r in verdict.remarks)]
    if any("padded logits differ" in remark for remark in verdict.remarks):
        found.append("Padding changes its answers.")
    if any("changes the model" in remark for remark in verdict.remarks):
        found.append("A pass changes the model by the length of its texts, which is undone.")
    if verdict.fails_on:
        found.append("transformers itself fails on the shortest texts.")
    for dtype in ("bfloat16", "int8"):
        if said := verdict.refused.get(("torch", dtype)):
            found.append(f"{dtype}: {_why_not(said)}.")
    return " ".join(found)


_ABOUT = {"Linear layers stay plain": "Its linear layers are read by name, and stay plain."}
"""How a remark begins → what to say of the class: figures differ from machine to machine."""


def _why_not(said: str) -> str:
    if "no linear layers" in said:
        return "it has no linear layers of torch's own"
    if "are off by" in said:
        return "too far from float32"
    return "the class can't"


def _first(said: str) -> str:
    return said.split(". ", 1)[0].rstrip(".") + "."


def sweep() -> list[Verdict]:
    """Every class, one after the other; takes some minutes."""
    verdicts = []
    for model_type, name in CLASSES.items():
        with tempfile.TemporaryDirectory() as directory:
            verdicts.append(judge(model_type, Path(directory), name))
        sys.stderr.write(f"{model_type}: {verdicts[-1].wrong or 'well'}\n")
    return verdicts


if __name__ == "__main__":
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    set_verbosity_error()
    disable_progress_bar()
    logging.getLogger("deployments").setLevel(logging.ERROR)
    PAGE.write_text(page(sweep()), encoding="utf-8")
