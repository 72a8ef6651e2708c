"""The environment that Ray Serve reads when Ray starts; imports no Ray, so that it can be set first.

Set them before `ray start`, or in a driver before it imports `ray` (which reads some of them then)::

    os.environ.update(serve_env(workflow.serving))
    import ray
    ray.init()

What listens where, when `serving.host` is 127.0.0.1: the front (`serving.port`) and the replicas' own HTTP
ports are on loopback. HAProxy dials a replica by its node's address, so the node's address has to be loopback
too, which one of the variables sees to; Ray replaces ``--node-ip-address=127.0.0.1`` by a remotely reachable
address. A cluster of several nodes needs 0.0.0.0, which `raywf.serving.deploy` checks.

What Ray 2.60 offers no way to bind to loopback (haproxy_templates.py writes ``bind :port``): HAProxy's
statistics page and its Prometheus metrics, both read-only and without features or labels. Their ports are
chosen free here; close them with a firewall on a shared network. HAProxy's admin socket is made with mode
666; its folder here is private (0700) on the machine that calls `serve_env`, a worker node makes its own
below /tmp with the usual umask. Ray's token covers none of these.
"""

from __future__ import annotations

import os
import random
import socket
import tempfile
from collections.abc import Set as AbstractSet
from pathlib import Path

from raywf.core.addresses import LOOPBACK
from raywf.core.errors import ServingError
from raywf.core.niceness import SERVING
from raywf.core.serving_settings import ServingSettings

_PORTS = range(20_000, 24_000)  # above Ray's workers, below the replicas' and the system's own choices
# The same on every node of a cluster; ports, sockets and folders are chosen where one machine has all.
EVERY_NODE = {
    "RAY_worker_niceness": str(SERVING),
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # A line of log a request, read by a process of Ray's, costs as much as half of a replica's work.
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "raywf.serving.inline.middlewares",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
    # Three checks that fail bring another HAProxy; with Ray's 10 s nobody is answered for half a minute.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5",
    # HAProxy hears of a leaving replica within a second; Ray's 30 s are for balancers that poll.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",  # an hour for who stops in the middle of a body otherwise
}


def serve_env(settings: ServingSettings, *, avoid: AbstractSet[int] = frozenset()) -> dict[str, str]:
    """Return the variables, with ports that are free now: call once a cluster; make HAProxy's private folder.

    HAProxy repeats a request whose replica died before its first byte of answer; a prediction of such a
    request may be in the log twice, under one id where the client gave one.
    """
    metrics, stats, http, grpc = free_ports(4, avoid={settings.port, *avoid})
    low = _PORTS.stop + (http * 7) % 5_600
    folder = _private_folder()
    # "0" makes Ray take 127.0.0.1 as the node's address, as it does by default on macOS and Windows.
    local = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} if settings.host in LOOPBACK else {}
    return local | {
        **EVERY_NODE,
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(grpc),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(low),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(low + 400),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
    }


def free_ports(count: int, *, avoid: AbstractSet[int] = frozenset()) -> list[int]:
    """Return different TCP ports that nothing listens on now.

    Neither Ray nor the system gives ports of this range away, so that each is still free when it is used.

    Raises:
        ServingError: if there are not so many.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            return found
        if port not in avoid and _is_free(port):
            found.append(port)
    raise ServingError(f"fewer than {count} of the ports {_PORTS[0]} to {_PORTS[-1]} are free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _private_folder() -> str:
    # A socket's path has at most 107 bytes and Ray adds the node's id of 56, so the name is short.
    folder = Path(tempfile.gettempdir()) / f"rwf-{os.getuid()}"
    if len(str(folder)) > 30:
        folder = Path("/tmp") / folder.name  # noqa: S108 owner and mode are checked below
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        return tempfile.mkdtemp(prefix="rwf-", dir="/tmp")
    folder.chmod(0o700)
    return str(folder)
