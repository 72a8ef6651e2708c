"""Advice on a cluster's history that was made up, each with its figure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from raywf.core.records import NodeSpan
from raywf.core.settings import CostSettings
from raywf.cost.advice import Advice, Past, advise
from raywf.cost.nodes import price_nodes
from raywf.cost.split import Use, split

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
COST = CostSettings(cloud="aws", region="us-east-1")
DAYS = 10


def node(number: int, pool: str, *, hours: float = 24 * DAYS, **given: object) -> NodeSpan:
    fields: dict[str, object] = {"cpus": 8.0, "node_type": "m7i.2xlarge", **given}
    return NodeSpan(
        node_id=f"{pool}-{number}",
        start=START,
        end=START + hours * HOUR,
        pool=pool,
        region="us-east-1",
        **fields,  # type: ignore[arg-type]
    )


def past(spans: Sequence[NodeSpan], uses: Sequence[Use] = (), **given: object) -> Past:
    nodes = price_nodes(spans, COST)
    fields: dict[str, object] = {"largest_cpus": 2.0, "no_traffic": "not asked", **given}
    shares = split(nodes, uses).shares
    return Past(nodes=nodes, uses=uses, shares=shares, end=START + DAYS * DAY, **fields)  # type: ignore[arg-type]


def busy(pool: str, cpus: float, purpose: str = "trial") -> Use:
    """Return what holds CPUs of a pool all the time."""
    end = START + DAYS * DAY
    return Use(purpose=purpose, workflow="w", start=START, end=end, cpus=cpus, pool=pool)  # type: ignore[arg-type]


def find(advice: Sequence[Advice], word: str) -> Advice:
    (found,) = (each for each in advice if word in each.what)
    return found


def test_spot_is_advised_to_train() -> None:
    """Ten hours of on-demand nodes a day, at 0.4032 in place of 0.15; those to serve stay as they are."""
    spans = [node(0, "train", hours=100), node(1, "train", hours=50, spot=True), node(2, "serve", hours=24)]
    found = find(advise(past(spans), COST)[0], "spot")
    assert found.saving_usd == pytest.approx(100 * (0.4032 - 0.15) * 730 / 240)
    assert found.figure == "304 node-hours a month on demand"


def test_a_smaller_type_is_advised() -> None:
    """Where 3 of 8 CPUs are held at most: 4 are enough, at half the price; memory is said to be unknown."""
    found = find(advise(past([node(0, "train", spot=True)], [busy("train", 3)]), COST)[0], "instead of m7i")
    assert found.what == "m7i.xlarge instead of m7i.2xlarge in pool train"
    assert found.saving_usd == pytest.approx((0.15 - 0.077) * 730)
    assert "at most 3.0 of 8 CPUs" in found.figure
    assert "16 GiB of memory are enough, in place of 32, is unknown" in found.assumption


@pytest.mark.parametrize(("cpus", "largest"), [(5.0, 1.0), (2.0, 8.0)])
def test_no_smaller_type_than_is_held(cpus: float, largest: float) -> None:
    """Neither than the peak nor than one trial."""
    found, _ = advise(past([node(0, "train", spot=True)], [busy("train", cpus)], largest_cpus=largest), COST)
    assert found == ()


def test_replicas_that_may_come_count_at_the_peak() -> None:
    """Two of at most eight replicas hold 2 CPUs: eight would hold all of the node."""
    spans, uses = [node(0, "serve", spot=True)], [busy("serve", 2, "replica")]
    assert find(advise(past(spans, uses, replicas=2), COST)[0], "instead of m7i")
    assert advise(past(spans, uses, replicas=2, most_replicas=8), COST)[0] == ()


def traffic(quiet: range) -> dict[datetime, int]:
    hours = [START + n * HOUR for n in range(24 * DAYS)]
    return {hour: 10 if hour.hour in quiet else 1000 for hour in hours}


def test_quiet_hours_are_told() -> None:
    """Six hours of the day with a hundredth of the requests, and four replicas that stay."""
    spans = [node(n, "serve") for n in range(2)]
    seen = past(spans, [busy("serve", 16, "replica")], replicas=4, traffic=traffic(range(6)))
    found = find(advise(seen, COST)[0], "quiet")
    assert found.saving_usd == pytest.approx(2 * 0.4032 * 730 * 6 / 24 * 3 / 4)
    assert "6 hours of the day (UTC 0-6)" in found.figure


def test_traffic_that_is_unknown_is_no_advice() -> None:
    """Why there is none is said."""
    seen = past([node(0, "serve")], [busy("serve", 8, "replica")], no_traffic="the log has 9 GB")
    assert advise(seen, COST)[1] == ("quiet hours: the log has 9 GB",)


def test_a_base_load_is_told_in_hours() -> None:
    """Two of three nodes are there all the time; without a discount only the hours are said."""
    spans = [*(node(n, "serve") for n in range(2)), node(2, "serve", hours=100)]
    found = find(advise(past(spans, [busy("serve", 24, "replica")]), COST)[0], "reserve")
    assert (found.what, found.saving_usd) == ("reserve 2 x m7i.2xlarge", None)
    assert "1460 hours" in found.figure
    assert "give cost.reserved_discount" in found.assumption


def test_a_reservation_is_paid_around_the_clock() -> None:
    """30 % off a node that is there for 95 % of the time saves 25 % of its month."""
    spans = [node(0, "serve", hours=0.95 * 240), node(1, "", cpus=0.0, node_type="", hours=240)]
    seen = past(spans, [busy("serve", 8, "replica")])
    found = find(advise(seen, CostSettings(reserved_discount=0.3))[0], "reserve")
    assert found.saving_usd == pytest.approx(0.4032 * 730 * 0.25)


def test_little_is_no_advice() -> None:
    """Neither what is below a dollar a month nor what is below 5 % of the bill."""
    small = [node(0, "train", hours=1), node(1, "serve", hours=1, cpus=2.0, node_type="m7i.large")]
    assert advise(past(small), COST)[0] == ()
    large = [*(node(n, "serve", hours=200) for n in range(9)), node(9, "train", hours=40)]
    uses = [busy("serve", 72, "replica"), busy("train", 8)]
    assert advise(past(large, uses), COST)[0] == ()


def test_a_short_history_is_no_advice() -> None:
    """Less than a day says nothing of a month."""
    seen = Past(nodes=price_nodes([node(0, "train")], COST), uses=(), shares=(), end=START + 5 * HOUR)
    found, reasons = advise(seen, COST)
    assert (found, len(reasons)) == ((), 1)
    assert "5.0 hours, less than a day" in reasons[0]


def test_without_pools_spot_cannot_be_told() -> None:
    """Trials and replicas share the nodes."""
    assert advise(past([node(0, "")]), COST)[1][0].startswith("spot: nodes have no pools")
