"""The configs that served, kept to get back to, and one deploy at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import yaml

from deployments.deploying.merging import CannotDeploy
from deployments.deploying.serve_state import same_config
from deployments.launch.kept_logs import STATE_DIR_ENV, state_dir
from deployments.model.cache import write_wholly

AT_MOST = 10
_HEAD = "# Served, and kept by `rayclassify deploy`: "
_TIME = "%Y-%m-%dT%H-%M-%S.%fZ"
_ASKED = "asked.json"


@dataclass(frozen=True, slots=True)
class Served:
    """A config that served. session: the run of the cluster; app: our part of the file."""

    path: Path
    session: str
    app: dict[str, Any]

    @property
    def when(self) -> str:
        """As 2026-11-28 00:44, UTC."""
        return datetime.strptime(self.path.stem, _TIME).strftime("%Y-%m-%d %H:%M UTC")


class Kept:
    """What served of one application of one cluster: files in the user's state directory.

    `RAYCLASSIFY_STATE_DIR` names another one. They may hold secrets of the application's
    environment, so they are for this user alone.
    """

    def __init__(self, url: str, app: str) -> None:
        self._cluster = state_dir() / _as_name(url.partition("://")[2] or url)
        self.directory = self._cluster / _as_name(app)

    def served(self) -> list[Served]:
        """The newest first; what can't be read is left out."""
        found = []
        for path in sorted(self.directory.glob("*.yaml"), reverse=True):
            try:
                datetime.strptime(path.stem, _TIME)
                text = path.read_text(encoding="utf-8")
                session = json.loads(text.partition("\n")[0].removeprefix(_HEAD))["session"]
                (app,) = yaml.safe_load(text)["applications"]
            except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
                continue
            found.append(Served(path, str(session), app))
        return found

    def add(self, document: dict[str, Any], app: dict[str, Any], session: str) -> Path:
        """Keeps a config that serves, as a file that `rayclassify deploy` takes; drops the oldest.

        The same config again takes the place of the one before.

        Raises:
            OSError: it can't be written.
        """
        before = self.served()
        self._make_directory()
        alone = {**document, "applications": [app]}
        head = _HEAD + json.dumps({"session": session})
        path = self.directory / f"{datetime.now(UTC).strftime(_TIME)}.yaml"
        body = yaml.safe_dump(alone, sort_keys=False, allow_unicode=True)
        write_wholly(path, f"{head}\n{body}")
        if before and same_config(before[0].app, app):
            before[0].path.unlink(missing_ok=True)
        for old in self.served()[AT_MOST:]:
            old.path.unlink(missing_ok=True)
        return path

    def ask(self, app: dict[str, Any]) -> None:
        """Notes what this machine is about to deploy, for whoever comes after a crash."""
        self._make_directory()
        write_wholly(self.directory / _ASKED, json.dumps(app))

    def asked(self) -> dict[str, Any] | None:
        """What this machine deployed last, whatever became of it."""
        try:
            app: dict[str, Any] = json.loads((self.directory / _ASKED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return app

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Holds the cluster for one deploy from this machine; the system frees it if that dies.

        Raises:
            CannotDeploy: another one holds it, or it can't be held here.
        """
        try:
            self._make_directory()
            lock = filelock.FileLock(self._cluster / "deploy.lock", mode=0o600)
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise CannotDeploy(
                "another `rayclassify deploy` or `rollback` to this cluster is under way on this "
                "machine. Wait for it to end, or stop it with Ctrl-C."
            ) from None
        except (OSError, NotImplementedError) as exc:
            raise CannotDeploy(
                f"{self._cluster} can't be written ({type(exc).__name__}): there the configs that "
                f"served are kept. Name another directory in {STATE_DIR_ENV}."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _make_directory(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for directory in (self._cluster, self.directory):
            directory.chmod(0o700)


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._") or "_"
