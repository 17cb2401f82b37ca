"""Which commit of a hub model a config means, asked once: branches and tags move."""

from __future__ import annotations

import re
import threading
from pathlib import Path

from deployments.model.source import ModelNotFound, find_model
from deployments.settings import ModelSettings

PATIENCE_S = 10.0
"""Longest that the hub is waited for, names looked up and connections made included."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


class _NoAnswer(Exception):
    """The hub was not reached or not able to answer. The message is the end of a sentence."""


def resolved(settings: ModelSettings) -> ModelSettings:
    """The same model with `revision` a commit; a directory, and a commit, as they are.

    Where the hub is not to be asked (HF_HUB_OFFLINE) or does not answer within `PATIENCE_S`, the
    commit that the local cache holds for the revision is taken.

    Raises:
        ModelNotFound: there is no such model or revision, or nobody here knows its commit.
    """
    source = find_model(settings.id)
    if Path(source).is_dir() or _COMMIT.fullmatch(settings.revision or ""):
        return settings
    return settings.model_copy(update={"revision": _commit(source, settings.revision or "main")})


def _commit(repo: str, revision: str) -> str:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
        cure = "Unset HF_HUB_OFFLINE"
    else:
        try:
            return _ask_in_time(repo, revision)
        except _NoAnswer as exc:
            why = str(exc)
            cure = "See that this machine reaches the hub (HF_ENDPOINT, proxies)"
    if (cached := _cached_commit(repo, revision)) is not None:
        return cached
    raise ModelNotFound(
        f"model {repo!r}, revision {revision!r}: {why}, and the local cache does not hold it. "
        f"{cure}, or set args.model.id to a directory that holds the model."
    )


def _ask_in_time(repo: str, revision: str) -> str:
    """What `_ask` finds. In a thread, as no timeout of a client covers all that can take long."""
    found: list[str] = []
    failed: list[Exception] = []

    def ask() -> None:
        try:
            found.append(_ask(repo, revision))
        except Exception as exc:
            failed.append(exc)

    asking = threading.Thread(target=ask, name="hub", daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    if found:
        return found[0]
    if failed:
        raise failed[0]
    raise _NoAnswer(f"the hub ({_endpoint()}) did not answer within {PATIENCE_S:g} s")


def _ask(repo: str, revision: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        # Of all that the hub knows of a model, its commit.
        told = HfApi().model_info(repo, revision=revision, timeout=PATIENCE_S, expand=["sha"])
    except HFValidationError:
        raise ModelNotFound(
            f"{repo!r} is neither a directory with config.json nor the id of a hub model, which "
            "reads name or owner/name. Set args.model.id to one of them."
        ) from None
    except GatedRepoError:
        raise ModelNotFound(
            f"model {repo!r} is given out by its owner on request only. Ask for access on its page "
            "at the hub, and set HF_TOKEN to a token of that account."
        ) from None
    except RepositoryNotFoundError:
        raise ModelNotFound(
            f"no model {repo!r}: no directory here, and the hub shows none. Check args.model.id; "
            "for a private model set HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise ModelNotFound(
            f"model {repo!r} has no revision {revision!r} at the hub. Set args.model.revision to "
            "a branch, a tag or a commit of it."
        ) from None
    except HfHubHTTPError as exc:
        raise _NoAnswer(f"the hub ({_endpoint()}) answered {exc.response.status_code}") from None
    except Exception as exc:
        raise _NoAnswer(f"the hub ({_endpoint()}) can't be asked ({type(exc).__name__})") from None
    if not _COMMIT.fullmatch(told.sha or ""):
        raise _NoAnswer(f"the hub ({_endpoint()}) answered without a commit")
    return str(told.sha)


def _cached_commit(repo: str, revision: str) -> str | None:
    """What the revision was when its files were fetched; None where they were not."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"))
    try:
        commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    here = _COMMIT.fullmatch(commit) and (folder / "snapshots" / commit / "config.json").is_file()
    return commit if here else None


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
