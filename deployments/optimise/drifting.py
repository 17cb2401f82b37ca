"""A baseline of drift: how a model's answers and lengths are distributed over reference texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deployments.optimise.labelled import BadData
from deployments.optimise.running import apart, loaded, parts_of
from deployments.pipeline.drift import MIN_SHARE, MIN_TEXTS, OTHER, unknown_shares
from deployments.pipeline.tasks.text_classification import MULTI_LABEL, REGRESSION, SINGLE_LABEL

MAX_LABELS = 20
_N_BINS = 10


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model made of texts. values: by feature, a number for each text; of `labels` their
    places in `names`. unknown_id: None where the vocabulary has no token for what it lacks."""

    values: dict[str, npt.NDArray[Any]]
    names: tuple[str, ...]
    unknown_id: int | None
    n_failed: int = 0


def see(model: str, engine: dict[str, Any], texts: Sequence[str]) -> Seen:
    """In a process of its own. Raises CandidateFailed."""
    seen: Seen = apart(_see, model, engine, list(texts))
    return seen


def _see(model: str, engine: dict[str, Any], texts: list[str]) -> Seen:
    from deployments.pipeline.types import TextInput

    with loaded(model, engine, (SINGLE_LABEL, MULTI_LABEL, REGRESSION)) as classifier:
        parts = classifier.loaded.parts
        encoder, names = parts.encoder(), parts.info.labels
        unknown_id = unknown_id_of(encoder.untruncated)
        found: dict[str, list[Any]] = {"labels": [], "scores": [], "tokens": [], "rest": []}
        n_failed = 0
        for part in parts_of(texts):
            read = encoder.encode([TextInput(text) for text in part])
            place = {i: k for k, i in enumerate(read.index)}
            batch = read.batch
            unknown = (
                None
                if unknown_id is None
                else unknown_shares(batch.input_ids, batch.lengths, unknown_id)
            )
            answers: Any = classifier.classify(part)
            for i, answer in enumerate(answers):
                if "error" in answer or i not in place:
                    n_failed += 1
                    continue
                found["labels"].append(names.index(answer["label"]))
                found["scores"].append(answer["score"])
                found["tokens"].append(answer["tokens"])
                found["rest"].append(
                    answer["tokens"] / len(part[i]) if unknown is None else unknown[place[i]]
                )
    rest = found.pop("rest")
    found["tokens_per_character" if unknown_id is None else "unknown_tokens"] = rest
    return Seen({k: np.asarray(v) for k, v in found.items()}, names, unknown_id, n_failed)


def unknown_id_of(tokenizer: Any) -> int | None:
    """The id that stands for what the vocabulary lacks, if it has one and needs one."""
    import json

    model = json.loads(tokenizer.to_str())["model"]
    if model.get("byte_fallback"):
        return None
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    token = model.get("unk_token")
    found: int | None = None if token is None else tokenizer.token_to_id(token)
    return found


def baseline(seen: Seen, false_alarm_rate: float) -> tuple[dict[str, Any], list[str]]:
    """What drift.json holds, and what is not watched and why.

    false_alarm_rate: of a window of texts like these, over all features together.

    Raises:
        BadData: there are too few texts.
    """
    from scipy.stats import chi2

    n = len(seen.values["labels"])
    check_enough(n, f" {seen.n_failed:,} have no answer." if seen.n_failed else "")
    features: dict[str, dict[str, Any]] = {}
    notes = [f"{seen.n_failed:,} texts have no answer: left out."] if seen.n_failed else []
    for name, values in seen.values.items():
        one = _of_labels(values, seen.names) if name == "labels" else _of_numbers(name, values)
        if len(one["counts"]) < 2:
            notes.append(f"{name}: the same of nearly all texts; it is not watched.")
        else:
            features[name] = one
    if not features:
        raise BadData(f"all {n:,} texts are alike: there is nothing to watch. Give others.")
    for one in features.values():
        degrees = len(one["counts"]) - 1
        # Bonferroni: the rate is of all features together.
        one["critical"] = round(float(chi2.isf(false_alarm_rate / len(features), degrees)), 4)
    return {
        "n_texts": n,
        "false_alarm_rate": false_alarm_rate,
        "unknown_id": seen.unknown_id,
        "features": features,
    }, notes


def check_enough(n_texts: int, about: str = "") -> None:
    """Raises BadData."""
    if n_texts < MIN_TEXTS:
        raise BadData(
            f"{n_texts:,} texts are too few; {MIN_TEXTS} are the least.{about} Give more."
        )


def _of_labels(values: npt.NDArray[Any], names: Sequence[str]) -> dict[str, Any]:
    counts = Counter(values.tolist())
    kept = [i for i, n in counts.most_common(MAX_LABELS) if n >= MIN_SHARE * len(values)]
    bins = {names[i]: counts[i] for i in sorted(kept)}
    if len(kept) < len(names):
        bins[OTHER] = len(values) - sum(bins.values())
    return {"bins": list(bins), "counts": list(bins.values())}


def _of_numbers(name: str, values: npt.NDArray[Any]) -> dict[str, Any]:
    """Bins of about a tenth of the texts each; equal values are never parted."""
    distinct, counts = np.unique(values.astype(np.float64), return_counts=True)
    edges: list[float] = []
    binned: list[int] = []
    n, held = len(values), 0
    for i, count in enumerate(counts[:-1]):
        held += int(count)
        if held >= n / _N_BINS and n - sum(binned) - held >= MIN_SHARE * n:
            # Half way, so that a rounded value falls where the whole one did.
            edges.append(float(distinct[i] + distinct[i + 1]) / 2)
            binned.append(held)
            held = 0
    if not edges and name == "unknown_tokens":
        # None or hardly any is the usual case, and the one that must not change unseen.
        above = int((values > 0).sum())
        edges, binned = [min(float(distinct[distinct > 0].min()) / 2 if above else 1e-6, 1e-6)], []
        binned.append(n - above)
    bins = [f"{edge:.6g}" for edge in edges] + ["+Inf"]
    return {"bins": bins, "edges": edges, "counts": [*binned, n - sum(binned)]}
