"""What an explanation looks like in JSON. The structs only describe it, as those of schemas.py."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType


class ExplainedToken(Struct):
    """A part of the text. start, end: Unicode code points of the text as it was sent, from 0."""

    text: str
    start: int
    end: int
    attribution: Annotated[
        float, Meta(description="Above 0 it speaks for the label, below 0 against it.")
    ]
    part: Annotated[
        Literal["text", "text_pair"] | UnsetType, Meta(description="Of pairs only: which half.")
    ] = UNSET


class Explanation(Struct):
    """What each part of a text added to a label."""

    label: Annotated[str, Meta(description="The label explained: the one answered, or `target`.")]
    of: Annotated[
        Literal["log_odds", "value"],
        Meta(description="`log_odds` of the label, before calibration; a regression's `value`."),
    ]
    method: Annotated[str, Meta(description="What was used; see `method` of the request.")]
    baseline: Annotated[str | None, Meta(description="What stands for no text.")]
    passes: Annotated[int, Meta(description="Forward passes spent.")]
    seconds: Annotated[float, Meta(description="That these took.")]
    sum: Annotated[float, Meta(description="Of all attributions.")]
    convergence_delta: Annotated[
        float | None,
        Meta(description="`sum` less what it should be; null where no sum is promised."),
    ]
    elsewhere: Annotated[
        float, Meta(description="Of `sum`, what belongs to the tokenizer's own marks.")
    ]
    truncated: Annotated[bool, Meta(description="Whether only a part of the text was read.")]
    tokens: list[ExplainedToken]


class ExplainInfo(Struct):
    """What may be asked of explanations."""

    methods: list[str]
    max_texts: int
    max_passes: int
    max_s: float
