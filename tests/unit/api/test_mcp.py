"""The Model Context Protocol, asked by its own SDK's client."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from stand_in import LIMITS, Client, LengthClassifier, served

from deployments.access.keys import hash_of, new_token
from deployments.http.app import create_app
from deployments.http.dialects import dialects
from deployments.pipeline.errors import Overloaded
from deployments.settings import AccessSettings, DialectSettings

SPOKEN = dialects(LIMITS, DialectSettings(spoken=["mcp"]))


@pytest.fixture
def client(service: LengthClassifier) -> Client:
    return Client(create_app(service, LIMITS, spoken=SPOKEN))


def ask(client: Client, method: str, **params: Any) -> Any:
    sent = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return client.request("POST", "/mcp", json=sent)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_sdks_client_finds_the_tools_and_calls_them(service, mode):
    with served(create_app(service, LIMITS, spoken=SPOKEN)) as url:
        async with McpClient(f"{url}/mcp", mode=mode) as client:
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools] == ["classify", "labels"]
            one = await client.call_tool("classify", {"text": "很好"})
            assert not one.is_error
            assert [row["label"] for row in one.structured_content["results"]] == ["short"]
            assert json.loads(one.content[0].text) == one.structured_content
            texts = ["a", "", "a text that is long"]
            several = await client.call_tool("classify", {"text": texts, "top_k": 1})
            rows = several.structured_content["results"]
            assert [row.get("label") for row in rows] == ["short", None, "long"]
            assert rows[1]["error"]["code"] == "empty_text"
            labels = await client.call_tool("labels", {})
            assert labels.structured_content == {"labels": ["long", "short"], "model": "length"}
            wrong = await client.call_tool("classify", {"txt": "a"})
            assert wrong.is_error
            assert "the field is `text`" in wrong.content[0].text
            with pytest.raises(MCPError, match="there are classify and labels"):
                await client.call_tool("embed", {"text": "a"})


@pytest.mark.parametrize(
    ("offered", "taken"),
    [("2025-06-18", "2025-06-18"), ("2024-11-05", "2025-11-25"), ("2026-07-28", "2025-11-25")],
)
def test_the_version_is_one_that_is_spoken(client, offered, taken):
    result = ask(client, "initialize", protocolVersion=offered).json()["result"]
    assert result["protocolVersion"] == taken
    assert result["serverInfo"]["name"] == "rayclassify"
    assert result["capabilities"] == {"tools": {"listChanged": False}}


def test_a_notification_is_taken_and_not_answered(client):
    sent = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    answer = client.request("POST", "/mcp", json=sent)
    assert (answer.status_code, answer.content) == (202, b"")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({"jsonrpc": "2.0", "id": 1, "method": "resources/list"}, -32601),
        ({"jsonrpc": "1.0", "id": 1, "method": "ping"}, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 3}}, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call"}, -32602),
    ],
)
def test_what_is_no_call_of_a_tool_gets_json_rpcs_error(client, sent, code):
    answer = client.request("POST", "/mcp", json=sent)
    assert answer.status_code == 200
    assert answer.json()["id"] == 1
    assert answer.json()["error"]["code"] == code


def test_ping(client):
    assert ask(client, "ping").json() == {"jsonrpc": "2.0", "id": 1, "result": {}}


def test_what_is_no_message_is_refused(client):
    for content in (b"{", b"[]", b'{"id": 1}', b'"x"'):
        answer = client.request("POST", "/mcp", content=content)
        assert answer.status_code in (400, 422)
        assert answer.json()["error"]["code"] == -32000


def test_a_full_service_has_its_status(client, service):
    service.failure = Overloaded("full", 3.0)
    answer = ask(client, "tools/call", name="classify", arguments={"text": "a"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.json()["error"]["data"]["code"] == "overloaded"


def test_it_is_off_unless_asked_for_and_streams_nothing(service, client):
    assert ask(Client(create_app(service, LIMITS)), "ping").status_code == 404
    assert client.get("/mcp").status_code == 405


def test_it_asks_for_keys(service, tmp_path: Path):
    token = new_token()
    (tmp_path / "keys.json").write_text(
        json.dumps({"keys": [{"id": "agent", "sha256": hash_of(token)}]})
    )
    access = AccessSettings(keys_file=str(tmp_path / "keys.json"))
    app = create_app(service, LIMITS, access, spoken=SPOKEN)
    assert ask(Client(app), "tools/list").status_code == 401

    async def called(url: str) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(headers=headers) as http:
            transport = streamable_http_client(url, http_client=http)
            async with McpClient(transport) as client:
                return await client.call_tool("classify", {"text": "a"})

    with served(app) as url:
        answer = asyncio.run(called(f"{url}/mcp"))
    assert answer.structured_content["results"][0]["label"] == "short"
