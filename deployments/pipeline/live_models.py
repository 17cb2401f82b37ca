"""The models that Classifiers hold now, and texts encoded for each of them.

An update replaces replicas one by one, so for a while two models live. Every answer names its
model; ids are made for all that were heard of lately, so that whichever Classifier a call meets
finds its own. One that finds none says which model it has, and the call is made again for that one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from deployments.pipeline.errors import NotReady, ServiceError
from deployments.pipeline.fast_tokenizer import faster
from deployments.pipeline.observer import SILENT, Observer
from deployments.pipeline.parts import ModelParts
from deployments.pipeline.tasks import Encoder
from deployments.pipeline.token_ids import encoded
from deployments.pipeline.tokenize import EncodedTexts
from deployments.pipeline.types import Encoded, ModelInfo, TextInput
from deployments.pipeline.windows import Plan, planned, surely_fits

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from deployments.settings import LongTextSettings

logger = logging.getLogger(__name__)

Ask = Callable[[Collection[str]], Awaitable[ModelParts | None]]
"""Asks some Classifier for its parts; None where their version is among those given."""


class Redacts(Protocol):
    """Takes personal data out of texts."""

    def redact_all(self, inputs: Sequence[TextInput]) -> tuple[Sequence[TextInput], Sequence[int]]:
        """The same inputs with placeholders, and how many each holds."""


# A model that nobody has heard of for so long is gone: texts are encoded for it no more.
LIVE_S = 60.0
# Old, new, and one more where an update overtakes another.
MAX_MODELS = 3
# Which Classifier answers is chance: among ten old ones the new one is met in 20 calls or so.
MAX_ASKED = 50


@dataclass(frozen=True, slots=True)
class LiveModel:
    """One model, as texts are encoded for it."""

    version: str
    parts: ModelParts
    encoder: Encoder


@dataclass(frozen=True, slots=True)
class Encodings:
    """What became of n inputs. The k-th text of `batch` is input number `index[k]`.

    truncated: model → of each text of `batch`, whether that model reads only a part of it.
    errors: input → why it is no text of `batch`. A text that one of the models refuses is refused.
    redacted: placeholders in the k-th text of `batch`; None where nothing is redacted at all.
    """

    batch: Encoded
    index: list[int]
    truncated: dict[str, list[bool]]
    errors: dict[int, ServiceError]
    redacted: list[int] | None = None


class LiveModels:
    """ask: see `Ask`. redactor: takes personal data out of a text before it is encoded. observer:
    told of texts that are encoded twice."""

    def __init__(
        self,
        ask: Ask,
        redactor: Redacts | None = None,
        clock: Callable[[], float] = time.monotonic,
        observer: Observer = SILENT,
    ) -> None:
        self._ask = ask
        self._observer = observer
        self._redactor = redactor
        self._clock = clock
        # Version → model, the one met first in front.
        self._met: dict[str, LiveModel] = {}
        self._heard_at: dict[str, float] = {}
        self._asking = asyncio.Lock()

    @property
    def inline_chars(self) -> int:
        """So many may be encoded on an event loop."""
        return min((model.encoder.inline_chars for model in self._met.values()), default=0)

    def info_of(self, version: str) -> ModelInfo | None:
        """Labels and the like of a model that was met lately."""
        model = self._met.get(version)
        return None if model is None else model.parts.info

    def labels(self) -> tuple[str, ...]:
        """Of the newest model that lives; none before one is known."""
        models = self._lively()
        return models[0].parts.info.labels if models else ()

    def heard_of(self, version: str) -> None:
        """To be called with every answer: a Classifier has this model."""
        self._heard_at[version] = self._clock()

    async def meet(self, versions: Collection[str] = ()) -> bool:
        """Makes models known that Classifiers said they have, or, without any, the first.

        Returns whether all of them are known now; a replica may be gone before it could be asked.

        Raises:
            whatever `ask` raises.
        """
        for version in versions:
            self.heard_of(version)
        async with self._asking:
            for _ in range(MAX_ASKED):
                if self._met and self._met.keys() >= set(versions):
                    return True
                parts = await self._ask(tuple(self._met))
                if parts is not None:
                    # A large tokenizer takes half a second to make, a faster one as long to prove.
                    await asyncio.to_thread(self.add, parts)
        return False

    def add(self, parts: ModelParts) -> None:
        """Makes one known. Others are forgotten where there are too many."""
        version = parts.version
        model = LiveModel(version, parts, faster(parts.encoder(), observer=self._observer))
        self.heard_of(version)
        met = {**self._met, version: model}
        while len(met) > MAX_MODELS:
            del met[min(met, key=lambda one: self._heard_at[one])]
        # At once: other threads read it.
        self._met = met
        logger.info("a Classifier has model %s: %s", version, parts.info.model)

    def encode(self, inputs: Sequence[TextInput]) -> Encodings:
        """Token ids of all inputs that have some, for each model that lives.

        May be called from several threads.

        Raises:
            NotReady: no model is known yet.
        """
        models = self._known()
        counts: Sequence[int] | None = None
        if self._redactor is not None:
            inputs, counts = self._redactor.redact_all(inputs)
        if any(item.token_ids is not None for item in inputs):
            made = [encoded(model.encoder, inputs, self._redactor is not None) for model in models]
        else:
            made = [model.encoder.encode(inputs) for model in models]
        batch, index, truncated, errors = _together([m.version for m in models], made)
        redacted = None if counts is None else [counts[i] for i in index]
        return Encodings(batch, index, truncated, errors, redacted)

    def plan(self, inputs: Sequence[TextInput], settings: LongTextSettings) -> Plan | None:
        """Windows of texts that are too long, as the newest model reads them; None: of none.

        May be called from several threads.

        Raises:
            NotReady: no model is known yet.
        """
        encoder, redactor = self._known()[0].encoder, self._redactor

        def redact(item: TextInput) -> tuple[TextInput, int]:
            assert redactor is not None  # noqa: S101 - else it is not called
            (redacted,), (n,) = redactor.redact_all([item])
            return redacted, n

        plan = planned(
            inputs,
            encoder.untruncated,
            encoder.max_length,
            settings,
            None if redactor is None else redact,
        )
        return plan if plan.windows or plan.errors else None

    def surely_fits(self, item: TextInput) -> bool:
        """Whether the newest model reads all of a text, told without tokenizing it.

        Raises:
            NotReady: no model is known yet.
        """
        encoder = self._known()[0].encoder
        if self._redactor is not None:
            return False  # placeholders may be longer than what they replace
        marks = encoder.untruncated.num_special_tokens_to_add(is_pair=False)
        return item.text_pair is None and surely_fits(item.text, encoder.max_length - marks)

    def tokenizer(self) -> Tokenizer:
        """The newest model's, cutting nothing.

        Raises:
            NotReady: no model is known yet.
        """
        return self._known()[0].encoder.untruncated

    def _known(self) -> list[LiveModel]:
        models = self._lively()
        if not models:
            raise NotReady("The model is still loading. Retry in a few seconds.", 2.0)
        return models

    def _lively(self) -> list[LiveModel]:
        """The models to encode for, the newest first; the last one heard of in any case."""
        if len(self._met) < 2:
            return list(self._met.values())
        since = self._clock() - LIVE_S
        lively = [m for m in self._met.values() if self._heard_at[m.version] >= since]
        if not lively:
            lively = [max(self._met.values(), key=lambda model: self._heard_at[model.version])]
        return lively[::-1]


def _together(
    versions: list[str], made: list[EncodedTexts]
) -> tuple[Encoded, list[int], dict[str, list[bool]], dict[int, ServiceError]]:
    """The first four fields of `Encodings`."""
    if len(made) == 1:
        (version,), (one,) = versions, made
        batch = replace(one.batch, model=version)
        return batch, one.index, {version: one.truncated}, one.errors
    errors = {i: error for one in reversed(made) for i, error in one.errors.items()}
    index = [i for i in made[0].index if i not in errors]
    also: Encoded | None = None
    truncated = {}
    for version, one in reversed(list(zip(versions, made, strict=True))):
        also = replace(_only(one, index), model=version, also=also)
        cut = dict(zip(one.index, one.truncated, strict=True))
        truncated[version] = [cut[i] for i in index]
    assert also is not None  # noqa: S101 - there are models
    return also, index, truncated, errors


def _only(encoded: EncodedTexts, index: list[int]) -> Encoded:
    """The texts of these inputs."""
    if encoded.index == index:
        return encoded.batch
    if not index:
        return Encoded(np.zeros(0, np.int32), np.zeros(0, np.int32))
    places = {i: k for k, i in enumerate(encoded.index)}
    texts = encoded.batch.split()
    return Encoded.concat([texts[places[i]] for i in index])
