"""Settings to a rate: which price holds, and what a node with GPUs comes to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.codec import DecodeError
from raywf.core.errors import SettingsError
from raywf.core.loader import load_workflow
from raywf.core.records import Rate
from raywf.core.settings import CostSettings
from raywf.cost.rate import resolve_rate

HOUR = 3600.0
SECONDS = st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("cost", "usd", "basis"),
    [
        (CostSettings(), 0.0504, "m7i.xlarge on demand, aws us-east-1"),
        (
            CostSettings(node_type="m7i.2xlarge", region="us-west-2"),
            0.0504,
            "m7i.2xlarge on demand, aws us-west",
        ),
        (
            CostSettings(node_type="m7i.xlarge", spot=True),
            0.077 / 4,
            "m7i.xlarge spot, aws us-east-1, typical",
        ),
        (CostSettings(discount=0.25), 0.0378, ", less 25%"),
        (CostSettings(cloud="gcp"), 0.19424 / 4, "n2-standard-4 on demand, gcp us-central1"),
        (CostSettings(usd_per_cpu_hour=0.03, node_type="m7i.xlarge"), 0.03, "cost.usd_per_cpu_hour; m7i"),
        (CostSettings(usd_per_cpu_hour=0.03, discount=0.5), 0.03, "cost.usd_per_cpu_hour"),
    ],
)
def test_a_cpu_has_a_price(cost: CostSettings, usd: float, basis: str) -> None:
    """One's own goes before the node type's, that before a general node's; the basis tells which."""
    rate = resolve_rate(cost)
    assert rate.usd_per_cpu_hour == pytest.approx(usd)
    assert basis in rate.basis


def test_the_larger_share_of_a_gpu_node_is_charged() -> None:
    """A g5.2xlarge has 8 vCPUs and one GPU, at 1.212 an hour: either of them whole is the node whole."""
    rate = resolve_rate(CostSettings(node_type="g5.2xlarge"))
    assert rate.usd(cpu_s=8 * HOUR) == pytest.approx(1.212)
    assert rate.usd(cpu_s=8 * HOUR, gpu_s=HOUR) == pytest.approx(1.212)
    assert rate.usd(cpu_s=2 * HOUR, gpu_s=0.5 * HOUR) == pytest.approx(0.606)


@pytest.mark.parametrize("own", [{"usd_per_cpu_hour": 0.05}, {"usd_per_gpu_hour": 0.8}])
def test_the_other_resource_costs_what_is_left(own: dict[str, float]) -> None:
    """With an own price of one, the two add up to the node's price."""
    rate = resolve_rate(CostSettings(node_type="g5.2xlarge", **own))  # type: ignore[arg-type]
    assert rate.usd(cpu_s=8 * HOUR, gpu_s=HOUR) == pytest.approx(1.212)
    assert rate.usd(cpu_s=8 * HOUR) < 1.212


@given(parts=st.lists(st.tuples(SECONDS, SECONDS), max_size=5), larger_share=st.booleans())
def test_parts_never_cost_less_than_the_whole(parts: list[tuple[float, float]], larger_share: bool) -> None:
    """Two bills are at least one bill of both, and equal to it where the resources add up."""
    rate = Rate(usd_per_cpu_hour=0.05, usd_per_gpu_hour=1.0, larger_share=larger_share)
    bills = sum(rate.usd(cpu_s=c, gpu_s=g) for c, g in parts)
    whole = rate.usd(cpu_s=sum(c for c, _ in parts), gpu_s=sum(g for _, g in parts))
    assert bills >= whole - 1e-6
    assert larger_share or bills == pytest.approx(whole)


def test_a_missing_spot_price_is_refused(tmp_path: Path) -> None:
    """An own row may have none."""
    file = tmp_path / "prices.csv"
    file.write_text("node_type,vcpus,usd_per_hour\nrack-7,64,0.5\n")
    with pytest.raises(SettingsError, match=r"cost.spot: no spot price of rack-7"):
        resolve_rate(CostSettings(node_type="rack-7", prices=str(file), spot=True))


def test_an_own_cloud_needs_a_node_type() -> None:
    """There is no general node of a cloud that the table does not know."""
    with pytest.raises(SettingsError, match=r"cost.cloud: 'cellar' has no general node type here"):
        resolve_rate(CostSettings(cloud="cellar"))


@pytest.mark.parametrize(
    ("key", "value"), [("usd_per_cpu_hour", 0), ("usd_per_gpu_hour", -1), ("discount", 1), ("discount", -0.1)]
)
def test_a_price_out_of_range_is_refused(key: str, value: float) -> None:
    """When the settings are made."""
    with pytest.raises(DecodeError, match=f"{key} must be"):
        CostSettings(**{key: value})  # type: ignore[arg-type]


def test_the_price_file_is_beside_the_workflow(tmp_path: Path) -> None:
    """Its path is taken from the settings' folder, as the others are."""
    file = tmp_path / "workflow.yaml"
    file.write_text(
        "name: w\ntask: binary\nspine: {path: a.csv, label: y}\ncost: {node_type: rack-7, prices: ours.csv}\n"
    )
    (tmp_path / "ours.csv").write_text("node_type,vcpus,usd_per_hour,date\nrack-7,64,0.64,2026-11\n")
    rate = resolve_rate(load_workflow(file, environ={}).cost)
    assert (rate.usd_per_cpu_hour, rate.basis) == (0.01, "rack-7 on demand, price of 2026-11")
