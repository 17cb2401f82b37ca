"""A deploy as a person sees it: what is going on, how it ended, and the way back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console
from rich.status import Status
from rich.text import Text

from deployments.cli.exit_codes import DONE, INTERRUPTED, NO
from deployments.deploying.merging import Merged
from deployments.deploying.pinning import changed_since, shown_model
from deployments.deploying.rollout import Outcome, Rollout
from deployments.deploying.serve_state import (
    Verdict,
)

_PAUSE_S = 4.0  # where each line stays


class Talk:
    """Lines that stay, and one that changes: on a terminal in place, elsewhere a line each."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._status: Status | None = None
        self._last, self._said_at = "", 0.0

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)

    def now(self, line: str) -> None:
        if self._status is not None and self._console.is_terminal:
            self._status.update(Text(line))
        elif line != self._last and time.monotonic() > self._said_at + _PAUSE_S:
            self._last, self._said_at = line, time.monotonic()
            self.say(f"  {line} ...")

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While this lasts, `now` has its line on a terminal."""
        self._last = ""
        with self._console.status("sending") as self._status:
            try:
                yield
            finally:
                self._status = None


@dataclass(frozen=True, slots=True)
class DeployRun:
    """One `rayclassify deploy` or `rollback`."""

    rollout: Rollout
    talk: Talk
    timeout_s: float

    def deploy(
        self, config: dict[str, Any], app: dict[str, Any], rollback_on_failure: bool, replace: bool
    ) -> int:
        """Deploys `app`, one of `config`, and goes back where it fails. Returns the exit code.

        Raises:
            CannotDeploy, DashboardError: it can't be sent, or the head node went away meanwhile.
        """
        say = self.talk.say
        plan = self.rollout.plan(config, app, replace)
        for note in plan.notes:
            say(f"note: {note}")
        before = self.rollout.before(plan.app["name"])
        if before is not None:
            self._keep(plan, before)
        self.rollout.say_where_there_is_room(plan)
        say(f"Deploying {plan.app['name']}: {shown_model(plan.app)}")
        outcome = self._send(plan)
        if outcome is None:
            say(
                "No longer waited for; the deploy goes on there. `rayclassify status` shows how it "
                "stands, `rayclassify rollback` goes back."
            )
            return INTERRUPTED
        if outcome.verdict is Verdict.SERVED:
            say(f"It serves after {outcome.after_s:.0f} s: {shown_model(plan.app)}")
            self._keep(plan, plan.app)
            return DONE
        self._complain(outcome)
        if outcome.verdict is Verdict.REPLACED:
            return NO
        if before is None or not rollback_on_failure:
            say("`rayclassify status` shows how it stands; `rayclassify rollback` goes back.")
            return NO
        say(f"Rolling back to {shown_model(before)}")
        self._go_back(config, before)
        return NO

    def _go_back(self, config: dict[str, Any], before: dict[str, Any]) -> None:
        if changed_since(before):
            typer.echo(
                "warning: that model's directory was changed since; its replicas that still live "
                "go on, and new ones find other files than this config names.",
                err=True,
            )
        plan = self.rollout.plan(config, before, replace=True)
        back = self._send(plan)
        if back is None:
            self.talk.say("No longer waited for; the rollback goes on there.")
        elif back.verdict is Verdict.SERVED:
            self.talk.say(f"It serves as before, after {back.after_s:.0f} s: {shown_model(before)}")
            self._keep(plan, plan.app)
        else:
            self._complain(back)

    def _send(self, plan: Merged) -> Outcome | None:
        """None: somebody pressed Ctrl-C."""
        try:
            with self.talk.waiting():
                return self.rollout.send(plan, self.timeout_s)
        except KeyboardInterrupt:
            return None

    def _keep(self, plan: Merged, app: dict[str, Any]) -> None:
        try:
            path = self.rollout.keep(plan, app)
        except OSError as exc:
            typer.echo(f"warning: a config is not kept ({type(exc).__name__})", err=True)
            return
        if path is not None:
            self.talk.say(f"Kept, to go back to: {path}")

    def _complain(self, outcome: Outcome) -> None:
        if outcome.verdict is Verdict.REPLACED:
            message = "somebody else has deployed this application meanwhile, or deleted it"
        elif outcome.timed_out:
            message = f"it does not serve after {self.timeout_s:g} s; --timeout-s gives it more"
        else:
            message = f"the deploy failed after {outcome.after_s:.0f} s"
        typer.echo(f"error: {message}", err=True)
        for reason in outcome.reasons:
            typer.echo(f"  {reason}", err=True)
