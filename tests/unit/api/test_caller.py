"""Who asks and how urgently: fields of the body, else headers."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.http.inputs import CLIENT, Caller, caller_of, inputs_of
from deployments.http.json_body import parse_json
from deployments.http.schemas import ClassifyRequest
from deployments.pipeline.errors import InvalidInput
from deployments.pipeline.types import BULK_FROM_TEXTS, DEFAULT_FLOW, TextInput
from deployments.settings import LimitSettings

LIMITS = LimitSettings()


def scope(*headers: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        **more,
    }


def asked(**fields: Any) -> ClassifyRequest:
    return ClassifyRequest(text="好", **fields)


def test_nothing_said_is_nobody() -> None:
    assert caller_of(scope(("host", "x")), LIMITS) == Caller("", None, None)


def test_headers_say_what_fields_say() -> None:
    headers = scope(("x-timeout-ms", "1500"), ("x-priority", "Bulk"))
    assert caller_of(headers, LIMITS) == Caller("", 1.5, "bulk")
    fields = asked(timeout_ms=200, priority="interactive")
    assert caller_of(headers, LIMITS, fields.timeout_ms, fields.priority) == Caller(
        "", 0.2, "interactive"
    )


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "", "soon", "9" * 40, "²", "86400001"])
def test_a_senseless_timeout_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match="from 1 to 86400000"):
        caller_of(scope(("x-timeout-ms", value)), LIMITS)


def test_a_senseless_priority_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidInput, match="interactive or bulk") as caught:
        caller_of(scope(("x-priority", "geheim")), LIMITS)
    assert "geheim" not in caught.value.message
    with pytest.raises(InvalidInput, match="expected interactive or bulk") as caught:
        parse_json(b'{"text": "a", "priority": "geheim"}')
    assert "geheim" not in caught.value.message
    with pytest.raises(InvalidInput, match="`timeout_ms`"):
        parse_json(b'{"text": "a", "timeout_ms": 0}')


def test_the_client_is_whom_the_nearest_proxy_saw() -> None:
    limits = LimitSettings(client_header="X-Forwarded-For")
    headers = scope(("x-forwarded-for", "6.6.6.6, 10.0.0.7"))
    assert caller_of(headers, limits).client == "10.0.0.7"
    assert caller_of(headers, LIMITS).client == ""
    known = scope(("x-forwarded-for", "10.0.0.7"), **{CLIENT: "key-1"})
    assert caller_of(known, limits).client == "key-1"
    long = scope(("x-forwarded-for", "a" * 4_000))
    assert len(caller_of(long, limits).client) == 128


def flows(request: ClassifyRequest, caller: Caller = Caller()) -> set[Any]:  # noqa: B008
    return {item.flow for item in inputs_of(request, LIMITS, caller) if isinstance(item, TextInput)}


def test_long_lists_are_bulk_unless_they_say_otherwise() -> None:
    long = ["x"] * BULK_FROM_TEXTS
    assert flows(ClassifyRequest(text="x")) == {DEFAULT_FLOW}
    assert flows(ClassifyRequest(text=long[1:])) == {DEFAULT_FLOW}
    assert flows(ClassifyRequest(text=long), Caller(priority="interactive")) == {DEFAULT_FLOW}
    (first,), (second,) = flows(ClassifyRequest(text=long)), flows(ClassifyRequest(text=long))
    assert first.priority == second.priority == "bulk"
    assert first.request != second.request
    (own,) = flows(ClassifyRequest(text="x"), Caller(client="key-1"))
    assert (own.priority, own.client, own.request) == ("interactive", "key-1", 0)
