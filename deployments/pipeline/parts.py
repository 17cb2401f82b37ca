"""All that texts and logits need of a model beside its weights, under one name on the wire.

Whoever makes token ids, runs them or names labels does so for one model's parts. While an update
runs two models live; ids and logits carry the `version` of the parts they belong to, and nothing
is ever decoded by another's.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from deployments.pipeline.tasks import Decoder, Encoder, task_of
from deployments.pipeline.tokenize import TypeIds
from deployments.pipeline.types import Calibration, ModelInfo


@dataclass(frozen=True, slots=True)
class ModelParts:
    """One model as Tokenizer and Postprocessor see it.

    fingerprint: of weights, config and tokenizer. tokenizer: the Rust tokenizer, as JSON.
    type_ids: what of token types the model is given. split_special_tokens: whether a mark that
    stands in a text is read as text. texts_proven: on how many texts and pairs this tokenizing
    equals transformers' own. remarks: what of the directory was left aside, and why that is
    harmless.
    """

    fingerprint: str
    info: ModelInfo
    tokenizer: str
    type_ids: TypeIds = "where_not_zero"
    split_special_tokens: bool = False
    texts_proven: int = 0
    remarks: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The name on the wire: another limit or calibration of one model is another version.

        It begins with 12 digits of the fingerprint.
        """
        encoding = [self.tokenizer, self.type_ids, self.split_special_tokens]
        rest = json.dumps([asdict(self.info), *encoding]).encode()
        return f"{self.fingerprint[:12]}-{hashlib.sha256(rest).hexdigest()[:12]}"

    def encoder(self) -> Encoder:
        """A new encoder: text → this model's token ids."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.tokenizer)
        tokenizer.encode_special_tokens = self.split_special_tokens
        return task_of(self.info).encoder(tokenizer, self.info, self.type_ids)

    def decoder(self) -> Decoder:
        """A new decoder: this model's logits → answers."""
        return task_of(self.info).decoder(self.info)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(kept: dict[str, Any]) -> ModelParts:
        """Raises TypeError or KeyError where `kept` is something else."""
        said = kept["info"]
        info = ModelInfo(
            **{
                **said,
                "labels": tuple(said["labels"]),
                "calibration": Calibration.from_json(said["calibration"]),
            }
        )
        return ModelParts(**{**kept, "info": info, "remarks": tuple(kept["remarks"])})
