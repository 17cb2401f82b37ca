"""Triton's own client against the application: it asks and reads in binary by default."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
import uvicorn
from stand_in import LIMITS, LengthClassifier
from tritonclient.utils import InferenceServerException

from deployments.http.app import create_app

TEXTS = ["good", "质量很好，会再来，真的", "long enough to be long"]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, LengthClassifier]]:
    """An address, and what is asked there."""
    service = LengthClassifier()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(service, LIMITS), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"127.0.0.1:{listener.getsockname()[1]}", service
    server.should_exit = True
    thread.join()


@pytest.fixture
def client(served: tuple[str, LengthClassifier]) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(served[0]) as client:
        yield client


def of_texts(texts: list[str], name: str = "text", binary: bool = True) -> triton.InferInput:
    given = triton.InferInput(name, [len(texts)], "BYTES")
    return given.set_data_from_numpy(
        np.array([text.encode() for text in texts], dtype=object), binary
    )


def test_it_sees_the_server_and_its_model(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("demo")
    assert client.is_model_ready("demo", "1")
    assert not client.is_model_ready("other")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    about = client.get_model_metadata("demo", "1")
    assert [one["name"] for one in about["outputs"]] == ["label", "score", "scores"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_it_reads_labels_and_scores(
    client: triton.InferenceServerClient, binary_in: bool, binary_out: bool | None
) -> None:
    outputs = None
    if binary_out is not None:
        names = ("label", "score", "scores")
        outputs = [triton.InferRequestedOutput(name, binary_out) for name in names]
    given = [of_texts(TEXTS, binary=binary_in)]
    result = client.infer("demo", given, outputs=outputs, request_id="7")
    labels = [one.decode() if isinstance(one, bytes) else one for one in result.as_numpy("label")]
    assert labels == ["short", "long", "long"]
    assert result.as_numpy("score").tolist() == [1, 1, 1]
    assert result.as_numpy("scores").tolist() == [[0, 1], [1, 0], [1, 0]]
    assert result.get_output("scores")["parameters"]["labels"] == ["long", "short"]
    assert result.get_response()["id"] == "7"


def test_it_sends_pairs(
    client: triton.InferenceServerClient, served: tuple[str, LengthClassifier]
) -> None:
    client.infer("demo", [of_texts(["a"]), of_texts(["b"], "text_pair")], model_version="1")
    last = served[1].seen[-1]
    assert (last.text, last.text_pair) == ("a", "b")  # type: ignore[union-attr]


def test_it_understands_our_errors(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="Model with name other does not exist"):
        client.infer("other", [of_texts(["a"])])
    with pytest.raises(InferenceServerException, match=r"data\[1\]: data is empty") as caught:
        client.infer("demo", [of_texts(["a", " "])])
    assert caught.value.status() == "400"
