"""A process inside Ray that calls the service by its handle; see bench/child.py."""

from __future__ import annotations

from typing import Any

from scripts.bench.child import answer_lines

TIMEOUT_S = 60.0
# One each, kept: while an update is built, Serve says of an application that it does not exist.
_handles: dict[str, Any] = {}


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """method, args, kwargs → `{"answer": ...}` or `{"raised": type of the error}`."""
    import ray
    from ray import serve

    if not ray.is_initialized():
        ray.init(log_to_driver=True)  # RAY_ADDRESS says where
    method = question["method"]
    if method not in _handles:
        _handles[method] = serve.get_app_handle("classify").options(method_name=method)
    try:
        called = _handles[method].remote(*question["args"], **question["kwargs"])
        return {"answer": called.result(timeout_s=TIMEOUT_S)}
    except Exception as exc:
        return {"raised": type(exc).__name__}


if __name__ == "__main__":
    answer_lines(answer)
