"""Jobs on the workflow's cluster through the Ray Jobs API: submit once, look, read, stop."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient

from raywf.core.errors import JobError
from raywf.core.loader import dump_workflow
from raywf.core.niceness import TRAINING, yield_cpu
from raywf.core.own import read_code
from raywf.core.settings import Workflow
from raywf.core.store import Store
from raywf.loop.local import cluster_address, find_local

ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
_AWAY = (RuntimeError, OSError)  # what the client raises; requests' errors are OSErrors
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": "20",
}
_HOOK = f"{yield_cpu.__module__}.{yield_cpu.__name__}"  # each worker of a job gives way to the replicas


class Jobs:
    """The jobs of one workflow. From a process of the cluster itself no address is needed."""

    def __init__(self, workflow: Workflow) -> None:
        self._workflow = workflow
        self._client: Any = None

    def submit(self, kind: str, job_id: str, *arguments: str) -> bool:
        """Submit ``python -m jobs.<kind>``; return False if a job of that id was submitted before.

        The resolved settings travel as a file in the store, and so does Python of the user's own.

        Raises:
            JobError: if the cluster refuses.
        """
        path, store = f"jobs/{job_id}.json", Store(self._workflow.stores.root)
        store.write(path, dump_workflow(_shipped(self._workflow)).encode())
        python = "python" if self._workflow.cluster.address else sys.executable
        words = ["nice", "-n", str(TRAINING), python, "-m", f"jobs.{kind}", store.uri(path), *arguments]
        try:
            self._connected().submit_job(
                entrypoint=shlex.join(words),
                submission_id=job_id,
                runtime_env={"env_vars": _ENVIRONMENT, "worker_process_setup_hook": _HOOK},
                metadata={"raywf.workflow": self._workflow.name, "raywf.kind": kind},
            )
        except _AWAY as err:
            # the server answers 500 with this text, see ray/dashboard/modules/job/job_head.py
            if "already exists" in str(err):
                return False
            raise JobError(f"job {job_id} was not accepted: {err}") from err
        return True

    def status(self, job_id: str) -> str:
        """Return PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED, or UNKNOWN where there is no such job."""
        try:
            return str(JobStatus(self._connected().get_job_status(job_id)).value)
        except _AWAY as err:
            if "does not exist" in str(err):
                return "UNKNOWN"
            raise JobError(f"job {job_id}: {err}") from err

    def list(self) -> tuple[tuple[str, str], ...]:
        """Return (id, status) of this workflow's jobs.

        Raises:
            JobError: if the cluster does not answer.
        """
        try:
            found = self._connected().list_jobs()
        except _AWAY as err:
            raise JobError(f"the jobs cannot be listed: {err}") from err
        mine = [j for j in found if (j.metadata or {}).get("raywf.workflow") == self._workflow.name]
        mine.sort(key=lambda j: j.start_time or 0)
        return tuple((j.submission_id, str(j.status.value)) for j in mine)

    def logs(self, job_id: str) -> str:
        """Return what the job has printed.

        Raises:
            JobError: if there is no such job.
        """
        try:
            return str(self._connected().get_job_logs(job_id))
        except _AWAY as err:
            raise JobError(f"no logs of job {job_id!r}: {err}") from err

    def follow(self, job_id: str, write: Callable[[str], None]) -> None:
        """Hand the job's output to `write` as it comes, until it ends."""

        async def tail() -> None:
            async for text in self._connected().tail_job_logs(job_id):
                write(text)

        asyncio.run(tail())
        while self.status(job_id) not in ENDED:
            time.sleep(0.2)

    def stop(self, job_id: str) -> bool:
        """Ask a job to stop; return whether it was running.

        Raises:
            JobError: if there is no such job.
        """
        try:
            return bool(self._connected().stop_job(job_id))
        except _AWAY as err:
            raise JobError(f"job {job_id!r} cannot be stopped: {err}") from err

    def _connected(self) -> Any:
        if self._client is None:
            local = find_local(self._workflow)
            address = cluster_address(self._workflow)
            if local is not None and address is None:
                os.environ.update(local.environ)
                address = local.dashboard
            try:
                self._client = JobSubmissionClient(address)
            except (OSError, RuntimeError, ValueError, RayError) as err:  # requests' errors are OSErrors
                reason = str(err).strip().partition("\n")[0]
                hint = "is 'raywf serve up' done?" if address is None else f"cluster.address is {address!r}"
                raise JobError(f"the cluster's jobs cannot be reached: {reason}; {hint}") from err
        return self._client


def _shipped(workflow: Workflow) -> Workflow:
    """Return the settings with the user's own Python in the store, where every node sees it."""
    store = Store(workflow.stores.root)

    def ship(settings: Any) -> Any:
        code = read_code(settings.code)
        path = f"code/{code.digest}/{code.file}"
        store.create(path, code.source.encode())
        return replace(settings, code=f"{store.uri(path)}:{code.name}")

    models = {name: ship(model) for name, model in workflow.search.models.items()}
    metrics = {name: ship(metric) for name, metric in workflow.metrics.items()}
    return replace(workflow, search=replace(workflow.search, models=models), metrics=metrics)


def workflow_file(argument: str) -> Path:
    """Return a local copy of the settings file that a job was given as path or URI."""
    if "://" not in argument:
        return Path(argument)
    folder, _, name = argument.rpartition("/")
    local = Path(tempfile.mkdtemp(prefix="raywf-")) / name
    local.write_bytes(Store(folder).read(name))
    return local
