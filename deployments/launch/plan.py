"""What a Serve config asks of the machine, read from the checked YAML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from deployments.config.check import BUILDER
from deployments.config.crosscheck import longest_request_s, speaks_grpc
from deployments.config.ray_inside import HA_PROXY
from deployments.settings import Settings


@dataclass(frozen=True, slots=True)
class Plan:
    """What of a config's first application matters before it is deployed.

    request_s: longest that a request may take: its body, then its answer. wants_key: whether a
    request without a key or a JWT is refused. grpc_port: None where gRPC is off.
    """

    host: str
    port: int
    app: str
    base_path: str
    num_cpus: float
    num_gpus: float
    wants_haproxy: bool
    request_s: float
    wants_key: bool = False
    grpc_port: int | None = None

    @property
    def door(self) -> str:
        """The address at which this machine reaches the service."""
        return "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104

    @property
    def url(self) -> str:
        return f"http://{self._shown}:{self.port}{self.base_path}"

    @property
    def grpc_address(self) -> str:
        """Of the door for gRPC."""
        return f"{self._shown}:{self.grpc_port}"

    @property
    def _shown(self) -> str:
        return "localhost" if self.door == "127.0.0.1" else self.door

    @property
    def ready_url(self) -> str:
        return f"http://{self.door}:{self.port}{self.base_path}/ready"


def read_plan(config: dict[str, Any]) -> Plan:
    """The plan of the config's first application."""
    http, grpc = config.get("http_options") or {}, config.get("grpc_options") or {}
    app = (config.get("applications") or [{}])[0]
    settings = next((ours for ours, _ in our_settings({"applications": [app]})), Settings())
    access = settings.access
    deployments = app.get("deployments") or []
    runtime_env = (config.get("controller_options") or {}).get("runtime_env") or {}
    root = str(http.get("root_path") or "").rstrip("/")
    return Plan(
        host=str(http.get("host") or "127.0.0.1"),
        port=int(http.get("port") or 8000),
        app=str(app.get("name") or "default"),
        base_path=root + str(app.get("route_prefix") or "/").rstrip("/"),
        # Ray gives a replica one CPU where the config is silent.
        num_cpus=sum(_asked(d, "num_cpus", default=1.0) for d in deployments),
        num_gpus=sum(_asked(d, "num_gpus", default=0.0) for d in deployments),
        request_s=longest_request_s(settings.limits, config),
        wants_key=access.enabled and not access.allow_anonymous,
        grpc_port=int(grpc.get("port") or 9000) if speaks_grpc(config) else None,
        wants_haproxy=(runtime_env.get("env_vars") or {}).get(HA_PROXY) == "1",
    )


def our_settings(config: dict[str, Any]) -> Iterator[tuple[Settings, str]]:
    """The settings of each of our applications, and the path of its `args`."""
    for index, app in enumerate(config.get("applications") or []):
        if app.get("import_path") != BUILDER:
            continue
        try:
            settings = Settings.model_validate(app.get("args") or {})
        except ValidationError:  # reported by check_config
            continue
        yield settings, f"applications[{index}].args"


def _asked(deployment: dict[str, Any], resource: str, default: float) -> float:
    """What the deployment's first replicas ask for."""
    each = (deployment.get("ray_actor_options") or {}).get(resource, default)
    autoscaling = deployment.get("autoscaling_config") or {}
    first = autoscaling.get("initial_replicas") or autoscaling.get("min_replicas", 1)
    fixed = deployment.get("num_replicas")
    return float(each or 0.0) * float(fixed if isinstance(fixed, int) else first)
