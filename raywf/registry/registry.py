"""Model versions, their lineage and the aliases that say what serves."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.uri import append_to_uri_path

from raywf.core.clock import format_time, parse_time
from raywf.core.errors import NoVersionError, RegistryError
from raywf.core.records import Bundle, ModelVersion, Verdict
from raywf.core.settings import Workflow
from raywf.registry.client import connect, tracking_uri

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"

_LONGEST_TAG = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a bundle came from."""

    run_id: str
    sweep_id: str
    decision_id: str
    code_version: str
    parent: str | None
    cost_usd: float
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Registry:
    """One workflow's model versions in an MLflow store; picklable, opens its connection at each use."""

    workflow: str
    uri: str

    def register(self, bundle: Bundle, lineage: Lineage, verdict: Verdict) -> ModelVersion:
        """Make a version of a bundle; the same decision's same bundle is registered once.

        Raises:
            RegistryError: if the store cannot be written.
        """
        client = connect(self.uri)
        for known in self.versions():
            if known.decision_id == lineage.decision_id and known.digest == bundle.digest:
                return known
        _ensure_model(client, self.workflow)
        place = f"bundle-{bundle.digest[-12:]}"
        client.log_artifacts(lineage.run_id, bundle.uri, place)
        tags = {
            "raywf.digest": bundle.digest,
            "raywf.snapshot": bundle.snapshot_id,
            "raywf.sweep": lineage.sweep_id,
            "raywf.code": lineage.code_version,
            "raywf.decision": lineage.decision_id,
            "raywf.parent": lineage.parent or "",
            "raywf.cost_usd": repr(lineage.cost_usd),
            "raywf.metrics": json.dumps(lineage.metrics),
            "raywf.loss": repr(verdict.loss),
            "raywf.loss_rows": str(verdict.rows),
            "raywf.status": "registered",
            "raywf.verdict": f"{verdict.outcome}: {verdict.reason}"[:4000],
            "raywf.fitted_until": format_time(bundle.fitted_until) if bundle.fitted_until else "",
        }
        source = f"runs:/{lineage.run_id}/{place}"
        made = client.create_model_version(self.workflow, source, run_id=lineage.run_id, tags=tags)
        return self.version(made.version)

    def version(self, version: str) -> ModelVersion:
        """Return one version.

        Raises:
            RegistryError: if there is none of that number.
        """
        client = connect(self.uri)
        try:
            return _read(client.get_model_version(self.workflow, version))
        except MlflowException as err:
            known = ", ".join(v.version for v in self.versions()) or "none yet"
            raise RegistryError(f"no version {version!r} of {self.workflow!r}; known: {known}") from err

    def versions(self) -> tuple[ModelVersion, ...]:
        """Return all versions, oldest first."""
        client = connect(self.uri)
        found = client.search_model_versions(f"name='{self.workflow}'", max_results=1000)
        by_alias = self._aliases(client)
        made = [_read(v, by_alias) for v in found]
        return tuple(sorted(made, key=lambda v: int(v.version)))

    def resolve(self, alias: str) -> ModelVersion:
        """Return the version that an alias names.

        Raises:
            RegistryError: if the alias names none, or the store cannot be reached.
        """
        client = connect(self.uri)
        try:
            return _read(client.get_model_version_by_alias(self.workflow, alias))
        except MlflowException as err:
            if not _is_absence(err):
                raise RegistryError(f"the registry does not answer for {self.workflow!r}: {err}") from err
            raise NoVersionError(f"{self.workflow!r} has no {alias}; 'raywf run' makes a first one") from err

    def find(self, alias: str) -> ModelVersion | None:
        """Return the version that an alias names, or None where it names none.

        Raises:
            RegistryError: if the store cannot be reached.
        """
        try:
            return self.resolve(alias)
        except NoVersionError:
            return None

    def fetch(self, version: ModelVersion, folder: Path) -> Path:
        """Copy a version's bundle below `folder`; a complete copy that is there already is used.

        Raises:
            RegistryError: if the files cannot be read.
        """
        target = folder / f"{version.version}-{version.digest[-12:]}"
        if target.exists():
            return target
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".draft-{uuid.uuid4().hex}"
        try:
            draft.mkdir()
            mlflow.artifacts.download_artifacts(
                artifact_uri=self._place(version), dst_path=str(draft), tracking_uri=self.uri
            )
            (draft / version.uri.rpartition("/")[2]).rename(target)
        except RegistryError:
            raise
        except Exception as err:  # each kind of store raises errors of its own
            if not target.exists():
                raise RegistryError(f"bundle of version {version.version} cannot be fetched: {err}") from err
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return target

    def point(self, alias: str, version: str) -> None:
        """Let an alias name a version."""
        connect(self.uri).set_registered_model_alias(self.workflow, alias, version)

    def promote(self, version: str) -> ModelVersion:
        """Make a version the champion and the one before it `previous`; doing it again changes nothing.

        Raises:
            RegistryError: if there is no such version.
        """
        self.version(version)
        champion = self.find(CHAMPION)
        if champion is not None and champion.version != version:
            self.point(PREVIOUS, champion.version)
            self.mark(champion.version, "retired")
        self.point(CHAMPION, version)
        self.mark(version, "champion")
        return self.version(version)

    def forget_previous(self) -> None:
        """Let `previous` name none, so that a rollback cannot bring back what was rolled back."""
        connect(self.uri).delete_registered_model_alias(self.workflow, PREVIOUS)

    def mark(self, version: str, status: str, *, reason: str = "") -> None:
        """Record a version's place in its life, and why it came to that."""
        client = connect(self.uri)
        client.set_model_version_tag(self.workflow, version, "raywf.status", status)
        if reason:
            client.set_model_version_tag(self.workflow, version, "raywf.reason", reason[:_LONGEST_TAG])

    def _place(self, version: ModelVersion) -> str:
        """Return where the files are; MLflow's own way from a run to them asks the store several times."""
        if not version.uri.startswith("runs:/"):
            return version.uri
        run, _, place = version.uri.removeprefix("runs:/").partition("/")
        return str(append_to_uri_path(connect(self.uri).get_run(run).info.artifact_uri, place))

    def _aliases(self, client: Any) -> dict[str, tuple[str, ...]]:
        try:
            model = client.get_registered_model(self.workflow)
        except MlflowException:
            return {}
        named: dict[str, tuple[str, ...]] = {}
        for alias, version in model.aliases.items():
            named[str(version)] = (*named.get(str(version), ()), alias)
        return named


def open_registry(workflow: Workflow) -> Registry:
    """Return the workflow's registry, its store made where it was absent."""
    uri = tracking_uri(workflow)
    _ensure_model(connect(uri), workflow.name)
    return Registry(workflow.name, uri)


def code_version(folder: Path) -> str:
    """Return the git commit of a folder with ``-dirty`` where it has changes, or "unversioned"."""
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return f"{head[:12]}-dirty" if _git(folder, "status", "--porcelain") else head[:12]
    except (OSError, subprocess.SubprocessError):
        return "unversioned"


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()


def _is_absence(err: MlflowException) -> bool:
    return str(err.error_code) in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"}


def _ensure_model(client: Any, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as err:
        if "ALREADY_EXISTS" not in str(err.error_code):
            raise RegistryError(f"model {name!r} cannot be registered: {err}") from err


def _read(found: Any, by_alias: dict[str, tuple[str, ...]] | None = None) -> ModelVersion:
    tags = found.tags
    aliases: Iterable[str] = found.aliases or (by_alias or {}).get(str(found.version), ())
    until = tags.get("raywf.fitted_until", "")
    loss = float(tags.get("raywf.loss", "nan"))
    return ModelVersion(
        workflow=found.name,
        version=str(found.version),
        uri=found.source,
        digest=tags["raywf.digest"],
        run_id=found.run_id or "",
        status=tags.get("raywf.status", "registered"),
        snapshot_id=tags["raywf.snapshot"],
        sweep_id=tags["raywf.sweep"],
        code_version=tags["raywf.code"],
        parent=tags.get("raywf.parent") or None,
        decision_id=tags["raywf.decision"],
        metrics=json.loads(tags["raywf.metrics"]),
        loss=None if loss != loss else loss,
        loss_rows=int(tags.get("raywf.loss_rows", "0")),
        cost_usd=float(tags["raywf.cost_usd"]),
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        fitted_until=parse_time(until) if until else None,
        aliases=tuple(aliases),
    )
