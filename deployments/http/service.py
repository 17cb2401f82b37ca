"""What the HTTP edge asks of whoever classifies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from deployments.pipeline.errors import ServiceError
from deployments.pipeline.explaining import Explain
from deployments.pipeline.token_views import Token
from deployments.pipeline.types import Answer, TextInput


class ClassifyService(Protocol):
    """The Tokenizer replica in production, a small stand-in in tests."""

    async def classify_inputs(
        self, inputs: list[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        """One result per input, in order; a ServiceError given as input comes back in its place.

        timeout_s: None leaves the limit to the service.

        Raises:
            ServiceError: nothing of this call was classified, e.g. Overloaded.
        """
        ...

    async def explain_inputs(
        self,
        inputs: list[TextInput | ServiceError],
        how: Explain,
        timeout_s: float | None = None,
    ) -> list[Answer | ServiceError]:
        """As `classify_inputs`, with `explanation` in each answer.

        Raises:
            NotImplementedHere: explanations are off.
            ServiceError: nothing of this call was classified.
        """
        ...

    async def tokenize(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[Token]]:
        """The tokens of each text, whole.

        Raises:
            ServiceError: e.g. NotReady, Overloaded.
        """
        ...

    async def decode(self, rows: Sequence[list[int]], skip_special_tokens: bool) -> list[str]:
        """The text of each row of token ids. Raises as `tokenize`."""
        ...

    async def readiness(self) -> None:
        """Returns once texts can be classified at full speed.

        Raises:
            NotReady: the model is not loaded or not warm yet.
        """
        ...

    async def info(self, certificate: bool = False) -> dict[str, Any]:
        """What `GET /info` answers: the fields of schemas.Info, JSON-ready.

        certificate: with what was proven of the model.
        """
        ...

    async def state(self) -> dict[str, Any]:
        """What `GET /state` answers: the fields of state.State, JSON-ready. Also before it is
        ready, and soon: whoever has nothing to say of a part leaves it empty."""
        ...
