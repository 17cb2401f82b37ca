"""The recipe of the demo model, free of torch so that `--help` is quick."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass

# What shapes the second stage only: changing it keeps the checkpoint of the first.
FINETUNE_FIELDS = ("finetune", "teacher_weight", "dropout")
# Read at run time: changes the speed of a run, not its course.
NEUTRAL_FIELDS = ("threads",)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how hard a stage trains."""

    epochs: int
    learning_rate: float
    token_budget: int  # tokens in a batch, padding included
    crop_length: int  # tokens kept of a longer text
    noise: float  # share of tokens masked
    shifted_share: float  # share of batches that start at a random position


PRETRAIN = Recipe(
    epochs=8, learning_rate=1e-3, token_budget=2048, crop_length=128, noise=0.2, shifted_share=0.5
)
FINETUNE = Recipe(
    epochs=5, learning_rate=3e-4, token_budget=2048, crop_length=192, noise=0.1, shifted_share=0.3
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The recipe. Its defaults made the committed model."""

    seed: int = 0
    threads: int = 2
    layers: int = 3
    width: int = 256
    feed_forward: int = 512
    heads: int = 4
    teacher_weight: float = 0.5
    dropout: float = 0.1
    pretrain: Recipe = PRETRAIN
    finetune: Recipe = FINETUNE

    def fingerprint(self, *later: str) -> str:
        """Name a checkpoint by its plan, so that no run goes on from another recipe's.

        Fields in `later` don't count: they shape what comes after this checkpoint.
        """
        shaped_by = {
            k: v for k, v in dataclasses.asdict(self).items() if k not in (*later, *NEUTRAL_FIELDS)
        }
        return hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode()).hexdigest()[:12]
