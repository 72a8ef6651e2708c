"""Billing exports read, and compared with the bill that a node history gives."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import fsum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.errors import SettingsError
from raywf.core.records import NodeSpan
from raywf.core.settings import CostSettings
from raywf.cost.bill import Bill, Charged, read_bill
from raywf.cost.nodes import price_nodes
from raywf.cost.reconcile import Reconciled, by_kind, reconcile
from raywf.cost.split import Use, split

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
COST = CostSettings(cloud="aws", region="us-east-1")
CUR = {
    "lineItem/UsageStartDate": "2026-03-01T12:00:00Z",
    "lineItem/ResourceId": "i-1",
    "lineItem/UnblendedCost": "0.5",
    "lineItem/UsageType": "BoxUsage:m7i.2xlarge",
    "lineItem/LineItemType": "Usage",
    "product/instanceType": "m7i.2xlarge",
}
FOCUS = {
    "ChargePeriodStart": "2026-03-01T12:00:00Z",
    "ResourceId": "arn:aws:ec2:us-east-1:1:instance/i-1",
    "BilledCost": "0",
    "EffectiveCost": "0.5",
    "ServiceCategory": "Compute",
    "ChargeCategory": "Usage",
    "PricingCategory": "Dynamic",
    "SkuPriceDetails": '{"InstanceType": "m7i.2xlarge"}',
    "Tags": '{"raywf/cluster": "ours"}',
}


def write(folder: Path, lines: Sequence[Mapping[str, str]]) -> str:
    path = folder / "bill.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return str(path)


def span(name: str, start: float, hours: float, **given: object) -> NodeSpan:
    """Return a node that came so many hours after noon, and stayed."""
    at = NOON + timedelta(hours=start)
    fields: dict[str, object] = {"cpus": 8.0, "node_type": "m7i.2xlarge", "region": "us-east-1", **given}
    return NodeSpan(node_id=name, start=at, end=at + timedelta(hours=hours), **fields)  # type: ignore[arg-type]


def compare(spans: Sequence[NodeSpan], bill: Bill, cluster: str = "ours") -> Reconciled:
    return reconcile(split(price_nodes(spans, COST), ()).shares, bill, cluster=cluster)


def billed(usd: Mapping[Charged, float]) -> Bill:
    return Bill(usd=dict(usd), columns={}, other_usd=0.0, rows=len(usd))


HISTORY = [
    span("head", 0, 60, cpus=0.0, node_type="m7i.large", pool="system"),
    span("serve", 0.5, 59, pool="serve", node_type="m7i.xlarge", cpus=4.0, resource_id="i-serve"),
    *(span(f"spot-{i}", 2 + 7 * i, 3 + i / 2, pool="train", spot=True) for i in range(7)),
    span("od-1", 20, 6.25, pool="train"),
    span("od-2", 31.5, 1.75, pool="train"),
]


def cloud_lines(late_s: float) -> list[dict[str, str]]:
    """Return what a cloud bills for the history by the hour: a machine runs before Ray has it as a node."""
    prices = {"m7i.large": (0.1008, 0.038), "m7i.xlarge": (0.2016, 0.077), "m7i.2xlarge": (0.4032, 0.15)}
    lines = []
    for number, node in enumerate(HISTORY):
        at, usd = node.start - timedelta(seconds=late_s), prices[node.node_type][node.spot]
        while at < node.end:
            stop = min(node.end, at.replace(minute=0, second=0) + timedelta(hours=1))
            cost = usd * (stop - at).total_seconds() / 3600
            kind = "SpotUsage" if node.spot else "BoxUsage"
            lines.append(
                CUR
                | {
                    "lineItem/UsageStartDate": f"{at.replace(minute=0, second=0):%Y-%m-%dT%H:%M:%SZ}",
                    "lineItem/ResourceId": node.resource_id or f"i-{number}",
                    "lineItem/UnblendedCost": f"{cost:.10f}",
                    "lineItem/UsageType": f"{kind}:{node.node_type}",
                    "product/instanceType": node.node_type,
                }
            )
            at = stop
    disk = {"lineItem/UsageType": "EBS:VolumeUsage.gp3", "product/instanceType": ""}
    return [*lines, CUR | disk, CUR | {"lineItem/LineItemType": "Tax"}]


def test_a_recorded_history_comes_to_the_bill(tmp_path: Path) -> None:
    """Spot and on-demand nodes that come and go, a minute of boot each: within one per cent, all allotted."""
    uses = [
        Use(
            purpose="trial",
            workflow="w",
            start=NOON + timedelta(hours=3 * i),
            end=NOON + timedelta(hours=3 * i + 2.5),
            cpus=10.0,
            pool="train",
        )
        for i in range(18)
    ]
    found = split(price_nodes(HISTORY, COST), uses)
    both = reconcile(found.shares, read_bill(write(tmp_path, cloud_lines(60))), cluster="ours")
    assert both.difference == pytest.approx(0, abs=0.01)
    assert both.difference != 0
    assert fsum(s.usd for s in found.shares) == pytest.approx(both.billed_usd, rel=0.01)
    assert {s.part for s in found.shares if s.usd} == {"trial", "idle", "system"}
    assert both.only_reckoned == both.only_billed == ()
    assert {pair.by for pair in both.pairs} == {"id", "type"}
    assert {kind[0] for kind in by_kind(both.pairs)} == {
        "m7i.large on demand",
        "m7i.xlarge on demand",
        "m7i.2xlarge on demand",
        "m7i.2xlarge spot",
    }


def test_a_cur_line_is_read(tmp_path: Path) -> None:
    """Machines alone: disks, taxes and what has no id are other money."""
    lines = [
        CUR,
        CUR | {"lineItem/UsageType": "USE1-SpotUsage:m7i.large", "product/instanceType": ""},
        CUR | {"lineItem/UsageType": "USE1-EBS:VolumeUsage.gp3"},
        CUR | {"lineItem/LineItemType": "Tax"},
        CUR | {"lineItem/ResourceId": ""},
    ]
    bill = read_bill(write(tmp_path, lines))
    assert bill.usd == {
        Charged("2026-03-01", "i-1", "m7i.2xlarge", False, ""): 0.5,
        Charged("2026-03-01", "i-1", "m7i.large", True, ""): 0.5,
    }
    assert (bill.other_usd, bill.rows, bill.columns["cost"]) == (1.5, 5, "lineItem/UnblendedCost")


def test_a_focus_line_is_read(tmp_path: Path) -> None:
    """By what it costs, not what is paid today; the id is an ARN's end, the cluster a tag."""
    bill = read_bill(write(tmp_path, [FOCUS, FOCUS | {"ServiceCategory": "Storage"}]))
    assert bill.usd == {Charged("2026-03-01", "i-1", "m7i.2xlarge", True, "ours"): 0.5}
    assert bill.columns["cost"] == "EffectiveCost"
    assert bill.other_usd == 0.5


def test_a_long_gzipped_export_is_read(tmp_path: Path) -> None:
    """Of several blocks; whole days of a machine are summed, and days before the history can be left out."""
    lines = [
        CUR | {"lineItem/UsageStartDate": f"2026-03-{1 + n % 2:02d}T{n % 24:02d}:00:00Z"}
        for n in range(30_000)
    ]
    plain = Path(write(tmp_path, lines))
    assert plain.stat().st_size > 2_000_000
    zipped = tmp_path / "bill.csv.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes(), 1))
    bill = read_bill(str(zipped))
    assert bill.days() == ("2026-03-01", "2026-03-02")
    assert [round(usd) for usd in bill.usd.values()] == [7500, 7500]
    assert list(bill.since("2026-03-02").usd) == [Charged("2026-03-02", "i-1", "m7i.2xlarge", False, "")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            [{"day": "1", "usd": "2"}],
            r"bill.csv has no column for start \(lineItem/UsageStartDate or .*; cost",
        ),
        (
            [{k: v for k, v in CUR.items() if "Cost" not in k}],
            r"no column for cost \(lineItem/UnblendedCost or",
        ),
        ([{k: FOCUS[k] for k in list(FOCUS)[:4]}], r"no column for what is a machine"),
        ([FOCUS | {"EffectiveCost": "dear"}], r"cannot read .*: could not convert string to float: 'dear'"),
        ([FOCUS | {"EffectiveCost": "nan"}], r"cannot read .*: a cost is 'nan'"),
        ([FOCUS | {"BillingCurrency": "EUR"}], r"is in EUR; prices are in USD"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, lines: list[dict[str, str]], message: str) -> None:
    """In one line that says what is missing."""
    with pytest.raises(SettingsError, match=message) as caught:
        read_bill(write(tmp_path, lines))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """In one line."""
    with pytest.raises(SettingsError, match="--bill: cannot read"):
        read_bill(str(tmp_path / "none.csv"))


def test_an_id_goes_before_the_type() -> None:
    """The same type under another id is of somebody else, once each of ours is known by its id."""
    bill = billed(
        {
            Charged("2026-03-01", "i-1", "m7i.2xlarge", False, ""): 0.9,
            Charged("2026-03-01", "i-9", "m7i.2xlarge", False, ""): 5.0,
        }
    )
    found = compare([span("a", 0, 2, resource_id="i-1")], bill)
    (pair,) = found.pairs
    assert (pair.by, pair.billed_usd) == ("id", 0.9)
    assert pair.reckoned_usd == pytest.approx(0.8064)
    assert found.elsewhere_usd == 5.0
    assert found.difference == pytest.approx(0.8064 / 0.9 - 1)


def test_tags_tell_whose_it_is() -> None:
    """With tags, another cluster's machine is not ours, and ours is even where none was seen."""
    bill = billed(
        {
            Charged("2026-03-01", "i-1", "m7i.2xlarge", False, "ours"): 0.8,
            Charged("2026-03-01", "i-2", "m7i.2xlarge", False, "theirs"): 7.0,
            Charged("2026-03-02", "i-3", "m7i.large", False, "ours"): 0.1,
        }
    )
    found = compare([span("a", 0, 2)], bill)
    assert [pair.billed_usd for pair in found.pairs] == [0.8]
    assert [(pair.day, pair.billed_usd) for pair in found.only_billed] == [("2026-03-02", 0.1)]
    assert found.elsewhere_usd == 7.0
    assert found.billed_usd == pytest.approx(0.9)


@given(
    usd=st.dictionaries(
        st.builds(
            Charged,
            st.sampled_from(["2026-03-01", "2026-03-02"]),
            st.sampled_from(["i-1", "i-2", "i-3"]),
            st.sampled_from(["m7i.large", "m7i.2xlarge", ""]),
            st.booleans(),
            st.sampled_from(["", "ours", "theirs"]),
        ),
        st.floats(-1, 100),
        max_size=8,
    ),
    ids=st.lists(st.sampled_from(["i-1", "i-2", ""]), max_size=4),
)
def test_no_money_is_lost_on_either_side(usd: dict[Charged, float], ids: list[str]) -> None:
    """Whatever matches: all that was reckoned and all that was billed is told, once."""
    spans = [span(f"n{i}", 5 * i, 4, resource_id=name, spot=i % 2 == 0) for i, name in enumerate(ids)]
    whole = split(price_nodes(spans, COST), ()).usd
    found = compare(spans, billed(usd))
    assert found.reckoned_usd == pytest.approx(whole, abs=1e-9)
    assert found.billed_usd + found.elsewhere_usd == pytest.approx(fsum(usd.values()), abs=1e-9)


def test_what_was_not_billed_is_told() -> None:
    """A node of a type that no line has."""
    found = compare([span("a", 0, 2)], billed({Charged("2026-03-01", "i", "m7i.large", False, ""): 1.0}))
    assert [pair.node_type for pair in found.only_reckoned] == ["m7i.2xlarge"]
    assert (found.elsewhere_usd, found.difference) == (1.0, None)
