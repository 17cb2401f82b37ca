"""What we rely on inside Ray that its documentation does not promise, as read in one version of it.

Another version may have renamed any of it and says nothing. `READ_IN` names where each stands; a
test looks there, and `rayclassify doctor` warns where the installed Ray is another.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

RAY = "2.60"

# Serve's flags, of its controller and of every process that Serve starts.
HA_PROXY = "RAY_SERVE_ENABLE_HA_PROXY"
THROUGHPUT = "RAY_SERVE_THROUGHPUT_OPTIMIZED"

DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's own default here, said aloud: replicas unpickle what comes to their gRPC ports, which
    # listen on all addresses.
    "RAY_AUTH_MODE": "token",
    "RAY_SERVE_LOG_TO_STDERR": "1",  # replicas' log lines reach the child's output
    "RAY_COLOR_PREFIX": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's announced default; its warning is noise
    # Ray's own is 15, which gives way to whatever else the machine has to do.
    "RAY_worker_niceness": "0",
    # As the YAML has it; set here for Serve's own proxies, which start elsewhere.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.http.serve_edge:middlewares",
    # Micro-batches go past the object store; 30 % of the memory, Ray's default, is not needed.
    "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": "536870912",
}
"""The environment of a Ray that we start, where the user sets nothing else."""

# HAProxy's other doors: statistics, metrics, and Serve's own proxy, which answers where no replica
# does. Nobody needs to know them, so any free port will do.
SIDE_PORTS = (
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)
FIRST_INGRESS_PORT = "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"
LAST_INGRESS_PORT = "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"
FIRST_GRPC_PORT = "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT"
LAST_GRPC_PORT = "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT"
HAPROXY_THREADS = "RAY_SERVE_HAPROXY_NBTHREAD"
# So long a stopping ingress replica stays reachable, idle or not.
MIN_DRAINING = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
ADMIN_SOCKET = "admin.sock"  # one a node, below the directory of a run
FRONTENDS = ("http_frontend", "grpc_frontend")  # as Serve's template of HAProxy's config has them

DASHBOARD_TOLD = r"dashboard at (https?://\S+)"  # of what `serve run` prints
REPLICA_TITLE = "ray::ServeReplica:"  # and then application:deployment.method

DASHBOARD_PROCESS = "/ray/dashboard/dashboard.py"
DASHBOARD_PORT_RETRIES = 50  # how many ports it tries after the one it wants


def haproxy_files(run_dir: Path) -> dict[str, str]:
    """Where Serve puts HAProxy's config and sockets: elsewhere than any other Serve."""
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(run_dir / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(run_dir / ADMIN_SOCKET),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(run_dir),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(run_dir / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(run_dir / "metrics.sock"),
    }


def other_version() -> str | None:
    """What to tell a person where the installed Ray is not the one that this was read in."""
    installed = metadata.version("ray")
    if installed.startswith(f"{RAY}."):
        return None
    return (
        f"ray is {installed}; what we rely on inside it was read in {RAY}. Install that "
        f"(`pip install 'ray[serve]=={RAY}.*'`), or run `pytest tests/unit/test_ray_inside.py`."
    )


READ_IN: dict[str, tuple[str, ...]] = {
    "serve/_private/constants.py": (
        *(HA_PROXY, THROUGHPUT, FIRST_INGRESS_PORT, LAST_INGRESS_PORT, HAPROXY_THREADS),
        *(MIN_DRAINING, FIRST_GRPC_PORT, LAST_GRPC_PORT, "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"),
        *SIDE_PORTS,
        *haproxy_files(Path()),
        "RAY_SERVE_LOG_TO_STDERR",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH",
    ),
    "serve/_private/haproxy_templates.py": tuple(f"frontend {one}" for one in FRONTENDS),
    "serve/_private/grpc_util.py": ("rpc_handler._method_handlers",),  # grpc/servicer.py
    "serve/_private/replica.py": ('call_method=service_method.split("/")[-1]',),  # grpc/methods.py
    "serve/_private/common.py": ("ServeReplica:",),
    "serve/_private/deployment_state.py": ("have taken more than",),  # deploying/serve_state.py
    "serve/_private/logging_utils.py": ("def log_access_log_filter",),  # replica/base.py
    "_common/formatters.py": ("class JSONFormatter",),  # replica/base.py
    "serve/context.py": (  # replica/base.py
        *("def _get_internal_replica_context", "def _get_serve_request_context"),
    ),
    "serve/scripts.py": ("Submitted deploy config",),
    "util/metrics.py": ("def _record",),  # replica/metrics.py
    "experimental/internal_kv.py": (  # replica/cluster_store.py
        *("def _internal_kv_get", "def _internal_kv_put", "def _internal_kv_initialized"),
    ),
    "dashboard/dashboard.py": ("--port-retries",),
    "dashboard/modules/reporter/reporter_head.py": (
        "/api/prometheus/sd",
    ),  # deploying/dashboard.py
    # launch/child.py
    "_private/worker.py": ("dashboard at", "RAY_COLOR_PREFIX", "_metrics_export_port"),
    "_private/ray_constants.py": (
        *("RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES", "RAY_worker_niceness"),
    ),
    "_private/utils.py": ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",),
    "_common/utils.py": ("RAY_TMPDIR",),
    "_common/usage/usage_constants.py": (
        *("RAY_USAGE_STATS_ENABLED", "RAY_USAGE_STATS_KUBERAY_IN_USE"),
    ),
    "autoscaler/_private/kuberay/autoscaling_config.py": ("headgroup",),  # deploying/clusters.py
}
"""File of Ray → what stands in it that we rely on; a comment where another module of ours does."""
