"""A driver process for the serving tests: a Ray cluster of its own, commands as JSON lines on stdin.

``python tests/e2e/serving_driver.py FOLDER [--grpc]`` makes three bundles, points `champion` at version 1,
deploys, and answers each command with one JSON line that starts with ``>>> ``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

from raywf.core.serving_settings import ServingSettings
from raywf.core.settings import SpineSettings, StoreSettings, Workflow
from raywf.serving.environment import free_ports, serve_env
from raywf.testing import FolderSource, small_bundle


def workflow(folder: Path, *, replicas: int = 2, alias_poll_s: float = 1.0, grpc: bool = False) -> Workflow:
    port, grpc_port = free_ports(2)
    return Workflow(
        name="served",
        task="binary",
        spine=SpineSettings(path="none.csv", label="late"),
        serving=ServingSettings(
            port=port,
            grpc_port=grpc_port if grpc else None,
            replicas=replicas,
            alias_poll_s=alias_poll_s,
            max_body_bytes=200_000,
        ),
        stores=StoreSettings(root=str(folder / "root")),
    )


def make_source(folder: Path, versions: int = 3) -> FolderSource:
    source = FolderSource(str(folder / "registry"))
    for i in range(1, versions + 1):
        source.add(small_bundle(folder / f"bundle-{i}", seed=i), version=str(i))
    source.move("champion", "1")
    return source


def start_ray(settings: ServingSettings, metrics_port: int) -> None:
    os.environ.update(serve_env(settings))
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray

    ray.init(
        num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False,
        _metrics_export_port=metrics_port,
    )  # fmt: skip


def main() -> None:
    folder = Path(sys.argv[1])
    flow, source = workflow(folder, grpc="--grpc" in sys.argv), make_source(folder)
    (metrics_port,) = free_ports(1, avoid={flow.serving.port})
    start_ray(flow.serving, metrics_port)
    import ray

    from raywf.core.codec import encode
    from raywf.serving.deploy import app_name, deploy, status, undeploy
    from raywf.serving.swap import swap

    def do_swap(version: str, move: bool = True) -> Any:
        record = source.version(version)
        return encode(swap(
            app_name(flow), record, timeout_s=30,
            record=(lambda: source.move("champion", version)) if move else None,
        ))  # fmt: skip

    class Caller:
        def call(self, version: str) -> Any:
            return do_swap(version)

    def from_actor(version: str) -> Any:
        actor = ray.remote(num_cpus=0, max_concurrency=2)(Caller).remote()
        return ray.get(actor.call.remote(version))

    tight = {"replicas": 1, "max_replicas": 2, "scale_up_after": timedelta(seconds=1), "max_wait_s": 0.02}
    beside = dataclasses.replace(flow.serving, route="/other", **tight)
    other = dataclasses.replace(flow, name="other", serving=beside)
    clash = dataclasses.replace(other, name="third")
    commands = {
        "deploy_other": lambda: deploy(other, source),
        "deploy_clash": lambda: deploy(clash, source),
        "undeploy_other": lambda: undeploy(other),
        "other_status": lambda: status(other),
        "swap": do_swap,
        "actor_swap": from_actor,
        "status": lambda: status(flow),
        "redeploy": lambda: deploy(flow, source),
        "undeploy": lambda: undeploy(flow),
    }
    up = {"url": deploy(flow, source), "metrics": metrics_port, "grpc": flow.serving.grpc_port}
    print(">>>", json.dumps(up), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"ok": commands[command.pop("do")](**command)}
        except Exception as err:  # noqa: BLE001 the test wants to see any error
            traceback.print_exc()
            answer = {"error": f"{type(err).__name__}: {err}"}
        print(">>>", json.dumps(answer, default=dataclasses.asdict), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
