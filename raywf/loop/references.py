"""What the monitor compares a version's answers with, from the registry and the snapshot's profile."""

from __future__ import annotations

import json
from dataclasses import dataclass

from raywf.core.settings import Workflow
from raywf.core.store import Store
from raywf.loop.expectations import read_expectations
from raywf.monitor.reference import Reference
from raywf.registry.registry import Registry
from raywf.snapshots.catalog import load_snapshot


@dataclass(frozen=True, slots=True)
class RegistryReferences:
    """Finds references by version; picklable."""

    workflow: Workflow
    registry: Registry

    def reference(self, version: str) -> Reference:
        """Return the version's reference.

        Raises:
            RegistryError: if there is no such version, or the registry cannot be reached.
        """
        store = Store(self.workflow.stores.root)
        found = self.registry.version(version)
        snapshot = load_snapshot(store, self.workflow.name, found.snapshot_id)
        bundle = self.registry.fetch(found, store.node_folder / "cache" / self.workflow.name)
        facts = json.loads((bundle / "bundle.json").read_text())
        return Reference(
            version=version,
            task=snapshot.task,
            classes=snapshot.classes,
            loss_scale=facts["loss_scale"],
            quantile=facts.get("quantile"),
            threshold=facts.get("threshold", 0.5),
            profile=snapshot.profile,
            maturity_s=snapshot.maturity_s,
            expectations=read_expectations(store, found.sweep_id),
        )
