"""What a container of the image does: answers, KubeRay's probes, a read-only root.

Every container here is user 1000, without capabilities, network or a root that can be written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.image.engine import Container, Engine

ROOT = Path(__file__).resolve().parents[2]
# The request that README.md and docs/index.md promise to answer.
TEXT = "质量很好，会再来"
ASK = (
    "wget -q -O- --header='Content-Type: application/json' "
    f"--post-data='{json.dumps({'text': TEXT}, ensure_ascii=False)}' http://127.0.0.1:8000/classify"
)
# The call that the service was asked for, word for word but for its host.
CALL = (
    "requests.post('http://127.0.0.1:8000/classify', json={'text': '这是一个示例文本'})"
    ".json()['label']"
)
READY_S = 400
# KubeRay 1.7.0, ray-operator/controllers/ray/utils/constant.go, BaseWgetHealthCommand, filled in
# as initLivenessAndReadinessProbe of common/pod.go does. Ray from 2.53.0 on gets the last of them
# as httpGet, but for the readiness of a RayService's workers: those run the first and the third.
_WGET = "wget --tries 1 -T {} -q -O- http://localhost:{}/{} | grep success"
PROBES = {
    "raylet": _WGET.format(2, 52365, "api/local_raylet_healthz"),
    "GCS": _WGET.format(10, 8265, "api/gcs_healthz"),
    "Serve's proxy": _WGET.format(10, 8000, "-/healthz"),
    "node, by httpGet": "wget --tries 1 -q -O- http://localhost:52365/api/healthz",
}
# The same file's generateRayStartCommand, after its `ulimit`, which takes what is allowed here.
RAY_START = (
    "ulimit -n $(ulimit -Hn); ray start --head --block --dashboard-host=0.0.0.0 "
    "--dashboard-agent-listen-port=52365 --metrics-export-port=8080 --num-cpus=2 "
    "--object-store-memory=200000000"
)
LOCAL = f"""
import json
from deployments.local import LocalClassifier
with LocalClassifier({{}}) as local:
    print(json.dumps(local.classify({TEXT!r})))
"""
VERSIONS = """
import json, sys, ray, torch, transformers
print(json.dumps({
    "Python": sys.version.split()[0], "Ray": ray.__version__, "torch": str(torch.__version__),
    "transformers": transformers.__version__,
}))
"""


@dataclass(frozen=True, slots=True)
class Row:
    """promise: what the image does. tried: how. result: what came of it. kept: whether it held."""

    promise: str
    tried: str
    result: str
    kept: bool


def prove(engine: Engine, image: str) -> Iterator[Row]:
    """All rows; a container that never gets ready raises EngineError with its log."""
    yield _who(engine, image)
    yield _without_ray(engine, image)
    yield from _as_it_comes(engine, image)
    yield from _as_kuberay_runs_it(engine, image)


def versions(engine: Engine, image: str) -> dict[str, str]:
    """Raises EngineError."""
    return dict(json.loads(engine.once(image, "python", "-c", VERSIONS)))


def _who(engine: Engine, image: str) -> Row:
    command = "id -u; id -g; command -v bash wget grep ray rayclassify"
    said = engine.once(image, "bash", "-c", command)
    user, group, *programs = said.split()
    return Row(
        "It is not root, and has what KubeRay runs",
        "`id`, `command -v bash wget grep ray rayclassify`",
        f"{user}:{group}; {', '.join(programs)}",
        (user, group, len(programs)) == ("1000", "100", 5),
    )


def _without_ray(engine: Engine, image: str) -> Row:
    lines = engine.once(image, "python", "-c", LOCAL).splitlines()
    return Row(
        "The package and its demo model answer, nothing fetched",
        "`LocalClassifier` in a container without network",
        f"`{lines[-1]}`",
        json.loads(lines[-1])["label"] == "positive",
    )


def _as_it_comes(engine: Engine, image: str) -> Iterator[Row]:
    with engine.container(image) as container:
        ready_s = container.wait("wget -q -O- http://127.0.0.1:8000/ready", READY_S)
        yield _answered(container, f"its own command, ready after {ready_s:.0f} s")
        label = container.run(f'python -c "import requests; print({CALL})"').stdout.strip()
        yield Row(
            "It answers in Chinese, as the README shows it",
            f"`{CALL}`, by the container's Python",
            label or "no answer",
            label in ("positive", "negative"),
        )
        written = container.run(
            "for p in /srv/rayclassify /opt/rayclassify /home/ray; do touch $p/x 2>&1 || true; done"
        ).stdout.splitlines()
        refused = sum("Read-only" in line for line in written)
        yield Row(
            "Its root may be read-only",
            "the container above can write to /tmp and /dev/shm only; 3 other places tried",
            f"{refused} of 3 refused",
            refused == 3,
        )
        code, seconds = container.stop(60)
        yield Row(
            "SIGTERM to process 1 ends it",
            "`stop`, with 60 s before SIGKILL",
            f"exit code {code} after {seconds:.0f} s",
            code != 137 and seconds < 60,
        )


def _as_kuberay_runs_it(engine: Engine, image: str) -> Iterator[Row]:
    environment = {**head_environment(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
    with engine.container(image, "bash", "-c", RAY_START, environment=environment) as container:
        container.wait(PROBES["raylet"], READY_S)
        # What the operator sends to the dashboard, with the token that Ray's command finds.
        sent = container.run("serve deploy --address http://127.0.0.1:8265 serve_config.yaml")
        if sent.returncode:
            yield Row("KubeRay's way deploys", "`serve deploy`", sent.stderr[-200:], False)
            return
        ready_s = container.wait("wget -q -O- http://127.0.0.1:8000/ready", READY_S)
        for name, probe in PROBES.items():
            done = container.run(probe)
            yield Row(
                f"KubeRay's probe succeeds: {name}",
                f"`{probe.replace('|', chr(92) + '|')}`",
                ", ".join(done.stdout.split("\n")).strip(", ") or f"exit code {done.returncode}",
                done.returncode == 0,
            )
        yield _answered(
            container,
            f"`ray start` as KubeRay has it, the pods' variables, token auth, then the "
            f"config sent to the dashboard; ready after {ready_s:.0f} s",
        )


def head_environment() -> dict[str, str]:
    """The variables of the head pod in k8s/overlays/gpu that have plain values."""
    path = ROOT / "k8s" / "overlays" / "gpu" / "rayservice.yaml"
    (service, *_) = yaml.safe_load_all(path.read_text("utf-8"))
    head: dict[str, Any] = service["spec"]["rayClusterConfig"]["headGroupSpec"]
    variables = head["template"]["spec"]["containers"][0]["env"]
    return {one["name"]: one["value"] for one in variables if "value" in one}


def _answered(container: Container, how: str) -> Row:
    done = container.run(ASK)
    right = done.returncode == 0 and json.loads(done.stdout)["label"] == "positive"
    answer = done.stdout.strip() or f"exit code {done.returncode}"
    return Row("It answers the promised request", how, f"`{answer}`", right)
