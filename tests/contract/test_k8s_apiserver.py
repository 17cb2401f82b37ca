"""The manifests, sent to a real API server with KubeRay's CRDs: it takes all, and drops nothing.

Needs the binaries of Kubernetes' envtest, `etcd` and `kube-apiserver`, in the folder that
KUBEBUILDER_ASSETS names (`setup-envtest use -p path` of sigs.k8s.io/controller-runtime fetches
them), and kubectl. No pod starts: there is no kubelet.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.launch.ports import next_port
from scripts.kubernetes.overlays import K8S, Document, name_of, rendered
from scripts.kubernetes.schemas import CRDS

pytestmark = pytest.mark.trials
TOKEN = "trial"  # noqa: S105


class Server:
    """kubectl, with the address of one API server."""

    def __init__(self, port: int) -> None:
        self.command = ["kubectl", f"--server=https://127.0.0.1:{port}", f"--token={TOKEN}"]
        self.command += ["--insecure-skip-tls-verify=true", "--request-timeout=30s"]

    def run(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *words], input=text, capture_output=True, text=True, check=False
        )

    def kinds(self) -> set[tuple[str, str]]:
        """apiVersion and kind of all that it serves."""
        lines = self.run("api-resources", "--no-headers").stdout.splitlines()
        return {(line.split()[-3], line.split()[-1]) for line in lines}

    def minor(self) -> int:
        """Of Kubernetes' version; 0 of a server that was built without one."""
        said = json.loads(self.run("get", "--raw", "/version").stdout)["minor"]
        return int(said.rstrip("+") or 0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An API server on an empty etcd, with KubeRay's CRDs."""
    assets = Path(os.environ.get("KUBEBUILDER_ASSETS", "/usr/local/kubebuilder/bin"))
    if not (assets / "kube-apiserver").exists() or not shutil.which("kubectl"):
        pytest.skip(f"no kube-apiserver in {assets}, or no kubectl: see the head of this file")
    if not CRDS.exists():
        pytest.skip(f"no CRDs of KubeRay in {CRDS}: set KUBERAY_CRDS")
    folder = tmp_path_factory.mktemp("apiserver")
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    key = folder / "accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    client, peer, secure = next_port(), next_port(), next_port()
    urls = f"http://127.0.0.1:{client}"
    commands = [
        [
            str(assets / "etcd"),
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={urls}",
            f"--advertise-client-urls={urls}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
        ],
        [
            str(assets / "kube-apiserver"),
            f"--etcd-servers={urls}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={secure}",
            f"--cert-dir={folder / 'certs'}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://trial",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
        ],
    ]
    with (folder / "log").open("w") as log:
        running = [subprocess.Popen(one, stdout=log, stderr=log) for one in commands]
    try:
        made = Server(secure)
        for _ in range(120):
            if running[1].poll() is not None:
                pytest.fail((folder / "log").read_text()[-3000:])
            with socket.socket() as probe:
                open_port = probe.connect_ex(("127.0.0.1", secure)) == 0
            if open_port and made.run("get", "--raw", "/readyz").stdout == "ok":
                break
            time.sleep(0.5)
        for file in sorted(CRDS.glob("ray.io_*.yaml")):
            crd = yaml.load(file.read_text(), yaml.CSafeLoader)
            text = json.dumps(crd if made.minor() >= 25 else for_an_old_server(crd))
            done = made.run("create", "--validate=false", "-f", "-", text=text)
            assert done.returncode == 0, done.stderr[-2000:]
        made.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        yield made
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(30)


def for_an_old_server(node: Any) -> Any:
    """A CRD without the default "": 1.20 reads it as null, and refuses that."""
    if isinstance(node, list):
        return [for_an_old_server(one) for one in node]
    if isinstance(node, dict):
        return {
            key: "unset" if (key, value) == ("default", "") else for_an_old_server(value)
            for key, value in node.items()
        }
    return node


def lost(sent: Any, kept: Any, path: str = "") -> list[str]:
    """What of `sent` the server does not have; it may add defaults."""
    if isinstance(sent, dict):
        there = kept if isinstance(kept, dict) else {}
        return [
            one
            for key, value in sent.items()
            for one in (
                lost(value, there[key], f"{path}.{key}") if key in there else [f"{path}.{key}"]
            )
        ]
    if isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        return [
            one
            for place, (a, b) in enumerate(zip(sent, kept, strict=True))
            for one in lost(a, b, f"{path}[{place}]")
        ]
    return [] if sent == kept else [f"{path}: {sent!r} became {kept!r}"]


def apply(server: Server, document: Document) -> subprocess.CompletedProcess[str]:
    return server.run(
        "apply", "--server-side", "--validate=false", "-f", "-", text=yaml.safe_dump(document)
    )


@pytest.mark.parametrize("overlay", ["gpu", "cpu", "local"])
def test_the_server_takes_every_object_and_drops_no_field(server: Server, overlay: str) -> None:
    served = server.kinds()
    # Of the few that others' CRDs bring, and of what an old server does not have.
    documents = rendered(K8S / "overlays" / overlay)
    known = [one for one in documents if (one["apiVersion"], one["kind"]) in served]
    left = {one["kind"] for one in documents if one not in known}
    assert left <= {"PodMonitor", "PrometheusRule", "PodDisruptionBudget"}
    assert {"Namespace", "RayService", "NetworkPolicy", "ServiceAccount"} <= {
        one["kind"] for one in known
    }
    for document in sorted(known, key=lambda one: one["kind"] != "Namespace"):
        done = apply(server, document)
        assert done.returncode == 0, f"{name_of(document)}: {done.stderr}"
        space = document["metadata"].get("namespace", "default")
        got = server.run("get", "-n", space, name_of(document), "-o", "json")
        assert lost(document, json.loads(got.stdout)) == []


def test_the_server_refuses_what_the_check_refuses(server: Server) -> None:
    (ray,) = [one for one in rendered(K8S / "overlays/gpu") if one["kind"] == "RayService"]
    ray["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["idleTimeoutSeconds"] = "60"
    ray["metadata"].pop("namespace")
    done = apply(server, ray)
    assert done.returncode != 0
    assert "idleTimeoutSeconds" in done.stderr
