"""A second dialect beside ours: what one has to say, and what it gets for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from stand_in import LIMITS, Client, LengthClassifier

from deployments.http.app import create_app
from deployments.http.dialects import dialects
from deployments.http.dialects.base import Body, Question
from deployments.http.dialects.classify import ClassifyDialect
from deployments.pipeline.errors import EmptyText, ServiceError
from deployments.pipeline.types import Answer, TextInput
from deployments.settings import AccessSettings


class Lines:
    """A text a line in, a label a line out. Shared by all requests, so it holds no state."""

    name = "lines"
    paths: tuple[str, ...] = ("/lines", "/v1/lines")
    access_scope: Any = "explain"
    pages: Mapping[str, Any] = {}

    def parse(self, body: Body, scope: Any) -> Question:
        lines = body.content.decode().splitlines()
        inputs: list[TextInput | ServiceError] = [
            TextInput(line) if line else EmptyText("This line is empty.") for line in lines
        ]
        return Question(inputs, None, single=len(lines) == 1, memo=len(lines))

    def render(self, question: Question, answers: list[Answer | ServiceError], scope: Any) -> bytes:
        told = [one.code if isinstance(one, ServiceError) else one["label"] for one in answers]
        return "\n".join([f"{question.memo} lines", *told]).encode()

    def render_error(self, error: ServiceError, request_id: str) -> tuple[int, bytes]:
        return 424, f"{error.code} {request_id}".encode()

    def operation(self, with_keys: bool) -> dict[str, Any]:
        return {"operationId": "lines", "responses": {"200": {"description": "Labels"}}}


@pytest.fixture
def both(service: LengthClassifier) -> Client:
    spoken = [*dialects(LIMITS), Lines()]
    return Client(create_app(service, LIMITS, spoken=spoken))


@pytest.mark.parametrize("path", Lines.paths)
def test_a_dialect_answers_at_its_paths_in_its_own_words(both: Client, path: str) -> None:
    answer = both.request("POST", path, content=b"good\n\nlonger text")
    assert answer.status_code == 200
    assert answer.text.splitlines() == ["3 lines", "short", "empty_text", "long"]
    assert both.request("GET", path).status_code == 405


def test_a_dialect_says_errors_in_its_own_words_with_its_own_status(
    both: Client, service: LengthClassifier
) -> None:
    answer = both.request("POST", "/lines", content=b"\n", headers={"x-request-id": "r1"})
    assert (answer.status_code, answer.text) == (424, "empty_text r1")
    service.failure = RuntimeError("what it says is nobody's business")
    answer = both.request("POST", "/lines", content=b"a", headers={"x-request-id": "r2"})
    assert (answer.status_code, answer.text) == (424, "internal_error r2")


def test_ours_answers_beside_it(both: Client) -> None:
    assert both.classify({"text": "good"}).json()["label"] == "short"


def test_a_dialects_paths_are_in_the_document_and_ask_for_its_scope(
    service: LengthClassifier, tmp_path: Any
) -> None:
    (tmp_path / "keys.json").write_text('{"keys": []}')
    access = AccessSettings(keys_file=str(tmp_path / "keys.json"), docs_public=True)
    client = Client(create_app(service, LIMITS, access, spoken=[Lines()]))
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/health",
        "/ready",
        "/info",
        "/state",
        "/classify/stream",
        *Lines.paths,
    }
    assert document["paths"]["/lines"]["post"]["security"]
    refused = client.request("POST", "/lines", content=b"a", headers={"x-request-id": "r3"})
    assert (refused.status_code, refused.text) == (424, "unauthorized r3")
    assert refused.headers["www-authenticate"] == "Bearer"


def test_two_dialects_at_one_path_are_a_mistake_of_ours(service: LengthClassifier) -> None:
    with pytest.raises(ValueError, match="two answer at /classify"):
        create_app(service, LIMITS, spoken=[ClassifyDialect(LIMITS), ClassifyDialect(LIMITS)])
