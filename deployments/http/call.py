"""`classify(text, **options)` in Python: by a handle of the service, or of a LocalClassifier."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, cast

from deployments.http.inputs import Caller, inputs_of
from deployments.http.json_body import Kind, request_from
from deployments.http.schemas import ClassifyRequest
from deployments.pipeline.errors import InvalidInput, ServiceError
from deployments.pipeline.explaining import Explain
from deployments.pipeline.types import Answer, TextInput
from deployments.settings import LimitSettings


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked. timeout_s: None where the caller named none. single: one text, no list.

    explain: how the answers are to be explained, if at all.
    """

    inputs: list[TextInput | ServiceError]
    timeout_s: float | None
    client: str
    single: bool
    explain: Explain | None = None

    def answer(self, results: list[Answer | ServiceError]) -> Answer | list[Answer]:
        """What the caller gets for `results`, one per input.

        Raises:
            ServiceError: the one text has no answer.
        """
        if not self.single:
            return [
                {"error": r.body()} if isinstance(r, ServiceError) else dict(r) for r in results
            ]
        if isinstance(results[0], ServiceError):
            # Taken out: the error's traceback holds this frame, which would hold the error.
            raise cast(ServiceError, results.pop())
        # A plain one: who asks by a handle may not have this package.
        return dict(results[0])


def read_call(
    text: Any,
    options: dict[str, Any],
    limits: LimitSettings,
    timeout_s: float | None = None,
    client: str = "",
    kind: Kind = ClassifyRequest,
) -> Call:
    """Checks a call as a request over HTTP is checked. text: a string, or a sequence of them, which
    may be a column of NumPy, pandas or Arrow. options: the other fields of the request, which are
    those of `kind`.

    Raises:
        ServiceError: as POST /classify.
    """
    if isinstance(text, set | frozenset):
        raise InvalidInput("`text` is a set, which has no order. Make it a list.")
    if "text_pair" in options:
        options = {**options, "text_pair": _plain(options["text_pair"])}
    request = request_from({"text": _plain(text), **options}, kind)
    caller = Caller(str(client), timeout_s, request.priority)
    inputs = inputs_of(request, limits, caller)
    # Not a number: it would upset the order of all timers of the event loop.
    if timeout_s is not None and not (isinstance(timeout_s, Real) and timeout_s > 0):
        raise InvalidInput("timeout_s must be a number of seconds above 0, or None.")
    if timeout_s is None and request.timeout_ms is not None:
        timeout_s = request.timeout_ms / 1e3
    return Call(inputs, timeout_s, caller.client, isinstance(request.text, str), request.how)


def _plain(texts: Any) -> Any:
    """Columns of NumPy, pandas, Polars and Arrow as the lists of Python that they stand for."""
    if isinstance(texts, str | list | tuple):
        return texts
    for name in ("to_pylist", "to_list", "tolist"):
        if callable(method := getattr(texts, name, None)):
            return method()
    return texts
