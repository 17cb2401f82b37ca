"""Mode `privacy`: texts that exist nowhere else, sent through every way in, searched everywhere."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deployments.privacy.audit import broken_at, derived_key, text_digest
from scripts.bench.child import Child
from scripts.bench.process import wait_until
from scripts.bench.service import Config, read_config, running_service

from . import privacy_faults as faulty
from .canary import Canaries
from .handles import calling, environment
from .places import Run, Syslog, files_below
from .privacy_cases import (
    SETTINGS,
    Case,
    HandleCase,
    Http,
    accepted,
    failing,
    handle_cases,
    refused,
)
from .session import Finding, Part, Session

PATIENCE_S = 90.0
_CONTROL_FILE = "control-of-the-search"
SYSLOG = "RAY_SERVE_HAPROXY_LOG_TARGET"
SECRET = "as long as a secret has to be"  # noqa: S105


@dataclass
class Trial:
    """One service under trial, what was sent to it and what was found."""

    canaries: Canaries
    http: Http
    run: Run
    syslog: Syslog
    audit: Path
    names: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    controls: set[int] = field(default_factory=set)
    shown_in: dict[int, str] = field(default_factory=dict)
    searched: Counter[str] = field(default_factory=Counter)
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    controls_found: set[str] = field(default_factory=set)

    def number(self, name: str, shown_in: str = "") -> int:
        """The number of a new case."""
        number = len(self.names)
        self.names.append(name)
        if shown_in:
            self.shown_in[number] = shown_in
        return number

    def send(self, cases: Iterable[Case]) -> None:
        for case in cases:
            self.settle()
            outcome = case.send(self.canaries.text(self.number(case.name, case.shown_in)))
            if outcome not in case.expected:
                self.missed.append(f"{case.name}: {outcome}")

    def call(self, caller: Child, cases: Sequence[HandleCase]) -> None:
        for case in cases:
            self.settle()
            number = self.number(f"handle, {case.name}", case.shown_in)
            answer = caller.ask(**case.question(self.canaries.text(number)))
            if answer.get("raised", "answer") not in case.expected:
                self.missed.append(f"handle, {case.name}: {answer.get('raised', 'answer')}")

    def settle(self) -> None:
        """Waits until the service answers: what was done to it before may still block it."""
        wait_until(lambda: self.http.json({"text": "好"}) == 200, "an answer", PATIENCE_S)

    def search(self) -> None:
        """Looks into every place, and keeps what was found there that is no control."""
        self.searched.clear()
        of_audit = files_below(self.audit, "audit log")
        for place in (*self.run.places(), self.syslog.place(), *of_audit):
            self.searched[place.kind] += 1
            for form, excerpt in self.canaries.forms_in(place.data).items():
                where = f"{place.kind} {place.name}"
                numbers = self._numbers(place.data)
                known = {n for n, shown_in in self.shown_in.items() if shown_in in where}
                if numbers & self.controls:
                    self.controls_found.add(f"{place.kind}: {form}")
                if numbers and numbers <= self.controls | known:
                    continue
                self.found[f"{where}, {form}"] = {
                    "cases": [self.names[n] for n in sorted(numbers - self.controls - known)],
                    "excerpt": excerpt,
                }

    def _numbers(self, data: bytes) -> set[int]:
        latin = self.canaries.latin.encode()
        return {int(n) for n in re.findall(latin + rb"(\d{3})", data, re.IGNORECASE)}

    def control(self) -> None:
        """Canaries that must be found: logged, made a metric's tag, written into a file."""
        for name, fault in (("log", faulty.LOG), ("metric", faulty.COUNT)):
            self.controls.add(number := self.number(f"control, {name}"))
            self.http.json({"text": self.canaries.text(number, fault)})
        self.controls.add(number := self.number("control, file"))
        (session,) = self.run.dir.glob("ray/session_2*")
        (session / _CONTROL_FILE).write_bytes(self.canaries.in_all_forms(number))

    def control_is_seen(self) -> bool:
        """Whether what takes the longest has come to where it is shown: metrics."""
        self.controls_found.clear()
        self.search()
        return "metrics: plain" in self.controls_found


@dataclass(frozen=True, slots=True)
class Held:
    """Types of the objects in the Tokenizer's process that hold a canary.

    of_http: after all requests by HTTP; of_handles: after all handle calls too; collected: after
    Python's collector has run.
    """

    of_http: list[str]
    of_handles: list[str]
    collected: list[str]


def try_privacy(session: Session) -> None:
    """Sends canaries through every way in, kills what holds them, and searches."""
    canaries = Canaries()
    with session.mode("privacy", 7) as part, ExitStack() as stack:
        syslog = stack.enter_context(Syslog())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "text").write_text(canaries.text(0), encoding="utf-8")
        stack.enter_context(environment({faulty.FILE_VARIABLE: str(folder / "text")}))
        # As on a machine that keeps cores: whether the service leaves one is its own doing.
        limits = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_CORE, limits)
        session.step("start, with every log at its loudest")
        config = loud_config(folder, syslog.port)
        service = stack.enter_context(running_service(SETTINGS, config))
        run = Run(service)
        http = Http(service.endpoint.url)
        trial = Trial(canaries, http, run, syslog, folder / "audit")
        trial.number("quoted by the postprocessor's error")
        session.step("texts that are classified or refused")
        trial.send(accepted(trial.http))
        trial.send(refused(trial.http))
        session.step("texts with which something breaks")
        trial.send(failing(trial.http, canaries))
        session.step("calls by handle, from inside Ray")
        with calling(run) as caller:
            trial.settle()
            of_http = ask_what_is_held(caller, canaries, collect=False)
            trial.call(caller, handle_cases(canaries))
            trial.settle()
            of_handles = ask_what_is_held(caller, canaries, collect=False)
            collected = ask_what_is_held(caller, canaries, collect=True)
            held = Held(of_http, of_handles, collected)
        kept_by_haproxy = canaries.forms_in(run.haproxy_says("show errors"))
        trial.search()
        session.step("replicas killed with texts on board")
        cores = kill_with_texts_on_board(trial)
        session.step("search")
        trial.settle()
        trial.control()
        with suppress(TimeoutError):  # then the finding says so
            wait_until(trial.control_is_seen, "the controls to be found", PATIENCE_S)
        part.figures = {
            "cases": trial.names,
            "places": dict(trial.searched),
            "forms": [*canaries.forms, "token ids"],
            "controls_found": sorted(trial.controls_found),
            "found": trial.found,
            "missed": trial.missed,
            "held": asdict(held),
            "haproxy_keeps_a_bad_request": bool(kept_by_haproxy),
        }
        judge(part, trial, held, cores)
        part.findings.append(judge_audit(trial))


def judge(part: Part, trial: Trial, held: Held, cores: list[str]) -> None:
    """The promises."""
    n_forms = len(trial.canaries.forms) + 1
    n_places = sum(trial.searched.values())
    control_ok = len({c for c in trial.controls_found if c.startswith("file")}) >= n_forms
    seen = ", ".join(f"{n} {kind}" for kind, n in sorted(trial.searched.items()))
    missed = f"; not as expected: {'; '.join(trial.missed)}" if trial.missed else ""
    part.add(
        "No text in any log, metric, trace, page or file",
        f"{len(trial.names)} ways in and ways to fail, each with a text of its own; logs at "
        f"DEBUG, access log and traces on; searched in {n_forms} forms: {seen}",
        len(trial.names) * n_places,
        f"found in {len(trial.found)} places{missed}; the controls "
        f"{'were found' if control_ok else 'were not found'}",
        not trial.found and not trial.missed and control_ok,
    )
    part.add(
        "A text is held no longer than its request",
        "after the answers, every object that Python reaches in the Tokenizer was asked "
        "for strings, bytes and token ids; once more when Python's collector had run, as Serve "
        "keeps frames of calls that failed or were cancelled in cycles",
        len(trial.names),
        f"{len(held.collected)} objects hold one; before the collector ran "
        f"{len(held.of_http)} after requests by HTTP, {len(held.of_handles)} after handles",
        not held.collected,
    )
    part.add(
        "A replica that dies leaves no core",
        "a Classifier ended by SIGABRT and a Tokenizer by SIGSEGV, with texts on board, "
        "started where cores are allowed",
        2,
        f"{len(cores)} cores" + (f": {', '.join(cores)}" if cores else ""),
        not cores,
    )


def judge_audit(trial: Trial) -> Finding:
    """Whether the audit log has the decisions, each signed, under hashes that only we can make."""
    paths = sorted(trial.audit.iterdir())
    lines = [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]
    broken = [problem for path in paths if (problem := broken_at([path], SECRET.encode())[1])]
    key = derived_key(SECRET.encode(), "text")
    numbers = {text_digest(key, trial.canaries.text(n)): n for n in range(len(trial.names))}
    decided = {numbers[line["text"]] for line in lines if line["text"] in numbers}
    expected = {n for n, name in enumerate(trial.names) if name in ("JSON", "handle, a text")}
    return Finding(
        "The audit log has every decision, signed, and no text",
        "turned on for all of the above, read with the secret; the search above went through it",
        len(lines),
        f"{len(lines)} lines of {len(paths)} Tokenizers, {len(broken)} broken chains, "
        f"{len(decided)} texts found again by their hash",
        bool(lines) and not broken and expected <= decided and len(expected) == 2,
    )


def loud_config(folder: Path, syslog_port: int) -> Config:
    """serve_config.yaml with the faults built in, every log on, and HAProxy's lines sent to us."""
    config = read_config()
    env_vars = config["controller_options"]["runtime_env"]["env_vars"]
    target = env_vars.get(SYSLOG, "127.0.0.1:514")
    env_vars |= {
        SYSLOG: target.replace(":514", f":{syslog_port}"),
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",  # lines reach their files at once
        "RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH": (
            "ray.serve._private.tracing_utils:default_tracing_exporter"
        ),
        "RAY_SERVE_TRACING_SAMPLING_RATIO": "1",
    }
    config["logging_config"] |= {"log_level": "DEBUG", "enable_access_log": True}
    application = config["applications"][0]
    application["import_path"] = "tests.trials.privacy_faults:build"
    application["args"]["engine"] |= {"name": "torch", "dtype": "float32"}
    (folder / "secret").write_text(SECRET, encoding="utf-8")
    application["args"]["audit"] = {
        "directory": str(folder / "audit"),
        "secret_file": str(folder / "secret"),
        "chain": True,
    }
    for deployment in application["deployments"]:
        deployment.setdefault("user_config", {})["log_level"] = "DEBUG"
    return config


def ask_what_is_held(caller: Child, canaries: Canaries, collect: bool) -> list[str]:
    """Types of what holds a canary in the Tokenizer, when its threads have come to rest.

    collect: after Python's collector has run.
    """
    held: list[str] = []
    for _ in range(5):
        held.clear()
        for core, ids in ((canaries.latin, []), (canaries.chinese, canaries.ids)):
            question = {"method": "held", "args": [core[::-1], ids, collect], "kwargs": {}}
            held += caller.ask(**question)["answer"]
        if not held:
            break
        time.sleep(0.5)
    return held


def kill_with_texts_on_board(trial: Trial) -> list[str]:
    """Ends a replica of each kind by a signal that would leave a core; returns the cores."""
    places = (Path.cwd(), trial.run.dir)
    before = {path for place in places for path in place.glob("**/core*") if path.is_file()}
    for deployment, how in (("Classifier", signal.SIGABRT), ("Tokenizer", signal.SIGSEGV)):
        trial.settle()
        number = trial.number(f"{deployment} ended by {how.name}")
        canaries = trial.canaries
        text = canaries.of_tokens(canaries.text(number), faulty.SLOW_TOKENS)
        sender = threading.Thread(target=trial.http.json, args=({"text": text},))
        sender.start()
        time.sleep(0.5)  # it is with the engine now, which takes 3 s
        os.kill(trial.run.replica_pid(deployment), how)
        sender.join()
    after = {path for place in places for path in place.glob("**/core*") if path.is_file()}
    return sorted(str(path) for path in after - before if path.stat().st_size)
