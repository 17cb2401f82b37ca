"""BERT behind LitServe, laid out as in LitServe's own benchmark (tests/perf_test/bert/server.py).

`decode_request` per request, `batch` tokenizes, `predict`, `unbatch`, `encode_response`.
"""

from __future__ import annotations

import os
from typing import Any

import litserve as ls

DTYPE = os.environ["PEER_DTYPE"]


class NullApi(ls.LitAPI):
    """The server alone: every text is answered at once."""

    def setup(self, device: str) -> None:
        pass

    def decode_request(self, request: dict[str, str]) -> str:
        return request["text"]

    def batch(self, inputs: list[str]) -> list[str]:
        return inputs

    def predict(self, inputs: list[str]) -> list[dict[str, Any]]:
        return [{"label": "null", "score": 1.0}] * len(inputs)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


class BertApi(NullApi):
    def setup(self, device: str) -> None:
        from bert import Bert

        self.bert = Bert()

    def batch(self, inputs: list[str]) -> Any:
        return self.bert.encode(inputs)

    def predict(self, inputs: Any) -> Any:
        return self.bert.predict(inputs)

    def unbatch(self, output: Any) -> list[dict[str, Any]]:
        return self.bert.answers(output)


if __name__ == "__main__":
    api = (NullApi if DTYPE == "none" else BertApi)(
        max_batch_size=int(os.environ["PEER_MAX_BATCH_SIZE"]),
        batch_timeout=float(os.environ["PEER_BATCH_TIMEOUT_S"]),
        api_path="/classify",
    )
    server = ls.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=int(os.environ["PEER_WORKERS"]),
        timeout=False,
        fast_queue=bool(int(os.environ["PEER_FAST_QUEUE"])),
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        num_api_servers=int(os.environ["PEER_API_SERVERS"]),
        log_level="warning",
        generate_client_file=False,
    )
