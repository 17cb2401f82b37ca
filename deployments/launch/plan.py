"""What a Serve config asks of the machine, read from the checked YAML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deployments.config.crosscheck import HA_PROXY, longest_request_s
from deployments.settings import LimitSettings, ModelSettings


@dataclass(frozen=True, slots=True)
class Plan:
    """The numbers of a config that matter before it is deployed."""

    host: str
    port: int
    app: str
    base_path: str
    model: str | None
    num_cpus: float
    num_gpus: float
    wants_haproxy: bool
    request_s: float
    """Longest that a request may take: its body, then its answer."""

    wants_key: bool = False
    """Whether a request without a key or a JWT is refused."""

    @property
    def door(self) -> str:
        """The address at which this machine reaches the service."""
        return "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104

    @property
    def url(self) -> str:
        shown = "localhost" if self.door == "127.0.0.1" else self.door
        return f"http://{shown}:{self.port}{self.base_path}"

    @property
    def ready_url(self) -> str:
        return f"http://{self.door}:{self.port}{self.base_path}/ready"


def read_plan(config: dict[str, Any]) -> Plan:
    """The plan of the config's first application."""
    http = config.get("http_options") or {}
    app = (config.get("applications") or [{}])[0]
    engine = (app.get("args") or {}).get("engine") or {}
    deployments = app.get("deployments") or []
    root = str(http.get("root_path") or "").rstrip("/")
    return Plan(
        host=str(http.get("host") or "127.0.0.1"),
        port=int(http.get("port") or 8000),
        app=str(app.get("name") or "default"),
        base_path=root + str(app.get("route_prefix") or "/").rstrip("/"),
        model=None if engine.get("name") == "none" else _model_id(app),
        # Ray gives a replica one CPU where the config is silent.
        num_cpus=sum(_asked(d, "num_cpus", default=1.0) for d in deployments),
        num_gpus=sum(_asked(d, "num_gpus", default=0.0) for d in deployments),
        request_s=longest_request_s(_limits(app), config),
        wants_key=_wants_key(app),
        wants_haproxy=_controller_env(config).get(HA_PROXY) == "1",
    )


def _limits(app: dict[str, Any]) -> LimitSettings:
    """Of another application only what it names as we do."""
    limits = (app.get("args") or {}).get("limits") or {}
    return LimitSettings(**{k: v for k, v in limits.items() if k in LimitSettings.model_fields})


def _model_id(app: dict[str, Any]) -> str:
    model = (app.get("args") or {}).get("model") or {}
    return str(model.get("id") or ModelSettings().id)


def _wants_key(app: dict[str, Any]) -> bool:
    access = (app.get("args") or {}).get("access") or {}
    named = access.get("keys_file") or access.get("jwt_jwks")
    return bool(named) and not access.get("allow_anonymous")


def _asked(deployment: dict[str, Any], resource: str, default: float) -> float:
    """What the deployment's first replicas ask for."""
    options = deployment.get("ray_actor_options") or {}
    each = options.get(resource, default)
    autoscaling = deployment.get("autoscaling_config") or {}
    first = autoscaling.get("initial_replicas") or autoscaling.get("min_replicas")
    fixed = deployment.get("num_replicas")
    replicas = fixed if isinstance(fixed, int) else (1 if first is None else first)
    return float(each or 0.0) * float(replicas)


def _controller_env(config: dict[str, Any]) -> dict[str, str]:
    runtime_env = (config.get("controller_options") or {}).get("runtime_env") or {}
    return dict(runtime_env.get("env_vars") or {})
