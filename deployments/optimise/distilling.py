"""A smaller model that answers as a larger one does, taught by it; most texts need no labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from deployments.engines.hardware import pick_device
from deployments.optimise.bases import BadBase, positions_of, refuse_no_directory
from deployments.optimise.finetuning import (
    Encoding,
    Task,
    asks,
    in_batches,
    score,
    targets_of,
    tokens_of,
)
from deployments.optimise.labelled import BadData, Labelled
from deployments.optimise.saving import save
from deployments.optimise.training import Outcome, Recipe, Told, name_run, name_weights, train
from deployments.optimise.unfinished import CHECKPOINT, OPINIONS, partial_of
from deployments.pipeline.tasks.text_classification import MULTI_LABEL, REGRESSION, SINGLE_LABEL

TEMPERATURE = 2.0
"""Of teacher and student alike; Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"
use 1 to 20, small ones for small students."""
LABEL_WEIGHT = 0.3
"""How much the rows' own labels count beside the teacher's opinion, where rows have labels."""
_CALIBRATION = "calibration.json"


@dataclass(frozen=True, slots=True)
class Lesson:
    """labelled: rows with labels that the teacher has. more: texts without; labels are empty.
    validation: chooses the epoch, by its labels."""

    labelled: Labelled
    more: Sequence[str]
    validation: Labelled


@dataclass(frozen=True, slots=True)
class Opinions:
    """logits: float32 [n, labels]. summaries: the first token's last hidden state, [n, width]."""

    logits: np.ndarray
    summaries: np.ndarray


@dataclass(frozen=True, slots=True)
class Distilled:
    """teacher, student: logits of validation. agreement: how often both give it the same label; of
    a regression Pearson's r."""

    outcome: Outcome
    metric: str
    teacher: np.ndarray
    student: np.ndarray
    agreement: float


def load(directory: str) -> tuple[Any, Any]:
    """A model in float32, and its tokenizer. Raises BadBase."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    refuse_no_directory(directory)
    try:
        model, found = AutoModelForSequenceClassification.from_pretrained(
            directory, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(directory)
    except (OSError, ValueError, KeyError) as exc:
        raise BadBase(
            f"{directory} can't be loaded: {str(exc).splitlines()[0][:200]} Name a directory or a "
            "hub id of a text classifier, with its tokenizer."
        ) from exc
    if missing := sorted(found["missing_keys"]):
        raise BadBase(
            f"{directory} lacks {len(missing)} weights of a text classifier ({missing[0]}): they "
            "would be random. Train it first: rayclassify finetune."
        )
    return model.eval(), tokenizer


def task_of(model: Any, separator: str | None = None) -> Task:
    """What a model was made for, as its config says or as transformers would take it."""
    config = model.config
    kind = config.problem_type or (REGRESSION if config.num_labels == 1 else SINGLE_LABEL)
    return Task(kind, separator)


def check_separator(name: str, task: Task) -> None:
    """Raises BadData: a separator is said for a model that gives one label, or none for several."""
    if (task.problem_type == MULTI_LABEL) != (task.separator is not None):
        needs = "say" if task.separator is None else "leave out"
        raise BadData(f"{name} is a {task.problem_type} model: {needs} --label-separator.")


def labels_of(model: Any) -> tuple[str, ...]:
    """In the order of the logits."""
    names = model.config.id2label
    return tuple(names[i] for i in range(model.config.num_labels))


def keep_calibration(original: str, out: Path) -> None:
    """For a model with the original's logits, or nearly so."""
    if (calibration := Path(original) / _CALIBRATION).is_file():
        shutil.copyfile(calibration, out / _CALIBRATION)


def distill(
    teacher: Any,
    teachers_tokenizer: Any,
    student: Any,
    tokenizer: Any,
    lesson: Lesson,
    recipe: Recipe,
    out: Path,
    separator: str | None = None,
    device: str = "auto",
    half: bool = True,
    name: Sequence[object] = (),
    tell: Callable[[Told], None] = lambda _: None,
) -> Distilled:
    """Trains the student and writes it to `out`; a killed run goes on from what lies there.

    What it needs for that stays until `unfinished.forget`: a kill before the card costs nothing.

    The loss: cross-entropy against the teacher's scores at `TEMPERATURE`, mixed with the labels by
    `LABEL_WEIGHT`; and one less the cosine between their summaries, the student's through a linear
    map where widths differ. name: what else shapes it.

    Raises:
        OtherRun: `out` holds the checkpoint of another run.
        Diverged: the loss became infinite or NaN.
    """
    place = pick_device(device)
    task, labels = task_of(teacher, separator), labels_of(teacher)
    rows = Labelled(
        [*lesson.labelled.texts, *lesson.more],
        [*lesson.labelled.labels, *[""] * len(lesson.more)],
        (),
        lesson.labelled.pairs,
    )
    # In their order, as the teacher's opinions are kept in it.
    run = name_run(
        rows.texts, rows.labels, lesson.validation.sha256(), labels, asdict(task), asdict(recipe),
        student.config.to_dict(), name_weights(teacher),
        name_weights(student.get_input_embeddings()), list(name),
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    limit = min(recipe.max_length, positions_of(tokenizer, student))
    teachers_limit = min(limit, positions_of(teachers_tokenizer, teacher))
    read = tokens_of(teachers_tokenizer, rows, teachers_limit)
    opinions = _opinions(teacher.to(place), teachers_tokenizer, read, out, run)
    encoded = tokens_of(tokenizer, rows, limit)
    checked = tokens_of(tokenizer, lesson.validation, limit)
    gold = targets_of(lesson.validation, labels, task)
    wanted = torch.from_numpy(_wanted(opinions.logits, lesson.labelled, labels, task)).to(place)
    summaries = torch.from_numpy(opinions.summaries).to(place)

    torch.manual_seed(recipe.seed)
    widths = student.config.hidden_size, opinions.summaries.shape[1]
    mapped = nn.Identity() if widths[0] == widths[1] else nn.Linear(*widths)
    both = nn.ModuleDict({"student": student, "map": mapped}).to(place)

    def loss(places: Sequence[int]) -> torch.Tensor:
        some = list(places)
        padded = tokenizer.pad([encoded[i] for i in some], return_tensors="pt").to(place)
        answer = student(**padded, output_hidden_states=True)
        value = _loss(answer.logits.float(), wanted[some], task)
        seen = mapped(answer.hidden_states[-1][:, 0].float())
        return value + (1 - functional.cosine_similarity(seen, summaries[some])).mean()

    def predicted() -> np.ndarray:
        return in_batches(checked, asks(student, tokenizer), len(labels))

    outcome = train(
        both,
        [len(row["input_ids"]) for row in encoded],
        loss,
        lambda: score(predicted(), gold, task)[1],
        recipe,
        out / CHECKPOINT,
        run,
        tell,
    )
    if half:
        student.half().float()
    theirs = tokens_of(teachers_tokenizer, lesson.validation, teachers_limit)
    said = in_batches(theirs, asks(teacher, teachers_tokenizer), len(labels))
    answers = predicted()
    save(student, tokenizer, out, half)
    metric = score(answers, gold, task)[0]
    return Distilled(outcome, metric, said, answers, agreement(said, answers, task))


def agreement(one: np.ndarray, other: np.ndarray, task: Task) -> float:
    """Share of texts with the same label, or labels; of a regression Pearson's r."""
    if task.problem_type == REGRESSION:
        return score(one, other[:, 0], task)[1]
    if task.problem_type == MULTI_LABEL:
        return float(((one > 0) == (other > 0)).all(1).mean())
    return float((one.argmax(1) == other.argmax(1)).mean())


def _loss(logits: torch.Tensor, wanted: torch.Tensor, task: Task) -> torch.Tensor:
    if task.problem_type == REGRESSION:
        return functional.mse_loss(logits, wanted)
    # Times the temperature squared, as its gradients shrink by that (Hinton et al., section 2).
    if task.problem_type == MULTI_LABEL:
        cold = functional.binary_cross_entropy_with_logits(logits / TEMPERATURE, wanted)
    else:
        cold = functional.cross_entropy(logits / TEMPERATURE, wanted)
    return cold * TEMPERATURE**2


def _wanted(
    logits: np.ndarray, labelled: Labelled, labels: Sequence[str], task: Task
) -> np.ndarray:
    """What the student should say: float32 [n, labels]. Labelled rows come first."""
    if task.problem_type == REGRESSION:
        said, own = logits.copy(), targets_of(labelled, labels, task)[:, None]
    elif task.problem_type == MULTI_LABEL:
        said = 1 / (1 + np.exp(-logits / TEMPERATURE))
        own = targets_of(labelled, labels, task)
    else:
        said = torch.from_numpy(logits / TEMPERATURE).softmax(1).numpy()
        own = np.eye(len(labels), dtype=np.float32)[targets_of(labelled, labels, task)]
    n = len(labelled)
    said[:n] = (1 - LABEL_WEIGHT) * said[:n] + LABEL_WEIGHT * own
    return said.astype(np.float32)


def _opinions(
    teacher: Any, tokenizer: Any, rows: Sequence[Encoding], out: Path, run: str
) -> Opinions:
    """Asked once, and kept while the student learns: a run that goes on does not ask again."""
    kept = out / OPINIONS
    if kept.exists():
        with np.load(kept) as found:
            if str(found["run"]) == run:
                return Opinions(found["logits"], found["summaries"])
    place, n_labels = next(teacher.parameters()).device, teacher.config.num_labels

    def forward(some: Sequence[Encoding]) -> torch.Tensor:
        padded = tokenizer.pad(list(some), return_tensors="pt").to(place)
        answer = teacher(**padded, output_hidden_states=True)
        return torch.cat([answer.logits, answer.hidden_states[-1][:, 0]], 1)

    found = in_batches(rows, forward, n_labels + teacher.config.hidden_size)
    partial = partial_of(kept)
    with partial.open("wb") as file:
        np.savez(file, run=run, logits=found[:, :n_labels], summaries=found[:, n_labels:])
    partial.replace(kept)
    return Opinions(found[:, :n_labels], found[:, n_labels:])
