"""Ways in by handle, good and bad, and the error that the caller should see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import privacy_faults as faulty
from .canary import Canaries
from .privacy_cases import MAX_CHARS, MAX_TEXTS

ANSWER = ("answer",)


@dataclass(frozen=True, slots=True)
class HandleCase:
    """args, kwargs: of the number of a case; expected: `answer`, or the error's type.

    shown_in: as of a `Case`.
    """

    name: str
    expected: Sequence[str]
    args: Callable[[int], list[Any]]
    kwargs: Callable[[int], dict[str, Any]] = field(default=lambda _: {})
    method: str = "classify"
    shown_in: str = ""

    def question(self, number: int) -> dict[str, Any]:
        return {"method": self.method, "args": self.args(number), "kwargs": self.kwargs(number)}


def handle_cases(canaries: Canaries) -> list[HandleCase]:
    """One call each; what Serve and Ray make of a call that fails is not in our hands."""
    text = canaries.text
    long = MAX_CHARS - 100  # with MAX_TEXTS of them a message that goes by the object store

    def error(name: str) -> tuple[str, str]:
        return name, f"RayTaskError({name})"

    return [
        HandleCase("a text", ANSWER, lambda n: [text(n)]),
        HandleCase("a list", ANSWER, lambda n: [[text(n)] * 3]),
        HandleCase("a list of 110 kB", ANSWER, lambda n: [[text(n, "好" * long)] * MAX_TEXTS]),
        HandleCase("a bad one", ANSWER, lambda n: [[text(n), {text(n): 1}]]),
        HandleCase("an object", error("InvalidInput"), lambda n: [{text(n): text(n)}]),
        HandleCase(
            "a text for an option",
            error("InvalidInput"),
            lambda n: ["好"],
            lambda n: {"top_k": text(n)},
        ),
        HandleCase(
            "a text for a time",
            error("InvalidInput"),
            lambda n: ["好"],
            lambda n: {"timeout_s": text(n)},
        ),
        HandleCase(
            "an unknown option", error("InvalidInput"), lambda n: ["好"], lambda n: {text(n): 1}
        ),
        HandleCase(
            "an unknown option in letters",
            error("InvalidInput"),
            lambda n: ["好"],
            lambda n: {f"{canaries.latin}{n:03d}": 1},
            shown_in="/spans/",  # the error names an option that could be one
        ),
        HandleCase(
            "no text, an unknown option", error("TypeError"), lambda n: [], lambda n: {text(n): 1}
        ),
        HandleCase("too many arguments", error("TypeError"), lambda n: [text(n), text(n)]),
        HandleCase("too many texts", error("TooLarge"), lambda n: [[text(n)] * (MAX_TEXTS + 1)]),
        HandleCase("too long", error("TextTooLong"), lambda n: [text(n, "好" * MAX_CHARS)]),
        HandleCase(
            "refused to cut",
            error("TextTooLong"),
            lambda n: [text(n, "好" * 900)],
            lambda n: {"truncation": False},
        ),
        HandleCase(
            "the engine raises",
            error("PredictionFailed"),
            lambda n: [canaries.of_tokens(n, faulty.FAILING_TOKENS)],
        ),
        HandleCase(
            "the postprocessor raises",
            error("ServiceError"),
            lambda n: [text(n)],
            lambda n: {"top_k": faulty.FAILING_TOP_K},
        ),
        HandleCase("the ingress raises", error("ServiceError"), lambda n: [text(n, faulty.RAISE)]),
        HandleCase(
            "the tokenizer panics", error("ServiceError"), lambda n: [text(n, faulty.PANIC)]
        ),
        HandleCase(
            "past its deadline",
            error("DeadlineExceeded"),
            lambda n: [canaries.of_tokens(n, faulty.SLOW_TOKENS)],
        ),
        HandleCase("the ASGI entry", error("TypeError"), lambda n: [text(n)], method="__call__"),
        HandleCase(
            "another method", error("TypeError"), lambda n: [text(n), text(n)], method="info"
        ),
    ]
