"""A process inside Ray that calls the service by its handle; see bench/child.py."""

from __future__ import annotations

from typing import Any

from bench.child import answer_lines

TIMEOUT_S = 60.0
_ready = False


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """method, args, kwargs → `{"answer": ...}` or `{"raised": type of the error}`."""
    import ray
    from ray import serve

    global _ready
    if not _ready:
        ray.init(log_to_driver=True)  # RAY_ADDRESS says where
        _ready = True
    handle = serve.get_app_handle("classify").options(method_name=question["method"])
    try:
        called = handle.remote(*question["args"], **question["kwargs"])
        return {"answer": called.result(timeout_s=TIMEOUT_S)}
    except Exception as exc:
        return {"raised": type(exc).__name__}


if __name__ == "__main__":
    answer_lines(answer)
