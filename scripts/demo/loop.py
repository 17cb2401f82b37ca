"""The optimisation loop that both training stages share: warm-up, averaging, resuming."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

# An interrupt saves nothing itself: it may fall between the two halves of a step.
CHECKPOINT_EVERY_S = 30.0
WARMUP_SHARE = 0.06
CLIP_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training: what to minimise, for how long, how fast."""

    name: str
    loss: Callable[[Any, int], torch.Tensor]
    steps: int
    learning_rate: float
    weight_decay: float
    average_decay: float


@dataclass(slots=True)
class Progress:
    """Everything that a stopped run needs to go on as if it had not stopped."""

    model: nn.Module
    average: Any
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write atomically, so that a kill in mid-write leaves the previous checkpoint."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]


def run(stage: Stage, model: nn.Module, path: Path, seed: int) -> Progress:
    """Train to the stage's last step, from the checkpoint at `path` if there is one."""
    optimizer = _optimizer(model, stage)
    progress = Progress(model, copy.deepcopy(model), optimizer)
    if path.exists():
        progress.load(path)
    _advance(stage, progress, path, seed)
    progress.save(path)
    progress.average.eval()
    return progress


def _advance(stage: Stage, progress: Progress, path: Path, seed: int) -> None:
    model, optimizer = progress.model.train(), progress.optimizer
    bar = tqdm(total=stage.steps, initial=progress.step, desc=stage.name, mininterval=1.0)
    saved = now = time.monotonic()
    with bar:
        while progress.step < stage.steps:
            # Seeded by step, not once: a resumed run then draws what an unbroken one would.
            torch.manual_seed(seed * 1_000_003 + progress.step)
            loss = stage.loss(model, progress.step)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * _schedule(progress.step / stage.steps)
            optimizer.step()
            optimizer.zero_grad()
            progress.step += 1
            _average(progress, stage.average_decay)
            now, before = time.monotonic(), now
            progress.seconds += now - before
            if now - saved > CHECKPOINT_EVERY_S:
                progress.save(path)
                saved = now
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def _optimizer(model: nn.Module, stage: Stage) -> torch.optim.AdamW:
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        # Decay would pull rare words to zero between their few updates.
        matrix = parameter.ndim > 1 and "embeddings" not in name
        (decayed if matrix else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": stage.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=stage.learning_rate, betas=(0.9, 0.98), fused=True)


def _schedule(done: float) -> float:
    if done < WARMUP_SHARE:
        return done / WARMUP_SHARE
    return (1 - done) / (1 - WARMUP_SHARE)


@torch.no_grad()
def _average(progress: Progress, decay: float) -> None:
    # Early on the average would still remember the random start.
    decay = min(decay, (progress.step + 1) / (progress.step + 10))
    averaged, current = progress.average.parameters(), progress.model.parameters()
    torch._foreach_lerp_(list(averaged), list(current), 1 - decay)
