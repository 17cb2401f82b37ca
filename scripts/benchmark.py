"""Measure the service under load: requests a second and latency, by number of connections.

Starts a service of its own on a free port, with the Serve config given, asks it with `wrk` and
stops it again. `--engine none` leaves out the model, so that what remains is the chain itself.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import requests
import typer
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 180.0
TEXT = "这是一个示例文本"
# wrk's own report, as one line of JSON; latencies are in microseconds there.
REPORT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[%s]==]
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nREPORT {"requests": %%d, "duration_us": %%d, "p50_us": %%d, "p99_us": %%d, ' ..
    '"errors": %%d}\\n', summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""

app = typer.Typer(add_completion=False)
console = Console()


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of wrk."""

    connections: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int


@app.command()
def main(
    config: Annotated[Path, typer.Option(help="Serve config to measure.")] = ROOT
    / "serve_config.yaml",
    engine: Annotated[
        str, typer.Option(help="`none` measures the chain without a model; `torch` the whole.")
    ] = "none",
    connections: Annotated[
        str, typer.Option(help="Open connections, one run each, separated by commas.")
    ] = "1,16,64,256",
    duration_s: Annotated[int, typer.Option(help="Length of each run.", min=1)] = 10,
    text: Annotated[str, typer.Option(help="The text of every request.")] = TEXT,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a setting, e.g. batching.max_inflight_batches=1; repeatable."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the figures as JSON here too.")] = None,
) -> None:
    """Load a service with WRK and print requests a second, p50 and p99 by connections.

    Ratios within one run mean something; figures of two runs, or two machines, do not compare.
    """
    changes = [f"engine.name={engine}", *(setting or [])]
    counts = [int(count) for count in connections.split(",")]
    with running_service(config, changes) as url:
        load(url, 16, 3, text)  # the first requests pay for lazy imports and cold caches
        runs = [load(url, n, duration_s, text) for n in track(counts, description="measuring")]
        info = requests.get(f"{url}/info", timeout=10).json()
    report = {"machine": machine(), "service": info, "changes": changes, "text": text}
    show(runs, report)
    if output is not None:
        report["runs"] = [asdict(run) for run in runs]
        output.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


@contextmanager
def running_service(config: Path, changes: list[str]) -> Iterator[str]:
    """URL of a service started from `config` with `changes`; it is stopped at the end."""
    loaded = yaml.safe_load(config.read_text(encoding="utf-8"))
    loaded["http_options"]["port"] = port = free_port()
    for change in changes:
        apply(loaded["applications"][0]["args"], change)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(loaded, file, sort_keys=False)
        file.flush()
        command = [str(Path(sys.executable).with_name("rayclassify")), "serve", file.name]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            wait_ready(process, url := f"http://127.0.0.1:{port}")
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=90)


def apply(args: dict[str, Any], change: str) -> None:
    """Sets `a.b=value` in the nested settings `args`."""
    path, _, value = change.partition("=")
    *sections, name = path.split(".")
    for section in sections:
        args = args[section]
    args[name] = yaml.safe_load(value)


def wait_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise typer.Exit(process.returncode)  # it has said why
        try:
            if requests.get(f"{url}/ready", timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.2)
    raise typer.Exit(1)


def load(url: str, connections: int, duration_s: int, text: str) -> Measurement:
    """One run of wrk with `connections` open connections, each asking again when answered."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua", encoding="utf-8") as script:
        script.write(REPORT % json.dumps({"text": text}, ensure_ascii=False))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{duration_s}", "-s", script.name]
        try:
            done = subprocess.run(
                [*command, "--timeout", "30", f"{url}/classify"],
                capture_output=True,
                text=True,
                check=True,
            )
        except FileNotFoundError:
            console.print("wrk is not installed; Debian and Ubuntu: apt install wrk")
            raise typer.Exit(1) from None
    found = re.search(r"REPORT (\{.*\})", done.stdout)
    assert found is not None, done.stdout  # noqa: S101
    raw = json.loads(found.group(1))
    return Measurement(
        connections=connections,
        requests_per_s=round(raw["requests"] / raw["duration_us"] * 1e6, 1),
        p50_ms=raw["p50_us"] / 1_000,
        p99_ms=raw["p99_us"] / 1_000,
        errors=raw["errors"],
    )


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpu = next(
        (line.partition(":")[2].strip() for line in cpu_lines() if line.startswith("model name")),
        platform.processor(),
    )
    packages = ("ray", "torch", "transformers", "rayclassify")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def show(runs: list[Measurement], report: dict[str, Any]) -> None:
    where, service = report["machine"], report["service"]
    title = f"{service['engine']}, {service['dtype']}, {where['cores']} cores of {where['cpu']}"
    table = Table("connections", "requests/s", "p50 ms", "p99 ms", "errors", title=title)
    for run in runs:
        table.add_row(
            str(run.connections),
            f"{run.requests_per_s:,.0f}",
            f"{run.p50_ms:.1f}",
            f"{run.p99_ms:.1f}",
            str(run.errors),
        )
    console.print(table)
    console.print(f"{', '.join(report['changes'])}; {where['versions']}", highlight=False)


if __name__ == "__main__":
    app()
