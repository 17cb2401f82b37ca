"""The OpenAPI document is valid, complete and true."""

from __future__ import annotations

import jsonschema
import pytest
from openapi_spec_validator import validate
from starlette.routing import Route

from deployments.http.examples import REQUESTS
from deployments.http.openapi import openapi_document
from deployments.pipeline import errors
from deployments.settings import AccessSettings

UNDOCUMENTED = {"/", "/docs", "/openapi.json"}


@pytest.fixture
def document(limits):
    return openapi_document(limits)


def test_it_is_valid_openapi_3_1(client):
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_it_documents_the_routes_there_are(client, document):
    routes = {
        (route.path, method.lower())
        for route in client.app._rest.routes
        if isinstance(route, Route)
        for method in route.methods - {"HEAD"}
        if method == "POST" or route.path not in UNDOCUMENTED
    }
    documented = {
        (path, method) for path, methods in document["paths"].items() for method in methods
    }
    assert documented == routes


def test_a_generator_learns_that_texts_are_strings(document):
    fields = document["components"]["schemas"]["ClassifyRequest"]["properties"]
    items = [
        one["items"]["type"]
        for field in ("text", "text_pair")
        for one in fields[field]["anyOf"]
        if one["type"] == "array"
    ]
    assert items == ["string", ["string", "null"]]


def test_a_prefix_becomes_the_server(client, prefixed):
    assert "servers" not in client.get("/openapi.json").json()
    assert prefixed.get("/openapi.json").json()["servers"] == [{"url": "/nlp"}]


def test_every_error_a_classify_call_can_meet_is_documented(limits):
    document = openapi_document(limits, AccessSettings(keys_file="keys.yaml"))
    elsewhere = {errors.NotFound, errors.MethodNotAllowed, errors.NotImplementedHere}
    pending = [errors.ServiceError]
    for cls in pending:
        pending.extend(cls.__subclasses__())
    expected = {
        (str(cls.status), cls.code)
        for cls in pending
        if cls.__module__ == errors.__name__ and cls not in elsewhere
    }
    responses = document["paths"]["/classify"]["post"]["responses"]
    documented = {
        (status, code)
        for status, response in responses.items()
        if status != "200"
        for code in response["content"]["application/json"]["examples"]
    }
    assert documented == expected


def test_limits_are_those_of_the_service(document):
    description = document["paths"]["/classify"]["post"]["description"]
    assert "4 texts, 100 characters each, 2000 bytes" in description


@pytest.mark.parametrize("name", REQUESTS)
def test_examples_are_accepted_and_answers_fit_the_schema(client, document, name):
    request = REQUESTS[name]["value"]

    def schema(name: str) -> dict:
        return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}

    jsonschema.validate(request, schema("ClassifyRequest"))
    response = client.classify(request)
    assert response.status_code == 200
    answers = response.json() if isinstance(response.json(), list) else [response.json()]
    for answer in answers:
        jsonschema.validate(answer, schema("Prediction"))
