"""ModelInferRequest → InferRequest, and the tensors of an answer → ModelInferResponse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from starlette.types import Scope

from deployments.grpc.generated import open_inference_pb2 as oip
from deployments.http.dialects.base import Question
from deployments.http.dialects.oip_inference import (
    VERSION,
    Asked,
    Inference,
    InferRequest,
    OutputParameters,
    Parameters,
    RequestedOutput,
    check_tensors,
)
from deployments.http.dialects.oip_tensors import BinaryData, InputParameters, InputTensor
from deployments.http.json_body import converted
from deployments.http.responses import encode_json, request_id_of
from deployments.pipeline.errors import InvalidInput, ServiceError
from deployments.pipeline.types import Answer

T = TypeVar("T")

_EXAMPLE = (
    'Send inputs: [{name: "text", datatype: "BYTES", shape: [1], '
    'contents: {bytes_contents: ["..."]}}].'
)


def question_of(message: oip.ModelInferRequest, inference: Inference, scope: Scope) -> Question:
    """What a message asks; answers are raw where its texts are.

    Raises:
        ServiceError: another model, or what `Inference.question` raises.
    """
    if error := inference.stranger(message.model_name, message.model_version or None):
        raise error
    check_tensors(len(message.inputs))  # a message has room for many, and each would be read
    raws = message.raw_input_contents
    if raws and len(raws) != len(message.inputs):
        raise InvalidInput(
            f"`raw_input_contents` has {len(raws)} elements and `inputs` {len(message.inputs)} "
            "tensors. Give each tensor one."
        )
    raw = bool(raws)
    inputs = [
        _tensor(tensor, f"inputs[{i}]", raws[i] if raw else None)
        for i, tensor in enumerate(message.inputs)
    ]
    outputs = [
        RequestedOutput(output.name, _read(output.parameters, OutputParameters))
        for output in message.outputs
    ]
    for output in outputs:
        if output.parameters is not None:
            output.parameters.binary_data = raw
    said = _read(message.parameters, Parameters)
    said.binary_data_output = raw
    request = InferRequest(inputs, message.id or None, outputs, said)
    return inference.question(request, BinaryData(b"".join(raws), 0), scope)


def _tensor(
    tensor: oip.ModelInferRequest.InferInputTensor, place: str, raw: bytes | None
) -> InputTensor:
    said = _read(tensor.parameters, InputParameters)
    said.binary_data_size = None if raw is None else len(raw)
    typed = list(tensor.contents.bytes_contents)
    if raw is None and not tensor.HasField("contents"):
        raise InvalidInput(f"{place} has no contents. {_EXAMPLE}")
    if raw is not None and typed:
        raise InvalidInput(f"{place} has contents, and there are raw ones. Send one of them.")
    data = typed if raw is None else None
    return InputTensor(tensor.name, list(tensor.shape), tensor.datatype, data, said)


def _read(parameters: Mapping[str, oip.InferParameter], to: type[T]) -> T:
    values = {
        name: getattr(one, choice) if (choice := one.WhichOneof("parameter_choice")) else None
        for name, one in parameters.items()
    }
    return converted({k: v for k, v in values.items() if v is not None}, to, _EXAMPLE)


def response_of(
    question: Question,
    answers: Sequence[Answer | ServiceError],
    inference: Inference,
    scope: Scope,
) -> oip.ModelInferResponse:
    """The message that answers. A list among parameters is JSON, as the protocol has none.

    Raises:
        ServiceError: as `Inference.told`.
    """
    asked: Asked = question.memo
    told = inference.told(question, answers)
    response = oip.ModelInferResponse(
        model_name=inference.model,
        model_version=VERSION,
        id=asked.id or request_id_of(scope),
    )
    for output in told.outputs:
        tensor = response.outputs.add(
            name=output.name, datatype=output.datatype, shape=output.shape
        )
        for name, value in output.parameters.items():
            tensor.parameters[name].string_param = encode_json(value).decode()
        if output.binary:
            response.raw_output_contents.append(output.packed())
        elif output.datatype == "BYTES":
            tensor.contents.bytes_contents.extend(value.encode() for value in output.values)
        else:
            tensor.contents.fp32_contents.extend(output.values)
    for name, number in told.parameters.items():
        response.parameters[name].int64_param = number
    return response
