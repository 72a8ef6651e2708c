"""Jobs on the workflow's cluster through the Ray Jobs API: submit once, look, read, stop, take up again."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util.state import list_nodes
from ray.util.state.common import NodeState
from ray.util.state.exception import RayStateApiException

from raywf.core.errors import JobError
from raywf.core.journal import BY_HAND, Journal
from raywf.core.loader import dump_workflow
from raywf.core.niceness import TRAINING, yield_cpu
from raywf.core.own import read_code
from raywf.core.pools import selector
from raywf.core.settings import Workflow
from raywf.core.store import Store
from raywf.loop.job_log import folder_of, read_kept
from raywf.loop.local import cluster_address, find_local

ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
_AWAY = (RuntimeError, OSError)  # what the client raises; requests' errors are OSErrors
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": "20",
}
_DECISION = "--decision"
_MOST_NODES = 10_000  # that Ray lists at once
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
        path, store = f"{folder_of(job_id)}.json", Store(self._workflow.stores.root)
        store.write(path, dump_workflow(_shipped(self._workflow)).encode())
        return self._enter(_Asked(kind=kind, settings=path, arguments=arguments), job_id)

    def resume(self, job_id: str) -> str:
        """Submit a job again that has ended, with the settings and arguments it had; return the new job's id.

        What it had finished is found in the store and not done again.

        Raises:
            JobError: if no such job was submitted, if it goes on still or succeeded, or if it carries out a
                decision of the controller, which tries again by itself.
        """
        store, again = Store(self._workflow.stores.root), 0
        if not store.exists(_asked_path(job_id)):
            raise JobError(f"job {job_id!r} cannot be taken up: nothing is known of it in the store")
        asked = _Asked(**json.loads(store.read(_asked_path(job_id))))
        self._require_by_hand(job_id, asked)
        first, last = asked.first or job_id, asked.first or job_id
        while store.exists(_asked_path(f"{first}-again-{again + 1}")):
            again += 1
            last = f"{first}-again-{again}"
        status = self.status(last)
        if status not in ENDED | {"UNKNOWN"}:
            raise JobError(f"job {last!r} is {status}: stop it first, or wait for its end")
        if status == "SUCCEEDED":
            raise JobError(f"job {last!r} has succeeded: nothing is left to do")
        new_id = f"{first}-again-{again + 1}"
        if not self._enter(replace(asked, first=first), new_id):
            raise JobError(f"job {new_id!r} was submitted by somebody else meanwhile")
        return new_id

    def _require_by_hand(self, job_id: str, asked: _Asked) -> None:
        if _DECISION not in asked.arguments[:1]:
            return
        made = Journal(self._workflow.stores.root, self._workflow.name).decision(asked.arguments[1])
        if made is not None and made.cause != BY_HAND:
            raise JobError(
                f"job {job_id!r} carries out a decision of the controller, which tries again by itself: "
                f"'raywf retrain' asks it for another retraining"
            )

    def _enter(self, asked: _Asked, job_id: str) -> bool:
        store = Store(self._workflow.stores.root)
        store.write(_asked_path(job_id), json.dumps(asdict(asked)).encode())
        python = "python" if self._workflow.cluster.address else sys.executable
        words = ["nice", "-n", str(TRAINING), python, "-m", f"jobs.{asked.kind}"]
        try:
            client = self._connected()
            client.submit_job(
                entrypoint=shlex.join([*words, store.uri(asked.settings), *asked.arguments]),
                submission_id=job_id,
                runtime_env={"env_vars": _ENVIRONMENT, "worker_process_setup_hook": _HOOK},
                metadata={"raywf.workflow": self._workflow.name, "raywf.kind": asked.kind},
                entrypoint_label_selector=self._driver_nodes(client.get_address()),
            )
        except _AWAY as err:
            # the server answers 500 with this text, see ray/dashboard/modules/job/job_head.py
            if "already exists" in str(err):
                return False
            raise JobError(f"job {job_id} was not accepted: {err}") from err
        return True

    def _driver_nodes(self, address: str) -> dict[str, str] | None:
        """Return the labels of the nodes that a driver may run on, or None to let Ray put it on the head.

        So it does where no node has them, since a job would wait a quarter of an hour for one, and fail.
        """
        wanted = selector("system", labelled=self._workflow.cluster.pools)
        if wanted and any(wanted.items() <= node.labels.items() for node in _alive_nodes(address)):
            return wanted
        return None

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
        """Return what the job has printed: from its node, or from the store where that is gone.

        Raises:
            JobError: if there is no such job.
        """
        try:
            return self._logs_of_node(job_id)
        except (*_AWAY, JobError) as err:
            kept = self._kept(job_id)
            if kept is not None:
                return kept
            raise JobError(f"no logs of job {job_id!r}: {err}") from err

    def _logs_of_node(self, job_id: str) -> str:
        client = self._connected()
        node, alive = client.get_job_info(job_id).driver_node_id, _alive_nodes(client.get_address())
        if node is not None and alive and all(other.node_id != node for other in alive):
            raise JobError(f"its node {node} is gone")  # which Ray would ask for minutes
        text = str(client.get_job_logs(job_id))
        return text or self._kept(job_id) or ""

    def _kept(self, job_id: str) -> str | None:
        try:
            return read_kept(self._workflow, job_id)
        except OSError:  # the store is away too
            return None

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What a job was asked to do; `first` is the job that it takes up, `settings` a path in the store."""

    kind: str
    settings: str
    arguments: Sequence[str] = ()
    first: str = ""


def _asked_path(job_id: str) -> str:
    return f"{folder_of(job_id)}/job.json"


def _alive_nodes(address: str) -> Sequence[NodeState]:
    """Return the cluster's live nodes, or none where it does not tell them."""
    try:
        found: Sequence[NodeState] = list_nodes(
            address, filters=[("state", "=", "ALIVE")], limit=_MOST_NODES, raise_on_missing_output=False
        )
    except (RayStateApiException, *_AWAY):
        return ()
    return found


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
