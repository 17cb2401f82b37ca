"""What `GET /state` looks like in JSON. The structs only describe it, as those of schemas.py."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType


class Application(Struct):
    """As Ray Serve calls it."""

    name: str
    status: Annotated[str, Meta(description="Ray Serve's word: `RUNNING`, `DEPLOYING`, …")]


class DeploymentState(Struct):
    """One of the three deployments, in the whole cluster."""

    name: str
    status: Annotated[str, Meta(description="Ray Serve's word: `HEALTHY`, `UPSCALING`, …")]
    replicas: Annotated[
        dict[str, int], Meta(description="`RUNNING`, `STARTING` and so on, to how many there are.")
    ]


class IngressState(Struct):
    """The Tokenizer replica that answered; through a balancer each answer may be another's."""

    replica: str
    pending_texts: Annotated[int, Meta(description="Taken in here and not answered yet.")]
    max_pending_texts: int
    ahead_s: Annotated[
        float, Meta(description="How long these would take one Classifier, in seconds.")
    ]
    refused_requests: Annotated[
        int, Meta(description="Answered 429 by the gate here, since this replica started.")
    ]


class ClassifierState(Struct):
    """A Classifier, as it last said of itself to the replica that answered."""

    replica: str
    heard_s: Annotated[float, Meta(description="So many seconds ago.")]
    queued_tokens: Annotated[int, Meta(description="Waiting there for the model.")]
    tokens_per_s: Annotated[int, Meta(description="What it can read in full batches.")]
    passes: Annotated[int, Meta(description="Forward passes since it started.")]
    read_texts: int
    read_tokens: int


class CascadeState(Struct):
    """Texts that the replica which answered has answered since it started."""

    threshold: Annotated[float, Meta(description="Best scores below it go on to the larger model.")]
    first: int
    second: int
    degraded: Annotated[int, Meta(description="By the first, unsure, as the second could not.")]


class ShadowState(Struct):
    """What became of texts that the replica which answered chose for the model on trial."""

    share: float
    waiting: int
    compared: int
    agreed: Annotated[int, Meta(description="Of those compared: both models gave one label.")]
    dropped: int
    failed: int


class DriftState(Struct):
    """One feature of the texts that a replica has met lately, beside the model's baseline."""

    deployment: Annotated[str, Meta(description="Whose replica counts it.")]
    baseline: Annotated[str, Meta(description="Of the content of drift.json, as a hash.")]
    feature: str
    texts: Annotated[int, Meta(description="Of the last hour; of longer, until they are 500.")]
    psi: Annotated[float, Meta(description="Population stability index against the baseline.")]
    threshold: Annotated[
        float | None, Meta(description="Of so many texts of the baseline's kind; null: of none.")
    ]
    moved: Annotated[
        bool | None, Meta(description="Whether the index is above it; null: too few texts to tell.")
    ]


class State(Struct):
    """How busy the service is: two answers tell tokens a second and the mean batch."""

    application: Application | None
    deployments: list[DeploymentState]
    ingress: IngressState
    classifiers: list[ClassifierState]
    cascade: Annotated[CascadeState | UnsetType, Meta(description="With `args.cascade` only.")] = (
        UNSET
    )
    shadow: Annotated[ShadowState | UnsetType, Meta(description="With `args.shadow` only.")] = UNSET
    drift: Annotated[
        list[DriftState] | UnsetType,
        Meta(
            description="Where the model has a drift.json and texts have come: of the replica that "
            "answered, and of one Postprocessor."
        ),
    ] = UNSET
