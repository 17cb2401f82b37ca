"""Whatever is sent, the answer is a result or an error of the caller's, never one of ours."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in import LIMITS, Client, LengthClassifier

from deployments.http.app import create_app

client = Client(create_app(LengthClassifier(), LIMITS))

numbers = st.integers() | st.floats()
texts = st.text() | st.text(st.characters(categories=["Cs", "Ll", "Lo"]))
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=8
)
requests = st.fixed_dictionaries(
    {"text": texts | st.lists(values, max_size=6)},
    optional={
        "text_pair": values,
        "top_k": values,
        "truncation": values,
        "raw_scores": values,
        "threshold": values,
    },
)
TYPES = ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]


def check(body: bytes, content_type: str) -> None:
    response = client.send(body, content_type)
    assert response.status_code in (200, 400, 413, 415, 422)
    json.loads(response.content.decode())


@given(values | requests)
@settings(deadline=None)
def test_any_json(value):
    check(json.dumps(value).encode(), "application/json")


@pytest.mark.parametrize("content_type", [*TYPES, "text/plain"])
@given(body=st.binary() | st.binary().map(lambda data: b'{"text": "' + data + b'"}'))
@settings(deadline=None, max_examples=60)
def test_any_bytes(content_type, body):
    check(body, content_type)


@given(
    st.lists(st.sampled_from(["text", "text_pair", "top_k", "truncation", "other"]), max_size=14),
    st.binary(),
)
@settings(deadline=None)
def test_any_form(names, value):
    escaped = "".join(f"%{byte:02x}" for byte in value)
    check("&".join(f"{name}={escaped}" for name in names).encode(), TYPES[1])
    parts = (
        b'--x\r\ncontent-disposition: form-data; name="%s"\r\n\r\n' % n.encode() for n in names
    )
    check(b"".join(part + value + b"\r\n" for part in parts) + b"--x--", TYPES[2])


@given(st.text())
@settings(deadline=None, max_examples=60)
def test_any_content_type(content_type):
    check(b'{"text": "a"}', content_type.encode().decode("latin-1").encode("latin-1"))
