"""What the Open Inference Protocol asks and answers, whether over HTTP or over gRPC.

Its requests say little of texts: how ours are read is said here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta
from starlette.types import Scope

from deployments import __version__
from deployments.http.dialects.base import ALL_LABELS, Json, Question, answered
from deployments.http.dialects.kserve_words import no_model, quotable
from deployments.http.dialects.oip_tensors import BinaryData, InputTensor, OutputTensor, texts_of
from deployments.http.inputs import caller_of, sequences_of
from deployments.http.schemas import MAX_TIMEOUT_MS
from deployments.pipeline.errors import InvalidInput, NotFound, ServiceError
from deployments.pipeline.types import Answer, Options
from deployments.settings import LimitSettings

VERSION = "1"
"""Of the model, as it has one at a time."""
OUTPUTS = ("label", "score", "scores")
SERVER: Json = {
    "name": "rayclassify",
    "version": __version__,
    "extensions": ["binary_tensor_data"],
}


class Parameters(msgspec.Struct):
    """Of a request. timeout: Triton's, in microseconds; 0 is none.

    Others, as Triton's `priority` or MLServer's `headers`, mean nothing here.
    """

    binary_data_output: bool = False
    timeout: Annotated[int, Meta(ge=0, le=MAX_TIMEOUT_MS * 1_000)] = 0
    raw_scores: bool = False
    truncation: bool = True
    top_k: Any = None
    threshold: Any = None


class OutputParameters(msgspec.Struct):
    """Of one tensor out. classification: Triton's, which we refuse."""

    binary_data: bool | None = None
    classification: Any = None


class RequestedOutput(msgspec.Struct):
    name: str
    parameters: OutputParameters | None = None


class InferRequest(msgspec.Struct):
    """id, outputs: None where the request leaves them to us."""

    inputs: list[InputTensor]
    id: str | None = None
    outputs: list[RequestedOutput] | None = None
    parameters: Parameters | None = None


class Asked(NamedTuple):
    """What an answer needs to know of its request: the memo of the question.

    outputs: name → whether it is binary.
    """

    id: str | None
    outputs: dict[str, bool]


class Told(NamedTuple):
    """What is answered. parameters: of the answer as a whole."""

    outputs: list[OutputTensor]
    parameters: Mapping[str, int]


class Inference:
    """Tensors → a question, and its answers → tensors. model: its name, which callers must say."""

    def __init__(self, limits: LimitSettings, model: str) -> None:
        self._limits = limits
        self.model = model

    def question(self, request: InferRequest, binary: BinaryData, scope: Scope) -> Question:
        """What a request asks. binary: the data of its binary tensors.

        Raises:
            ServiceError: it can't be understood, or breaks a limit.
        """
        said = request.parameters or Parameters()
        if said.top_k is not None or said.threshold is not None:
            raise InvalidInput("`scores` holds all labels; leave `top_k` and `threshold` out.")
        items = self._items(request.inputs, binary)
        asked = Asked(_id_of(request), _outputs_of(request, said.binary_data_output))
        options = Options(ALL_LABELS, said.raw_scores, None, said.truncation, label_ids=True)
        caller = caller_of(scope, self._limits)
        inputs = sequences_of(items, options, self._limits, caller, "data")
        timeout_s = said.timeout / 1e6 or caller.timeout_s
        return Question(inputs, timeout_s, single=False, memo=asked)

    def told(self, question: Question, answers: Sequence[Answer | ServiceError]) -> Told:
        """The tensors that were asked for.

        Raises:
            ServiceError: of the first text that has no answer, as a tensor has no place for it.
        """
        asked: Asked = question.memo
        good = answered(answers, "data")
        n = len(good)
        by_number = [
            sorted(zip(one["label_ids"], one["scores"].items(), strict=True)) for one in good
        ]
        labels = [label for _, (label, _) in by_number[0]]
        scores = [score for row in by_number for _, (_, score) in row]
        made: dict[str, tuple[list[int], list[Any], Json]] = {
            "label": ([n], [one["label"] for one in good], {}),
            "score": ([n], [one["score"] for one in good], {}),
            "scores": ([n, len(labels)], scores, {"labels": labels}),
        }
        # The protocol's answers have no place for it, and nobody should be cut in silence.
        n_truncated = sum(one["truncated"] for one in good)
        return Told(
            [OutputTensor(name, *made[name], binary) for name, binary in asked.outputs.items()],
            {"truncated": n_truncated} if n_truncated else {},
        )

    def about(self, info: Mapping[str, Any]) -> Json:
        """The model's tensors. info: what `ClassifyService.info` answers."""
        return {
            "name": self.model,
            "versions": [VERSION],
            "platform": "rayclassify",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "score", "datatype": "FP32", "shape": [-1]},
                {"name": "scores", "datatype": "FP32", "shape": [-1, len(info["labels"])]},
            ],
        }

    def stranger(self, name: str, version: str | None) -> NotFound | None:
        """What is wrong with a model's name and version. version: None where none is said."""
        if name != self.model:
            return no_model(name)
        if version not in (None, VERSION):
            return NotFound(f"Model with name {name} has no such version. It has {VERSION}.")
        return None

    def _items(self, tensors: list[InputTensor], binary: BinaryData) -> list[list[str]]:
        """Texts and pairs. One tensor has any name: Triton checks it, MLServer takes the first."""
        check_tensors(len(tensors))
        limit = self._limits.max_batch_texts
        rows = {
            tensor.name: texts_of(tensor, f"inputs[{i}]", binary, limit)
            for i, tensor in enumerate(tensors)
        }
        if left := binary.left():
            raise InvalidInput(f"{left} bytes behind the JSON belong to no tensor.")
        if len(tensors) == 1:
            return rows[tensors[0].name]
        if rows.keys() != {"text", "text_pair"}:
            raise InvalidInput("Two tensors in `inputs` are a pair: call them text and text_pair.")
        texts, pairs = rows["text"], rows["text_pair"]
        if len(texts) != len(pairs) or any(len(row) != 1 for row in (*texts, *pairs)):
            raise InvalidInput("`text` and `text_pair` must have the same shape, [n] or [n, 1].")
        return [[*text, *pair] for text, pair in zip(texts, pairs, strict=True)]


def check_tensors(n: int) -> None:
    """Raises InvalidInput where a request has so many tensors as none may have."""
    if not 1 <= n <= 2:
        raise InvalidInput(f"`inputs` has {n} tensors. Send 1, or 2 for pairs.")


def _outputs_of(request: InferRequest, binary: bool) -> dict[str, bool]:
    """Name → whether it is binary. binary: where an output says nothing itself."""
    if not request.outputs:
        return dict.fromkeys(OUTPUTS, binary)
    asked: dict[str, bool] = {}
    for i, output in enumerate(request.outputs):
        if output.name not in OUTPUTS:
            told = f"is {output.name}" if quotable(output.name) else "is not known"
            raise InvalidInput(f"outputs[{i}] {told}; there are {', '.join(OUTPUTS)}.")
        said = output.parameters or OutputParameters()
        if said.classification is not None:
            raise InvalidInput(
                f"outputs[{i}]: `classification` is not supported. Ask for `label` and `scores`."
            )
        asked[output.name] = binary if said.binary_data is None else said.binary_data
    return asked


def _id_of(request: InferRequest) -> str | None:
    try:
        (request.id or "").encode()
    except UnicodeEncodeError:
        raise InvalidInput("`id` is not valid Unicode: half a surrogate pair.") from None
    return request.id
