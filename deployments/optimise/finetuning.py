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

from deployments import installing
from deployments.engines.hardware import pick_device
from deployments.optimise.bases import (
    BadBase,
    head_of,
    loaded,
    positions_of,
    rescale,
    share_unknown,
)
from deployments.optimise.labelled import BadData, Labelled, sets_of
from deployments.optimise.saving import save
from deployments.optimise.statistics import confusion_of, precision_recall_f1
from deployments.optimise.training import (
    Outcome,
    Recipe,
    Told,
    name_run,
    name_weights,
    train,
)
from deployments.optimise.unfinished import CHECKPOINT
from deployments.pipeline.tasks.text_classification import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
)

FEW = 100
"""Rows of a label below which the n-grams are often as good, and a warning says so."""
MAX_LABELS = 1_000
_HELD_OUT = 0.1
_MOST_MOVED = 0.01
"""Of a standard deviation: what rounding to 16 bits may move an answer that is a number."""
_ASKED_AT_ONCE = 32

Encoding = dict[str, list[int]]
"""Of one row: input_ids, attention_mask and what else the tokenizer gives."""


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
    """n_cut: training rows longer than `max_length`. logits: of validation.

    drift: the most that a logit of validation moved when the weights were halved to 16 bits; None
    where they stayed in 32. unknown: share of training tokens that the tokenizer does not know.
    """

    outcome: Outcome
    metric: str
    n_parameters: int
    n_trained: int
    n_cut: int
    drift: float | None
    unknown: float
    logits: np.ndarray
    gold: np.ndarray


def held_out(
    rows: Labelled, seed: int, of_each_label: bool, separator: str | None = None
) -> tuple[Labelled, Labelled]:
    """Nine tenths and one tenth; of each label, where there are labels to keep apart.

    separator: of rows with several labels; the last row with a label stays in the first part.

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
    sets = [set()] * len(rows) if separator is None else sets_of(rows, separator)
    left = Counter(label for labels in sets for label in labels)
    second: set[int] = set()
    for places in groups.values():
        n = max(1, round(len(places) * _HELD_OUT))
        for i in rng.permutation(places).tolist():
            if n and all(left[label] > 1 for label in sets[i]):
                left.subtract(sets[i])
                second.add(i)
                n -= 1
    first = [i for i in range(len(rows)) if i not in second]
    return rows.rows(first), rows.rows(sorted(second), ())


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
    # Labels that are numbers in the order of numbers: 10 after 9, not after 1.
    return tuple(sorted(found, key=int) if all(map(str.isdecimal, found)) else found)


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
    anew: bool = False,
) -> Finetuned:
    """Trains, and writes model and tokenizer to `out`; a killed run goes on from what lies there.

    What it needs for that stays until `unfinished.forget`: a kill before the card costs nothing.
    A model that lies in `out` stays until the new one is trained. anew: instead of OtherRun.

    Numbers are learnt as distances from their mean in standard deviations, and the head is
    rescaled at the end: steps of 5e-5 would not reach 5,000.

    Raises:
        BadBase: there is no such model, it has no head for texts, or it can't read these.
        OtherRun: `out` holds the checkpoint of another run.
    """
    place = pick_device(device)
    torch.manual_seed(recipe.seed)  # of a new head
    tokenizer, model, new_head = loaded(base, data.labels, task.problem_type)
    n_parameters = sum(p.numel() for p in model.parameters())
    limit = min(recipe.max_length, positions_of(tokenizer, model))
    rows, checked = (tokens_of(tokenizer, one, limit) for one in (data.train, data.validation))
    unknown = share_unknown(base, tokenizer, model, [row["input_ids"] for row in (*rows, *checked)])
    learnt = targets_of(data.train, data.labels, task)
    gold = targets_of(data.validation, data.labels, task)
    scale = _scale(learnt, model, task)
    mean, deviation = scale or (0.0, 1.0)
    if scale and not new_head:
        rescale(model, 1 / deviation, -mean / deviation)
    whole = _with_lora(model, task.lora_rank) if task.lora_rank else model
    whole.to(place)
    targets = torch.from_numpy(((learnt - mean) / deviation).astype(learnt.dtype)).to(place)
    weights = _weights(targets, len(data.labels), task)

    def loss(places: Sequence[int]) -> torch.Tensor:
        logits = asks(whole, tokenizer)([rows[i] for i in places])
        return task_loss(logits, targets[list(places)], task, weights)

    def predicted() -> np.ndarray:
        return in_batches(checked, asks(whole, tokenizer), len(data.labels))

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
        lambda: score(predicted() * deviation + mean, gold, task)[1],
        recipe,
        out / CHECKPOINT,
        run,
        tell,
        anew,
    )
    n_trained = sum(p.numel() for p in whole.parameters() if p.requires_grad)
    if task.lora_rank:
        model = whole = whole.merge_and_unload()
    if scale:
        rescale(model, deviation, mean)
    logits, drift = predicted(), None
    if half:
        exact = {name: weights.clone() for name, weights in model.state_dict().items()}
        # Rounded, and run in 32 bits as before: what 16 bits keep of the weights.
        model.half().float()
        rounded = predicted()
        moved = float(np.abs(rounded - logits).max())
        # 16 bits end at 65,504, and tell no 2,020 from 2,020.4.
        most = _MOST_MOVED * deviation if task.problem_type == REGRESSION else np.inf
        if half := moved < most:
            logits, drift = rounded, moved
        else:
            model.load_state_dict(exact)
    _make_room(out)
    save(model, tokenizer, out, half)
    return Finetuned(
        outcome,
        score(logits, gold, task)[0],
        n_parameters,
        n_trained,
        _n_cut(tokenizer, data.train, rows, limit),
        drift,
        unknown,
        logits,
        gold,
    )


def _make_room(out: Path) -> None:
    """The model that is replaced goes whole: its calibration would bend the new one's scores."""
    for path in out.iterdir():
        if path.is_file() and path.name != CHECKPOINT:
            path.unlink()


def asks(model: Any, tokenizer: Any) -> Callable[[Sequence[Encoding]], torch.Tensor]:
    """Logits of some rows: float32 [n, labels]."""
    place = next(model.parameters()).device

    def forward(rows: Sequence[Encoding]) -> torch.Tensor:
        padded = tokenizer.pad(list(rows), return_tensors="pt").to(place)
        logits: torch.Tensor = model(**padded).logits
        return logits.float()

    return forward


def task_loss(
    logits: torch.Tensor,
    wanted: torch.Tensor,
    task: Task,
    weights: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """wanted: see `targets_of`. weights: of the labels."""
    if task.problem_type == REGRESSION:
        return functional.mse_loss(logits.squeeze(1), wanted, reduction=reduction)
    if task.problem_type == MULTI_LABEL:
        return functional.binary_cross_entropy_with_logits(
            logits, wanted, pos_weight=weights, reduction=reduction
        )
    return functional.cross_entropy(logits, wanted, weight=weights, reduction=reduction)


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

    Macro-F1 of labels; of several labels a text, each at a score of 0.5; of numbers R²,
    1 less the squared errors' share of the variance: their order alone would not do.
    """
    if task.problem_type == REGRESSION:
        values = logits[:, 0].astype(np.float64)
        return "R²", float(1 - np.mean((values - gold) ** 2) / (gold.var() or 1.0))
    if task.problem_type == MULTI_LABEL:
        said = logits > 0
        both = (said & (gold > 0)).sum(0)
        f1 = 2 * both / np.maximum(said.sum(0) + (gold > 0).sum(0), 1)
        return "macro-F1", float(f1.mean())
    confusion = confusion_of(gold, logits.argmax(1), logits.shape[1])
    return "macro-F1", float(precision_recall_f1(confusion)[2].mean())


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


def _with_lora(model: Any, rank: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise BadBase(f"--lora-rank needs peft: {installing('train')}.") from None
    # Scaled as in Hu et al. 2021 with alpha twice the rank; the head is trained whole.
    scaled: Any = {"r": rank, "lora_alpha": 2 * rank}
    config = LoraConfig(task_type="SEQ_CLS", target_modules="all-linear", **scaled)
    return get_peft_model(model, config)


def tokens_of(tokenizer: Any, rows: Labelled, limit: int) -> list[Encoding]:
    """Each row's tokens, cut to the limit."""
    encoded = tokenizer(rows.texts, rows.pairs, truncation=True, max_length=limit)
    return [{key: encoded[key][i] for key in encoded} for i in range(len(rows))]


def _scale(targets: np.ndarray, model: Any, task: Task) -> tuple[float, float] | None:
    """Mean and standard deviation of numbers to be learnt."""
    head = head_of(model)
    # Without a bias there is nowhere to keep the mean.
    if task.problem_type != REGRESSION or head is None or head.bias is None:
        return None
    return float(targets.mean()), float(targets.std()) or 1.0


def _n_cut(tokenizer: Any, rows: Labelled, encoded: Sequence[Encoding], limit: int) -> int:
    full = [i for i, row in enumerate(encoded) if len(row["input_ids"]) >= limit]
    if not full:
        return 0
    some = rows.rows(full)
    whole = tokenizer(some.texts, some.pairs, truncation=False)["input_ids"]
    return sum(len(ids) > limit for ids in whole)


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
