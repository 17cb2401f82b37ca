"""The head's pod of k8s/overlays/local as a container would have it, but for the container.

A mount namespace has a read-only root and a tmpfs wherever the pod mounts a volume; a network
namespace has the pod's ports. In it Ray starts as KubeRay starts it, gets serveConfigV2 as KubeRay
sends it, and is asked what KubeRay's probes ask. Needs root and Linux.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SPEC = yaml.safe_load((ROOT / "k8s/overlays/local/rayservice.yaml").read_text())["spec"]
(GROUP,) = SPEC["rayClusterConfig"]["workerGroupSpecs"]
(CONTAINER,) = GROUP["template"]["spec"]["containers"]
TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105
# KubeRay v1.7.0, controllers/ray/common/pod.go, initLivenessAndReadinessProbe: a worker is ready by
# the first two, and alive by the last.
HEALTH = "wget --tries 1 -T 2 -q -O- http://localhost:{port}/{path} | grep success"
PROBES = [
    HEALTH.format(port=52365, path="api/local_raylet_healthz"),
    HEALTH.format(port=8000, path="-/healthz"),
]
LIVENESS = "curl -sf -o /dev/null http://127.0.0.1:52365/api/healthz && echo alive"

SCRIPT = """
set -eu
ip link set lo up
for place in {places}; do mkdir -p $place; mount -t tmpfs none $place; done
mount -o remount,bind,ro /
for place in {others}; do mount -o remount,bind,ro $place; done
if touch {root}/written 2>/dev/null; then echo "the root can be written"; exit 1; fi
PLACE="--node-ip-address=127.0.0.1 --dashboard-host=0.0.0.0"
ray start --head $PLACE --disable-usage-stats {params} --block > /tmp/ray.out 2>&1 &
# Again until it is taken, as KubeRay does.
curl -sSf --retry 60 --retry-delay 2 --retry-all-errors -X PUT --data-binary "$SERVE_CONFIG" \
  -H "Authorization: Bearer $RAY_AUTH_TOKEN" -H 'Content-Type: application/json' \
  http://127.0.0.1:8265/api/serve/applications/ 2>/dev/null
for try in $(seq 180); do curl -sf -o /dev/null http://127.0.0.1:8000/ready && break; sleep 1; done
echo "answer $(curl -s http://127.0.0.1:8000/classify -d '{{"text": "很好"}}' \
  -H 'Content-Type: application/json')"
echo "ready $(bash -c {probes})"
echo "alive $({liveness})"
LOGS="/tmp/ray/session_latest/logs /tmp/ray.out"
echo "refused $(grep -rliE 'read-only file system|Errno 30' $LOGS | wc -l)"
"""


def mounts() -> list[str]:
    """Where the pod may write; its home is ours here."""
    home = str(Path.home())
    return [m["mountPath"].replace("/home/ray", home) for m in CONTAINER["volumeMounts"]]


def variables() -> dict[str, str]:
    """The pod's environment, and what KubeRay adds for the token."""
    named: dict[str, Any] = {one["name"]: one["value"] for one in CONTAINER["env"]}
    return {**named, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}


@pytest.mark.trials
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="namespaces need root")
def test_a_pod_with_a_read_only_root_answers_and_passes_kuberays_probes() -> None:
    missing = [name for name in ("unshare", "ip", "wget", "curl") if not shutil.which(name)]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    params = " ".join(f"--{key}={value}" for key, value in GROUP["rayStartParams"].items())
    others = [path for path in ("/work", "/home", "/root", "/var") if os.path.ismount(path)]
    script = SCRIPT.format(
        places=" ".join(mounts()),
        others=" ".join(others),
        root=ROOT,
        params=params,
        probes=shlex.quote(" && ".join(PROBES)),
        liveness=LIVENESS,
    )
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(Path.home()),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}",
        "HF_HUB_OFFLINE": "1",
        "SERVE_CONFIG": json.dumps(yaml.safe_load(SPEC["serveConfigV2"])),
        **variables(),
    }
    # The PID namespace ends with the script, and all that it started with it.
    done = subprocess.run(
        ["unshare", "-m", "-n", "-p", "-f", "--mount-proc", "--kill-child", "bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=290,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert json.loads(said["answer"])["label"] == "positive"
    assert "success" in said["ready"]
    assert said["alive"] == "alive"
    assert said["refused"] == "0"
