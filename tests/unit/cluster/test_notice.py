"""What a machine is told by its cloud's metadata service, asked over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from metadata_service import MetadataService, metadata_service

from raywf.cli.main import cli
from raywf.cluster.notice import SPOT_CLOUDS, Metadata, SpotCloud, await_notice, drained_by

SOON = datetime(2026, 5, 1, 12, 2, 0, tzinfo=UTC)


@pytest.fixture
def service() -> Iterator[MetadataService]:
    """A metadata service of a machine that nobody wants back."""
    with metadata_service() as made:
        yield made


@pytest.mark.parametrize("cloud", SPOT_CLOUDS)
def test_nobody_wants_it_back(service: MetadataService, cloud: SpotCloud) -> None:
    """Neither while nothing is told, nor where Azure tells of another machine."""
    assert Metadata(cloud, service.address).ends() is None


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_the_cloud_says_when(service: MetadataService, cloud: SpotCloud) -> None:
    """To the second."""
    service.ends = SOON
    assert Metadata(cloud, service.address).ends() == SOON


def test_google_says_that_it_is_now(service: MetadataService) -> None:
    """Without an instant: half a minute is what its documentation gives."""
    service.ends = SOON
    told = Metadata("gcp", service.address).ends()
    assert told is not None
    assert timedelta(seconds=25) < told - datetime.now(UTC) <= timedelta(seconds=30)


def test_an_old_token_is_asked_for_again(service: MetadataService) -> None:
    """One is asked for once, and again when the service takes it no longer."""
    metadata = Metadata("aws", service.address)
    for _ in range(3):
        assert metadata.ends() is None
    assert service.asked.count("/latest/api/token") == 1
    service.token, service.ends = "token-2", SOON
    assert metadata.ends() == SOON
    assert service.asked.count("/latest/api/token") == 2


def test_a_service_that_is_away_is_asked_again(service: MetadataService) -> None:
    """It is told once that it is away and once that it is back."""
    service.away, service.ends = True, SOON
    said: list[str] = []
    away = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        away.set()

    def come_back() -> None:
        away.wait(10)
        service.away = False

    helper = threading.Thread(target=come_back)
    helper.start()
    assert await_notice(Metadata("azure", service.address), every_s=0.02, say=say) == SOON
    helper.join()
    assert said == [
        "the metadata service does not answer: HTTPError: HTTP Error 503: Service Unavailable",
        "the metadata service answers again",
    ]


@given(st.floats(-100, 10_000))
def test_a_node_is_drained_before_it_goes(left_s: float) -> None:
    """Never at once, never later than a quarter of the time, whatever the clocks say."""
    now = datetime(2026, 5, 1, tzinfo=UTC)
    by = drained_by(now + timedelta(seconds=left_s), now=now)
    assert now + timedelta(seconds=1) <= by
    assert by <= now + timedelta(seconds=max(1.0, left_s / 4 + 1e-5))


def test_the_labels_of_a_machine(service: MetadataService) -> None:
    """As `ray start --labels` takes them."""
    words = ["cluster", "labels", "--cloud", "aws", "--endpoint", service.address]
    assert CliRunner().invoke(cli, words).stdout == "instance-id=i-0123456789abcdef0,node-type=m7i.2xlarge\n"


@pytest.mark.parametrize("cloud", SPOT_CLOUDS)
def test_a_node_starts_without_labels_too(service: MetadataService, cloud: SpotCloud) -> None:
    """Where the service is away, or the cloud's bill has other names."""
    service.away = True
    found = CliRunner().invoke(cli, ["cluster", "labels", "--cloud", cloud, "--endpoint", service.address])
    assert (found.exit_code, found.stdout) == (0, "\n")
