"""The price table: the package's rows, the user's file before them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from raywf.core.errors import SettingsError
from raywf.cost.table import NodeType, find_node_type, load_table, read_prices

HEADER = "node_type,vcpus,usd_per_hour"


def test_packaged_rows_are_whole() -> None:
    """Each names its place, has memory and a spot price below the one on demand; none is there twice."""
    table = load_table()
    keys = [(row.cloud, row.region, row.node_type) for row in table]
    assert len(set(keys)) == len(keys) > 100
    for row in table:
        assert all((row.cloud, row.region, row.date, row.memory_gib)), row
        assert row.spot_usd_per_hour is not None
        assert 0 < row.spot_usd_per_hour < row.usd_per_hour, row
        assert (row.gpus > 0) == bool(row.gpu), row


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_a_vcpu_costs_what_a_vcpu_costs(cloud: str) -> None:
    """Prices per vCPU of nodes without GPUs lie close together: a slipped digit shows."""
    each = [row.usd_per_hour / row.vcpus for row in load_table() if row.cloud == cloud and not row.gpus]
    assert 0.03 < min(each) <= max(each) < 0.09


@pytest.mark.parametrize(
    ("node_type", "region", "usd"),
    [("m7i.xlarge", None, 0.2016), ("m7i.xlarge", "eu-central-1", 0.2415), ("a2-highgpu-1g", None, 3.67339)],
)
def test_a_node_type_is_found(node_type: str, region: str | None, usd: float) -> None:
    """Without a region it is the first of the table."""
    assert find_node_type(load_table(), node_type, region=region).usd_per_hour == usd


def test_own_rows_go_first(tmp_path: Path) -> None:
    """The user's price of a known node type holds in every region, and a type of their own is known."""
    file = tmp_path / "prices.csv"
    file.write_text(f"# ours\n\n{HEADER},gpus\nm7i.xlarge,4,0.1,\nrack-7,64,0.5,2\n")
    table = load_table(str(file))
    assert find_node_type(table, "m7i.xlarge", cloud="aws", region="eu-central-1").usd_per_hour == 0.1
    assert find_node_type(table, "rack-7", region="cellar") == NodeType(
        node_type="rack-7", vcpus=64, usd_per_hour=0.5, gpus=2
    )


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"node_type": "m7i.3xlarge"}, r"no price of 'm7i.3xlarge', .* did you mean 'm7i.xlarge'\?"),
        ({"node_type": "mainframe"}, r"'mainframe', .*; known: \d+ node types such as .*m7i.large"),
        (
            {"node_type": "m7i.large", "region": "eu-centrall-1"},
            r"m7i.large in 'eu-centrall-1', .*did you mean 'eu-central-1'",
        ),
        ({"node_type": "m7i.large", "cloud": "gpc"}, r"cost.cloud: no prices of 'gpc'; did you mean 'gcp'"),
        ({"node_type": "m7i.large", "cloud": "gcp"}, r"cost.node_type: no price of 'm7i.large'"),
    ],
)
def test_an_unknown_name_is_refused(wanted: dict[str, str], message: str) -> None:
    """With the nearest known one."""
    with pytest.raises(SettingsError, match=message):
        find_node_type(load_table(), **wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"p.csv: no prices; its first line names columns"),
        ("# only this", r"p.csv: no prices"),
        (f"{HEADER},regoin\na,1,1,x", r"p.csv line 1: unknown column 'regoin'; did you mean 'region'"),
        ("node_type,vcpus\na,1", r"line 1: missing column 'usd_per_hour'"),
        (f"# ours\n{HEADER}\na,1", r"line 3: expected 3 values, got 2"),
        (f"{HEADER}\na,,1", r"line 2: vcpus is empty"),
        (f"{HEADER}\na,0,1", r"line 2: vcpus must be a number of at least 1, got '0'"),
        (f"{HEADER}\na,2,cheap", r"line 2: usd_per_hour must be a number of at least 0, got 'cheap'"),
        (f"{HEADER}\na,2,-1", r"line 2: usd_per_hour must be .* got '-1'"),
        (f"{HEADER}\na,2,nan", r"line 2: usd_per_hour must be .* got 'nan'"),
    ],
)
def test_a_broken_file_is_refused(text: str, message: str) -> None:
    """With its line and what was expected there."""
    with pytest.raises(SettingsError, match=message):
        read_prices(text, name="p.csv")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """It is the setting that is wrong."""
    with pytest.raises(SettingsError, match=r"cost.prices: cannot read .*none.csv"):
        load_table(str(tmp_path / "none.csv"))
