"""MLflow's client for one store, quiet, and its experiment."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from raywf.core.errors import RegistryError
from raywf.core.settings import Workflow
from raywf.core.store import Store

_LONGEST_REASON = 300  # characters


def tracking_uri(workflow: Workflow) -> str:
    """Return `stores.mlflow`, or SQLite below the root.

    Raises:
        RegistryError: if that is an object store, which holds no database.
    """
    if not workflow.stores.mlflow and not Store(workflow.stores.root).is_local:
        raise RegistryError(
            f"stores.mlflow: beside stores.root {workflow.stores.root} name MLflow's server or database, "
            "such as http://mlflow:5000 or postgresql://..."
        )
    return workflow.stores.mlflow or f"sqlite:///{workflow.stores.root}/mlflow.db"


@lru_cache(maxsize=8)
def connect(uri: str) -> Any:
    """Return this process' client of a store; a new SQLite store gets its folder.

    Raises:
        RegistryError: if the store cannot be opened.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # MLflow's own patience, two minutes, would hold up a replica that can start from its cache.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking", "mlflow.utils"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    except Exception as err:  # SQLAlchemy, HTTP and MLflow each raise their own
        reason = _shown(str(err))
        if isinstance(err, ModuleNotFoundError) and str(err.name).startswith("psycopg"):
            reason = f"{reason}; pip install 'raywf[postgres]'"
        raise RegistryError(f"MLflow store {_shown(uri)} cannot be reached: {reason}") from err
    return client


@contextmanager
def refusals(uri: str, what: str) -> Iterator[None]:
    """Turn what MLflow refuses into the registry's error, in one line that says what it was to do.

    Raises:
        RegistryError: if MLflow raises.
    """
    try:
        yield
    except MlflowException as err:
        reason = " ".join(_shown(str(err)).split())[:_LONGEST_REASON]
        raise RegistryError(f"MLflow store {_shown(uri)} did not {what}: {reason}") from err


def _shown(text: str) -> str:
    """Return a text without the secrets of its addresses."""
    return re.sub(r"//[^@/\s]*@", "//***@", text)


def experiment_id(client: Any, name: str, artifacts: str) -> str:
    """Return the experiment's id, made if absent; two processes at once agree."""
    found: Experiment | None = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:
            found = client.get_experiment_by_name(name)
    if found is None:
        raise RegistryError(f"MLflow experiment {name!r} cannot be made")
    return str(found.experiment_id)
