"""A classifier made of an encoder and labelled rows, as a directory that the service loads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from deployments import installing
from deployments.engines.hardware import pick_device
from deployments.optimise.labelled import BadData, Labelled, sets_of
from deployments.optimise.statistics import confusion_of, precision_recall_f1
from deployments.optimise.training import Outcome, Recipe, Told, name_run, name_weights, train
from deployments.pipeline.tasks.text_classification import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
)

FEW = 100
"""Rows of a label below which the n-grams are often as good, and a warning says so."""
MAX_LABELS = 1_000
_HELD_OUT = 0.1
CHECKPOINT = "checkpoint.pt"
_ASKED_AT_ONCE = 32

Encoding = dict[str, list[int]]
"""Of one row: input_ids, attention_mask and what else the tokenizer gives."""


class BadBase(Exception):
    """The model to start from can't be used. The message says why, and what can."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is learned. separator: between the labels of a row that may have several.

    balanced: a label counts as much as any other, however few rows have it.
    """

    problem_type: str = SINGLE_LABEL
    separator: str | None = None
    balanced: bool = False
    lora_rank: int | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """Rows to learn from and to choose by, and what they are called in an answer."""

    train: Labelled
    validation: Labelled
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finetuned:
    """n_cut: training rows longer than `max_length`. new_head: the base had none for these labels.

    drift: the most that a logit of validation moved when the weights were halved to 16 bits.
    """

    outcome: Outcome
    metric: str
    n_parameters: int
    n_trained: int
    n_cut: int
    new_head: bool
    drift: float
    logits: np.ndarray


def held_out(rows: Labelled, seed: int, of_each_label: bool) -> tuple[Labelled, Labelled]:
    """Nine tenths and one tenth; of each label, where there are labels to keep apart.

    Raises:
        BadData: a label has fewer than 2 rows.
    """
    rng = np.random.default_rng(seed)
    groups: dict[str, list[int]] = {}
    for i, label in enumerate(rows.labels):
        groups.setdefault(label if of_each_label else "", []).append(i)
    if alone := sorted(label for label, places in groups.items() if len(places) < 2):
        raise BadData(
            f"{len(alone)} labels have one row only ({', '.join(map(repr, alone[:5]))}): none is "
            "left to choose by. Label more, leave them out, or give --validation."
        )
    first: list[int] = []
    second: list[int] = []
    for places in groups.values():
        drawn = rng.permutation(places).tolist()
        n = max(1, round(len(drawn) * _HELD_OUT))
        second += drawn[:n]
        first += drawn[n:]
    return rows.rows(sorted(first)), rows.rows(sorted(second), ())


def names_of(rows: Labelled, task: Task) -> tuple[str, ...]:
    """The labels in the order of their logits.

    Raises:
        BadData: there are too many for labels that people gave.
    """
    if task.problem_type == REGRESSION:
        return ("value",)
    if task.separator is not None:
        found = sorted(set().union(*sets_of(rows, task.separator)))
    else:
        found = rows.names
    if len(found) > MAX_LABELS:
        raise BadData(
            f"the rows have {len(found):,} different labels; {MAX_LABELS:,} are the most. "
            "Is --label-column right? Numbers to be predicted want --regression."
        )
    return tuple(found)


def advice(rows: Labelled, labels: Sequence[str], task: Task) -> list[str]:
    """What a person should know before the training begins."""
    if task.problem_type == REGRESSION:
        return []
    separator = task.separator
    sets = [{label} for label in rows.labels] if separator is None else sets_of(rows, separator)
    counts = Counter(label for labels_ in sets for label in labels_)
    few = {label: counts[label] for label in labels if counts[label] < FEW}
    said = []
    if few:
        some = ", ".join(f"{n} of {label!r}" for label, n in sorted(few.items())[:5])
        said.append(
            f"{len(few)} of {len(labels)} labels have fewer than {FEW} rows ({some}). More rows "
            "help most; `rayclassify evaluate` shows whether n-grams do as well."
        )
    most, least = max(counts.values()), max(1, min(counts[label] for label in labels))
    if most > 5 * least and not task.balanced:
        said.append(
            f"the most frequent label has {most / least:.0f} times the rows of the rarest: "
            "--class-weights balanced counts each label alike."
        )
    return said


def finetune(
    base: str,
    data: Data,
    task: Task,
    recipe: Recipe,
    out: Path,
    half: bool = True,
    device: str = "auto",
    tell: Callable[[Told], None] = lambda _: None,
) -> Finetuned:
    """Trains, and writes model and tokenizer to `out`; a killed run goes on from what lies there.

    What it needs for that stays until `forget`, so that a kill before the card costs nothing.

    Raises:
        BadBase: there is no such model, or it has no head for texts.
        OtherRun: `out` holds the checkpoint of another run.
    """
    place = pick_device(device)
    torch.manual_seed(recipe.seed)  # of a new head
    tokenizer, model, new_head = loaded(base, data.labels, task.problem_type)
    n_parameters = sum(p.numel() for p in model.parameters())
    limit = min(recipe.max_length, positions_of(tokenizer, model))
    whole = _with_lora(model, task.lora_rank) if task.lora_rank else model
    whole.to(place)
    rows, checked = (tokens_of(tokenizer, one, limit) for one in (data.train, data.validation))
    targets = torch.from_numpy(targets_of(data.train, data.labels, task)).to(place)
    gold = targets_of(data.validation, data.labels, task)
    weights = _weights(targets, len(data.labels), task)

    def forward(encodings: Sequence[Encoding]) -> torch.Tensor:
        padded = tokenizer.pad(list(encodings), return_tensors="pt").to(place)
        logits: torch.Tensor = whole(**padded).logits
        return logits.float()

    def loss(places: Sequence[int]) -> torch.Tensor:
        logits, wanted = forward([rows[i] for i in places]), targets[list(places)]
        if task.problem_type == REGRESSION:
            return functional.mse_loss(logits.squeeze(1), wanted)
        if task.problem_type == MULTI_LABEL:
            return functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weights)
        return functional.cross_entropy(logits, wanted, weight=weights)

    def predicted() -> np.ndarray:
        return in_batches(checked, forward, len(data.labels))

    out.mkdir(parents=True, exist_ok=True)
    # In their order, as steps are counted over it.
    run = name_run(
        name_weights(model), data.train.texts, data.train.pairs, data.train.labels,
        data.validation.sha256(), data.labels, asdict(task), asdict(recipe),
    )  # fmt: skip
    outcome = train(
        whole,
        [len(row["input_ids"]) for row in rows],
        loss,
        lambda: score(predicted(), gold, task)[1],
        recipe,
        out / CHECKPOINT,
        run,
        tell,
    )
    n_trained = sum(p.numel() for p in whole.parameters() if p.requires_grad)
    if task.lora_rank:
        model = whole = whole.merge_and_unload()
    logits, drift = predicted(), 0.0
    if half:
        # Rounded, and run in 32 bits as before: what 16 bits keep of the weights.
        model.half().float()
        rounded = predicted()
        drift = float(np.abs(rounded - logits).max())
        logits = rounded
    save(model, tokenizer, out, half)
    return Finetuned(
        outcome,
        score(logits, gold, task)[0],
        n_parameters,
        n_trained,
        sum(len(row["input_ids"]) >= limit for row in rows),
        new_head,
        drift,
        logits,
    )


def forget(out: Path) -> None:
    """Removes what a killed run would have gone on from."""
    (out / CHECKPOINT).unlink(missing_ok=True)


def targets_of(rows: Labelled, labels: Sequence[str], task: Task) -> np.ndarray:
    """int64 [n] places of labels; float32 [n, labels] of 0 and 1; or float32 [n] of numbers."""
    if task.problem_type == REGRESSION:
        return np.asarray([float(label) for label in rows.labels], np.float32)
    if task.separator is not None:
        sets = sets_of(rows, task.separator)
        return np.asarray([[label in one for label in labels] for one in sets], np.float32)
    place = {label: i for i, label in enumerate(labels)}
    return np.asarray([place[label] for label in rows.labels], np.int64)


def score(logits: np.ndarray, gold: np.ndarray, task: Task) -> tuple[str, float]:
    """What validation is judged by: its name and its value, the higher the better.

    Macro-F1 of labels; of several labels a text, each at a score of 0.5; Pearson's r of numbers.
    """
    if task.problem_type == REGRESSION:
        values = logits[:, 0].astype(np.float64)
        if values.std() == 0 or gold.std() == 0:
            return "Pearson's r", -1.0
        return "Pearson's r", float(np.corrcoef(values, gold)[0, 1])
    if task.problem_type == MULTI_LABEL:
        said = logits > 0
        both = (said & (gold > 0)).sum(0)
        f1 = 2 * both / np.maximum(said.sum(0) + (gold > 0).sum(0), 1)
        return "macro-F1", float(f1.mean())
    confusion = confusion_of(gold, logits.argmax(1), logits.shape[1])
    return "macro-F1", float(precision_recall_f1(confusion)[2].mean())


def save(model: Any, tokenizer: Any, out: Path, half: bool = True) -> None:
    """A directory that transformers and the service load. half: weights in 16 bits."""
    out.mkdir(parents=True, exist_ok=True)
    (model.half() if half else model.float()).save_pretrained(out)
    tokenizer.save_pretrained(out)


@torch.inference_mode()
def in_batches(
    rows: Sequence[Encoding], forward: Callable[[Sequence[Encoding]], torch.Tensor], width: int
) -> np.ndarray:
    """What `forward` makes of each row, in order: float32 [n, width]. Near lengths run together."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    found = np.zeros((len(rows), width), np.float32)
    for start in range(0, len(order), _ASKED_AT_ONCE):
        some = order[start : start + _ASKED_AT_ONCE]
        found[some] = forward([rows[i] for i in some]).float().cpu().numpy()
    return found


def loaded(base: str, labels: Sequence[str], problem_type: str) -> tuple[Any, Any, bool]:
    """Tokenizer, model, and whether its head for these labels is new. Raises BadBase."""
    # Its report of a head that is new would look like a fault.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
        names = dict(enumerate(labels))
        model = AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32)
        same = model.config.num_labels == len(labels) and dict(model.config.id2label) == names
        had = any("ForSequenceClassification" in one for one in model.config.architectures or ())
        if not (same and had):
            model = AutoModelForSequenceClassification.from_pretrained(
                base,
                dtype=torch.float32,
                num_labels=len(labels),
                id2label=names,
                label2id={name: i for i, name in names.items()},
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError, KeyError) as exc:
        raise BadBase(
            f"{base} can't be trained: {str(exc).splitlines()[0][:200]} Name a directory or a hub "
            "id of an encoder that transformers has with a classifier's head, and with a tokenizer."
        ) from exc
    model.config.problem_type = problem_type
    return tokenizer, model, not (same and had)


def positions_of(tokenizer: Any, model: Any) -> int:
    """Tokens that the model reads."""
    positions = getattr(model.config, "max_position_embeddings", None) or 512
    # RoBERTa and its kin count from the padding's id on.
    if getattr(model.config, "model_type", "") in {"roberta", "xlm-roberta", "camembert"}:
        positions -= (model.config.pad_token_id or 0) + 1
    return int(min(positions, tokenizer.model_max_length))


def _with_lora(model: Any, rank: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise BadBase(f"--lora-rank needs peft: {installing('train')}.") from None
    # Scaled as in Hu et al. 2021 with alpha twice the rank; the head is trained whole.
    config = LoraConfig(
        task_type="SEQ_CLS", r=rank, lora_alpha=2 * rank, target_modules="all-linear"
    )
    return get_peft_model(model, config)


def tokens_of(tokenizer: Any, rows: Labelled, limit: int) -> list[Encoding]:
    """Each row's tokens, cut to the limit."""
    encoded = tokenizer(rows.texts, rows.pairs, truncation=True, max_length=limit)
    return [{key: encoded[key][i] for key in encoded} for i in range(len(rows))]


def _weights(targets: torch.Tensor, n_labels: int, task: Task) -> torch.Tensor | None:
    """n / (labels · rows of the label), as scikit-learn's `balanced`; of several labels a text,
    how many rows lack a label for each that has it."""
    if not task.balanced or task.problem_type == REGRESSION:
        return None
    if task.problem_type == MULTI_LABEL:
        having = targets.sum(0).clamp(min=1)
        return (len(targets) - having) / having
    counts = torch.bincount(targets, minlength=n_labels).clamp(min=1)
    return (len(targets) / (n_labels * counts)).float()
