"""Serves a bundle by raywf on its own cluster until stdin ends: ``raywf_driver.py BUNDLE FOLDER SYNC``."""

import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from raywf.core.serving_settings import ServingSettings
from raywf.core.settings import SpineSettings, StoreSettings, Workflow
from raywf.models.bundle import load_bundle
from raywf.serving.environment import free_ports, serve_env
from raywf.serving.keys import Caller, KeyBook
from raywf.testing import FolderSource


def main() -> None:
    folder = Path(tempfile.mkdtemp(dir=sys.argv[2]))
    source = FolderSource(str(folder / "registry"))
    source.add(load_bundle(Path(sys.argv[1])).bundle, version="1")
    source.move("champion", "1")
    workflow = Workflow(
        name="bench",
        task="binary",
        spine=SpineSettings(path="none.csv", label="late"),
        serving=ServingSettings(port=free_ports(1)[0], replicas=1, sync=sys.argv[3]),
        stores=StoreSettings(root=str(folder / "root")),
    )
    book = KeyBook(workflow.stores.root, workflow.name)
    key = book.add(Caller(name="bench", scopes=("predict",)), now=datetime.now(UTC))
    os.environ.update(serve_env(workflow.serving))
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray

    from raywf.serving.deploy import deploy

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    print(">>>", json.dumps({"url": deploy(workflow, source), "key": key}), flush=True)
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main()
