"""A training loop that can be killed: it goes on where its last checkpoint left it.

What is trained, on which rows, against which loss and how it is judged come from outside.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from deployments.optimise.unfinished import partial_of

CHECKPOINT_EVERY_S = 30.0
_STEPS = 50
"""Batches of an epoch of few rows, as far as batches keep _LEAST_ROWS: 200 rows in 5 batches an
epoch end before anything is learnt."""
_LEAST_ROWS = 8
_SHARE_OF_TIME = 0.05
"""What checkpoints may cost: one of a large model takes seconds to write."""
CLIP_NORM = 1.0


class OtherRun(Exception):
    """The checkpoint is of another model, other rows or another recipe."""


class Diverged(Exception):
    """The loss is no number any more. The message says at which step, and what helps."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how hard. batch_tokens: of the rows of a batch, padding included.

    patience: epochs without a better validation score before it ends.
    """

    epochs: int = 4
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warmup_share: float = 0.06
    batch_tokens: int = 1_024
    max_length: int = 256
    patience: int = 2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """What a run says while it goes on. score: of validation, after an epoch."""

    step: int
    steps: int
    loss: float
    epoch: int
    score: float | None = None


@dataclass(slots=True)
class Outcome:
    """scores: of validation after each epoch. epoch: the one whose weights were kept, from 1."""

    scores: list[float] = field(default_factory=list)
    epoch: int = 0
    seconds: float = 0.0
    resumed: bool = False


def batches(lengths: Sequence[int], recipe: Recipe, epoch: int) -> list[list[int]]:
    """Places of rows for one epoch: near lengths together, so that little is padding.

    Drawn by the seed and the epoch alone, so that a run that goes on draws what it would have.
    """
    most = max(_LEAST_ROWS, len(lengths) // _STEPS)
    rng = np.random.default_rng((recipe.seed, epoch))
    order = rng.permutation(len(lengths))
    pools = np.array_split(order, max(1, len(order) // 1_024))
    found: list[list[int]] = []
    for pool in pools:
        batch: list[int] = []
        for i in sorted(pool.tolist(), key=lambda i: lengths[i]):
            full = len(batch) == most or (len(batch) + 1) * lengths[i] > recipe.batch_tokens
            if batch and full:
                found.append(batch)
                batch = []
            batch.append(i)
        found.append(batch)
    return [found[i] for i in rng.permutation(len(found))]


def train(
    model: nn.Module,
    lengths: Sequence[int],
    loss: Callable[[Sequence[int]], torch.Tensor],
    score: Callable[[], float],
    recipe: Recipe,
    checkpoint: Path,
    run: str,
    tell: Callable[[Told], None] = lambda _: None,
    anew: bool = False,
) -> Outcome:
    """Trains `model` in place and leaves it with the weights of its best epoch.

    lengths: tokens of each row. loss: of rows, by their places. score: of validation; the highest
    wins. run: names model, rows and recipe, so that no run goes on from another's checkpoint.
    anew: another run's checkpoint is written over, instead of OtherRun.

    Raises:
        OtherRun: the checkpoint is another run's.
        Diverged: the loss, its gradient or a score became infinite or NaN.
    """
    epochs = [batches(lengths, recipe, epoch) for epoch in range(recipe.epochs)]
    steps = sum(map(len, epochs))
    optimizer = _optimizer(model, recipe)
    state = _State(checkpoint, run, model, optimizer)
    resumed = state.load(anew)
    device = next(model.parameters()).device
    half = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
    started = saved = time.monotonic()
    before_s, step = state.seconds, 0
    model.train()
    for epoch, todo in enumerate(epochs):
        # Here, so that a run killed after its last epoch does not learn one more.
        # A score of 0 or less is of a model that has learnt nothing yet: it may still.
        best_score = max(state.scores, default=0.0)
        if best_score > 0 and epoch - 1 - state.scores.index(best_score) >= recipe.patience:
            break
        for rows in todo:
            step += 1
            if step <= state.step:
                continue
            # Seeded by step, not once: a run that goes on then drops what an unbroken one would.
            torch.manual_seed(recipe.seed * 1_000_003 + step)
            with half:
                value = loss(rows)
            value.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            # The gradient too: a step along an infinite one leaves no weight that is a number.
            _check(value.detach() * norm, "loss", step, steps, recipe)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _schedule((step - 1) / steps, recipe)
            optimizer.step()
            optimizer.zero_grad()
            state.step = step
            tell(Told(step, steps, float(value.detach()), epoch + 1))
            now = time.monotonic()
            state.seconds = before_s + now - started
            if now - saved > max(CHECKPOINT_EVERY_S, state.save_s / _SHARE_OF_TIME):
                state.save()
                saved = time.monotonic()
        if epoch < len(state.scores):
            continue
        model.eval()
        judged = score()
        _check(torch.tensor(judged), "score of validation", step, steps, recipe)
        state.scores.append(judged)
        model.train()
        tell(Told(step, steps, 0.0, epoch + 1, state.scores[-1]))
        if state.scores[-1] > max(state.scores[:-1], default=-np.inf):
            state.best = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        state.save()
    model.load_state_dict(state.best)
    model.eval()
    best = int(np.argmax(state.scores)) + 1
    return Outcome(list(state.scores), best, state.seconds, resumed)


def name_run(*parts: Any) -> str:
    """A short name of all that shapes a run."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def name_weights(model: nn.Module) -> str:
    """Names a model by what it holds: the same path may hold others tomorrow."""
    found = hashlib.sha256()
    for name, weights in model.state_dict().items():
        found.update(name.encode())
        found.update(weights.cpu().contiguous().numpy())
    return found.hexdigest()


class _State:
    """What a killed run needs to go on as if it had not been."""

    def __init__(
        self, path: Path, run: str, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        self._path, self._run, self._model, self._optimizer = path, run, model, optimizer
        self.step, self.seconds = 0, 0.0
        self.save_s = 0.0
        self.scores: list[float] = []
        self.best: dict[str, torch.Tensor] = {}

    def load(self, anew: bool) -> bool:
        """Whether there was something to go on from. anew: what is another run's does not count."""
        if not self._path.exists():
            return False
        try:
            kept = torch.load(self._path, map_location="cpu", weights_only=True)
            own = kept["run"] == self._run
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError):
            own = False
        if not own and anew:
            return False
        if not own:
            raise OtherRun(
                f"{self._path} is of a run with another model, other rows or other options. "
                "Ask for that run again to go on, or begin anew with --force."
            )
        self._model.load_state_dict(kept["model"])
        self._optimizer.load_state_dict(kept["optimizer"])
        self.step, self.seconds = kept["step"], kept["seconds"]
        self.scores, self.best = kept["scores"], kept["best"]
        return True

    def save(self) -> None:
        """A kill in the middle leaves the checkpoint before it."""
        began = time.monotonic()
        partial = partial_of(self._path)
        torch.save(
            {
                "run": self._run,
                "model": self._model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
                "scores": self.scores,
                "best": self.best,
            },
            partial,
        )
        partial.replace(self._path)
        self.save_s = time.monotonic() - began


def _check(value: torch.Tensor, what: str, step: int, steps: int, recipe: Recipe) -> None:
    if not torch.isfinite(value):
        raise Diverged(
            f"the {what} is no number after batch {step:,} of {steps:,}. Give a "
            f"lower --learning-rate than {recipe.learning_rate:g}, with --force."
        )


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    # Decay would pull rare tokens to zero between their few updates.
    decayed = [p for name, p in named if p.ndim > 1 and "embedding" not in name]
    free = [p for name, p in named if not (p.ndim > 1 and "embedding" not in name)]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _schedule(done: float, recipe: Recipe) -> float:
    """Up to 1 over the warm-up, then straight down to 0."""
    if done < recipe.warmup_share:
        return (done + 1e-3) / recipe.warmup_share
    return (1 - done) / (1 - recipe.warmup_share)
