"""All that can be said of rendered manifests without a cluster."""

from __future__ import annotations

from scripts.kubernetes import kuberay, policies, schemas, service
from scripts.kubernetes.overlays import Document, of_kind


def problems(documents: list[Document]) -> tuple[list[str], list[str]]:
    """What is wrong, and what could not be looked at because its schema is not here.

    Where fields are wrong, only these are told: the other checks read the fields.
    """
    found: list[str] = []
    unchecked: list[str] = []
    for document in documents:
        try:
            found += schemas.complaints(document)
        except schemas.NoSchema as error:
            unchecked.append(str(error))
    if found:
        return found, unchecked
    for one in of_kind(documents, "RayService"):
        found += kuberay.refusals(one)
    found += service.mismatches(documents)
    found += policies.breaches(documents)
    return list(dict.fromkeys(found)), list(dict.fromkeys(unchecked))
