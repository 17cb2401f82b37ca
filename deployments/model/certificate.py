"""One answer to "does it give the same answers as my notebook?": what was loaded, and proven.

A replica logs it at start, `/info?certificate` serves it, `rayclassify check --prove` prints it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Any

from deployments import __version__
from deployments.pipeline.parts import ModelParts
from deployments.pipeline.types import Calibration, EngineInfo


@dataclass(frozen=True, slots=True)
class Certificate:
    """model to calibration: as /info. tokenizer_texts_equal: on how many texts and pairs our
    tokenizing equals AutoTokenizer's. drift: largest difference of a probe's logits from
    transformers' own in float32, per unit of the largest logit (1 at least); None where it was not
    measured. remarks: what was left aside and why that is harmless, or why a plainer way is taken.
    """

    model: str
    revision: str | None
    fingerprint: str
    version: str
    labels: tuple[str, ...]
    problem_type: str
    max_length: int
    temperature: float
    calibration: Calibration
    tokenizer_texts_equal: int
    token_types: str
    engine: str
    device: str
    dtype: str
    batching: str
    batching_reason: str | None
    selected_by: str
    drift: float | None
    remarks: tuple[str, ...]
    versions: dict[str, str]

    def with_drift(self, drift: float) -> Certificate:
        """The same with a drift that was measured elsewhere."""
        return replace(self, drift=drift)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """As people read it."""
        drift = "not measured" if self.drift is None else f"{self.drift:.2g}"
        labels = ", ".join(self.labels[:12]) + (" …" if len(self.labels) > 12 else "")
        batching = f"{self.batching} batches"
        if self.batching_reason:
            batching += f" ({self.batching_reason})"
        rows = (
            ("model", self.model if self.revision is None else f"{self.model} @ {self.revision}"),
            ("fingerprint", self.fingerprint),
            ("labels", f"{len(self.labels)}: {labels}"),
            ("problem type", self.problem_type),
            ("reads", f"{self.max_length} tokens"),
            ("temperature", f"{self.temperature:g}{_beside(self.calibration)}"),
            ("tokenizer", f"{self.tokenizer_texts_equal} texts and pairs equal AutoTokenizer's"),
            ("engine", f"{self.engine} {self.dtype} on {self.device}, {batching}"),
            ("drift", f"{drift} from transformers in float32, per unit of the largest logit"),
            ("versions", ", ".join(f"{k} {v}" for k, v in self.versions.items())),
            *(("remark", remark) for remark in self.remarks),
        )
        return [f"{name:<13} {value}" for name, value in rows]


def certificate(parts: ModelParts, engine: EngineInfo) -> Certificate:
    """What is known of a model that is loaded."""
    info = parts.info
    return Certificate(
        model=info.model,
        revision=info.revision,
        fingerprint=parts.fingerprint,
        version=parts.version,
        labels=info.labels,
        problem_type=info.problem_type,
        max_length=info.max_length,
        temperature=info.temperature,
        calibration=info.calibration,
        tokenizer_texts_equal=parts.texts_proven,
        token_types=parts.type_ids,
        engine=engine.engine,
        device=engine.device,
        dtype=engine.dtype,
        batching=engine.batching,
        batching_reason=engine.batching_reason,
        selected_by=engine.selected_by,
        drift=engine.drift,
        remarks=(*parts.remarks, *engine.remarks),
        versions={
            "rayclassify": __version__,
            # They made the reference that all is held to.
            **{name: metadata.version(name) for name in ("transformers", "tokenizers")},
            **engine.versions,
        },
    )


def _beside(calibration: Calibration) -> str:
    said = [
        f"{name} {value:g}"
        for name in ("abstain_below", "label_set_from")
        if (value := getattr(calibration, name)) is not None
    ]
    if calibration.platt is not None:
        said.append("a line for each label")
    return "".join(f", {one}" for one in said)
