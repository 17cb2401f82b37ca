"""One server under load: its requests, and whether it answers as it should."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from urllib.parse import urlsplit

import msgspec

from deployments.bench.client import CLIENT_TIMEOUT_S, RIGHT, Answer, Load, Question, post
from deployments.bench.dialects import DIALECTS, Asked

_decode = msgspec.json.Decoder().decode
_SHOWN_CHARS = 200


class BadTarget(Exception):
    """This server can't be asked that way; the message is one line with the cure."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server to be asked. url: as it was given; dialect: one of `DIALECTS`.

    path: in the place of the dialect's own. model: for dialects whose URL or body names one.
    """

    url: str
    dialect: str = "ours"
    path: str | None = None
    model: str | None = None
    key: str | None = None

    @property
    def name(self) -> str:
        return f"{self.dialect} {self.url}"

    @property
    def asked(self) -> Asked:
        return DIALECTS[self.dialect]

    @property
    def full_path(self) -> str:
        """Raises BadTarget where the path needs a model's name, and none was given."""
        path = self.path or self.asked.path
        if "{model}" in path and not self.model:
            raise BadTarget(f"{self.dialect} has the model's name in its URL. Say --model NAME.")
        return urlsplit(self.url).path.rstrip("/") + path.replace("{model}", self.model or "")

    def questions(self, texts: Sequence[str], texts_per_request: int) -> list[Question]:
        """Requests that ask all `texts` in order, each with as many as it shall have."""
        n_requests = -(-len(texts) // texts_per_request)
        endless = cycle(texts)
        return [self.question(list(islice(endless, texts_per_request))) for _ in range(n_requests)]

    def question(self, texts: Sequence[str]) -> Question:
        """One request. It is right where it is answered with 200 and a label for each text."""
        body = self.asked.body(texts)
        if self.model and self.asked.has_model_field:
            body["model"] = self.model
        extra = f"Authorization: Bearer {self.key}\r\n".encode() if self.key else b""
        labels, n_texts = self.asked.labels, len(texts)

        def judge(answer: Answer) -> str:
            if answer.status != 200:
                return str(answer.status)
            return RIGHT if len(labels(_decode(answer.body))) == n_texts else "200 without labels"

        return Question(
            post(
                json.dumps(body, ensure_ascii=False).encode(),
                extra=extra,
                path=self.full_path,
                host=urlsplit(self.url).netloc.rpartition("@")[2],
            ),
            judge,
        )

    def probe(self, texts: Sequence[str], timeout_s: float = CLIENT_TIMEOUT_S) -> str:
        """Asks once; the label that the server gives the first of `texts`.

        Raises:
            BadTarget
        """
        answers: list[Answer] = []
        question = self.question(texts)

        def judge(answer: Answer) -> str:
            answers.append(answer)
            return question.judge(answer)

        (one,) = Load(
            self.url, [Question(question.request, judge)], connections=1, timeout_s=timeout_s
        ).run()
        if not answers:
            if "Timeout" in one.outcome:
                raise BadTarget(f"{self.url} did not answer within {timeout_s:g} s.")
            raise BadTarget(
                f"no server answers at {self.url} ({one.outcome.removeprefix('lost ')}). Start it, "
                "or name another address."
            )
        if one.outcome == RIGHT:
            return self.asked.labels(_decode(answers[0].body))[0]
        raise BadTarget(self._why_not(answers[0]))

    def _why_not(self, answer: Answer) -> str:
        where = f"{self.url} answered {answer.status} at {self.full_path}"
        if answer.status == 200:
            return f"{where}, but not as {self.dialect} does. Name its --dialect."
        if answer.status in (401, 403):
            return f"{where}: it asks for a key. Say --key, or set RAYCLASSIFY_KEY."
        if answer.status in (404, 405):
            cure = "--dialect, --path or --model" if self.model else "--dialect or --path"
            return f"{where}: it does not speak {self.dialect} there. Name its {cure}."
        said = " ".join(answer.body[: 4 * _SHOWN_CHARS].decode("utf-8", "replace").split())
        return f"{where}: {said[:_SHOWN_CHARS] or 'nothing more'}"
