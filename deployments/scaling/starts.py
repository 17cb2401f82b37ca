"""How long new replicas took to serve, step by step: each writes it down, for `status --starts`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

START_FILE = "start_{app}_{deployment}_{replica}.json"
"""In Serve's log directory on the replica's node."""

# In the order in which they come.
STEPS = {
    "replica": "Ray finds a place and a process, which imports the package",
    "files": "tokenizer and config are read and checked, the files' fingerprint taken",
    "imports": "torch and transformers",
    "choice": "engines are measured; never twice on one kind of machine",
    "weights": "read from disk",
    "proof": "the way of running it is chosen, and held against transformers' own",
    "warm_up": "first passes",
}


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a Classifier. began: its constructor, ended: it can answer, since 1970.

    seconds: step → how long it took.
    """

    began: float
    ended: float
    seconds: dict[str, float]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def steps(self, asked_for: float) -> dict[str, float]:
        """Step → its seconds, in order; `other` is what no step has counted."""
        seconds = {"replica": max(self.began - asked_for, 0.0)}
        seconds |= {name: self.seconds[name] for name in STEPS if name in self.seconds}
        seconds["other"] = self.ended - self.began - sum(self.seconds.values())
        return seconds

    def to_dict(self, asked_for: float) -> dict[str, Any]:
        """For `status --json`."""
        steps = {name: round(took_s, 3) for name, took_s in self.steps(asked_for).items()}
        return {"at_s": self.ended, "took_s": round(self.ended - asked_for, 3), "steps_s": steps}

    def lines(self, asked_for: float) -> Iterator[str]:
        """asked_for: when Serve asked Ray for the replica, since 1970."""
        yield f"{self.ended - asked_for:.1f} s from Serve's decision until it could answer"
        for name, took_s in self.steps(asked_for).items():
            if took_s >= 0.05:
                about = f"{name.replace('_', '-'):<8} {STEPS.get(name, '')}"
                yield f"  {took_s:6.1f} s  {about.rstrip()}"


def read_start(text: str) -> Start | None:
    """What a replica wrote, or None where it is nothing of the kind."""
    try:
        return Start(**json.loads(text))
    except (ValueError, TypeError):
        return None
