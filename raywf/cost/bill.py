"""A cloud's billing export to what machines cost by day: AWS' cost and usage report, or FOCUS 1.x, as CSV.

The columns are those of docs.aws.amazon.com/cur and focus.finops.org. Files are read in blocks.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from math import isfinite
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from raywf.core.clock import parse_time
from raywf.core.errors import SettingsError

_Columns = dict[str, tuple[str, ...]]
_NEEDED: _Columns = {
    "start": ("lineItem/UsageStartDate", "line_item_usage_start_date", "ChargePeriodStart"),
    "resource": ("lineItem/ResourceId", "line_item_resource_id", "ResourceId"),
    "cost": ("lineItem/UnblendedCost", "line_item_unblended_cost", "EffectiveCost", "BilledCost"),
}
_OPTIONAL: _Columns = {
    "usage": ("lineItem/UsageType", "line_item_usage_type", "x_UsageType"),
    "machine": ("product/instanceType", "product_instance_type", "x_InstanceType"),
    "details": ("SkuPriceDetails",),
    "service": ("ServiceCategory",),
    "charge": ("lineItem/LineItemType", "line_item_line_item_type", "ChargeCategory"),
    "pricing": ("PricingCategory",),
    "currency": ("lineItem/CurrencyCode", "line_item_currency_code", "BillingCurrency"),
    "tags": ("Tags", "resource_tags"),
    "cluster": (
        *("resourceTags/user:raywf/cluster", "resource_tags_user_raywf_cluster"),
        *("resourceTags/user:ray-cluster-name", "resource_tags_user_ray_cluster_name"),
    ),
}
_TAGS = (
    "raywf/cluster",
    "user:raywf/cluster",
    "user_raywf_cluster",
    "ray-cluster-name",
    "user_ray_cluster_name",
)
_USED = {"", "Usage", "DiscountedUsage", "SavingsPlanCoveredUsage"}  # not taxes, fees, credits, commitments
_BOX = re.compile(r"(BoxUsage|SpotUsage|DedicatedUsage|HostBoxUsage)(?::(?P<machine>[\w.-]+))?")


@dataclass(frozen=True, slots=True, order=True)
class Charged:
    """What is charged alike: a machine's day, UTC; each is empty where the export does not tell."""

    day: str
    resource: str
    node_type: str
    spot: bool
    cluster: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """USD of machines; `columns` is which column was read for what, `other_usd` what is of no machine."""

    usd: dict[Charged, float]
    columns: dict[str, str]
    other_usd: float
    rows: int

    @property
    def tagged(self) -> bool:
        """Whether the export tells any cluster's name."""
        return any(charged.cluster for charged in self.usd)

    def days(self) -> tuple[str, str]:
        """Return the first and the last day on which a machine was charged.

        Raises:
            SettingsError: if none was.
        """
        if not self.usd:
            raise SettingsError("--bill: no line of it is the use of a machine")
        found = [charged.day for charged in self.usd]
        return min(found), max(found)

    def since(self, day: str) -> Bill:
        """Return the bill without what was charged before a day."""
        return replace(self, usd={charged: usd for charged, usd in self.usd.items() if charged.day >= day})


def read_bill(path: str) -> Bill:
    """Return what an export charges.

    Raises:
        SettingsError: if the file cannot be read, lacks a column or has a value that cannot be understood.
    """
    try:
        columns = _columns(path)
        usd: dict[Charged, float] = defaultdict(float)
        other, rows = 0.0, 0
        for row in _rows(path, columns):
            rows += 1
            if row.get("currency", "") not in {"", "USD"}:
                raise SettingsError(f"--bill: {Path(path).name} is in {row['currency']}; prices are in USD")
            charged, cost = _charged(row), _usd(row["cost"])
            if charged is None:
                other += cost
            else:
                usd[charged] += cost
    except (OSError, pa.ArrowInvalid, ValueError) as err:
        raise SettingsError(f"--bill: cannot read {path}: {str(err).splitlines()[0]}") from err
    return Bill(usd=dict(usd), columns=columns, other_usd=other, rows=rows)


def _columns(path: str) -> dict[str, str]:
    with csv.open_csv(path) as reader:
        header = set(reader.schema.names)
    known = {
        key: next((name for name in names if name in header), "")
        for key, names in (_NEEDED | _OPTIONAL).items()
    }
    missing = [f"{key} ({' or '.join(names)})" for key, names in _NEEDED.items() if not known[key]]
    if not any(known[key] for key in ("usage", "machine", "service")):
        names = (*_OPTIONAL["usage"][:2], *_OPTIONAL["machine"][:2], *_OPTIONAL["service"])
        missing.append(f"what is a machine ({' or '.join(names)})")
    if missing:
        raise SettingsError(
            f"--bill: {Path(path).name} has no column for {'; '.join(missing)}; "
            "an AWS cost and usage report or FOCUS 1.x as CSV has them"
        )
    return {key: name for key, name in known.items() if name}


def _rows(path: str, columns: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield each line as texts by what a column is for; a column that is not there is left out."""
    options = csv.ConvertOptions(
        include_columns=list(columns.values()),
        column_types=dict.fromkeys(columns.values(), pa.string()),
        strings_can_be_null=False,
    )
    with csv.open_csv(path, convert_options=options) as reader:
        for batch in reader:
            values = [column.to_pylist() for column in batch.columns]
            for row in zip(*values, strict=True):
                yield dict(zip(columns, row, strict=True))


def _charged(row: Mapping[str, str]) -> Charged | None:
    """Return what a line charges, or None where it is not the use of a machine."""
    box = _BOX.search(row.get("usage", ""))
    machine = row.get("machine") or (box["machine"] if box else "") or _detail(row.get("details", "")) or ""
    used = row["resource"] and row.get("charge", "") in _USED
    if not used or not (box or _is_machine(row, machine)):
        return None
    spot = (box is not None and box[1] == "SpotUsage") or row.get("pricing") == "Dynamic"
    day = f"{parse_time(row['start']).astimezone(UTC):%Y-%m-%d}"
    return Charged(
        day, _short(row["resource"]), machine, spot, row.get("cluster") or _tag(row.get("tags", ""))
    )


def _is_machine(row: Mapping[str, str], machine: str) -> bool:
    """Return whether a line is of a machine though its usage type, if there is one, does not say so."""
    if "service" in row:
        return row["service"] == "Compute" and (bool(machine) or "usage" not in row)
    return bool(machine) and "usage" not in row


def _usd(text: str) -> float:
    usd = float(text or 0)
    if not isfinite(usd):
        raise ValueError(f"a cost is {text!r}")
    return usd


def _short(resource: str) -> str:
    """Return a machine's id without what stands before it: an ARN, or a path as Azure and Google have it."""
    return resource.rsplit("/", 1)[-1]


def _detail(text: str) -> str:
    return str(_object(text).get("InstanceType") or "")


def _tag(text: str) -> str:
    tags = _object(text)
    return next((str(tags[name]) for name in _TAGS if tags.get(name)), "")


def _object(text: str) -> Mapping[str, object]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
