"""The price table: what a node costs in an hour, by the package's list and the user's own file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from raywf.core.errors import SettingsError, did_you_mean

_NEEDED = ("node_type", "vcpus", "usd_per_hour")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeType:
    """One row: a node type in a region of a cloud, each empty where the row holds for any."""

    node_type: str
    vcpus: int
    usd_per_hour: float
    cloud: str = ""
    region: str = ""
    memory_gib: float = 0.0
    gpus: int = 0
    gpu: str = ""
    spot_usd_per_hour: float | None = None
    date: str = ""
    source: str = ""


def read_prices(text: str, *, name: str) -> tuple[NodeType, ...]:
    """Return a price file's rows; lines that begin with ``#`` are passed over.

    >>> lines = ["node_type,vcpus,usd_per_hour", "rack-7,32,0.4"]
    >>> read_prices(chr(10).join(lines), name="prices.csv")[0].usd_per_hour
    0.4

    Raises:
        SettingsError: with file and line, for a column that is unknown or missing and a value out of range.
    """
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    if not lines:
        raise SettingsError(f"{name}: no prices; its first line names columns: {', '.join(_NEEDED)}, ...")
    header = next(csv.reader([lines[0][1]]))
    known, where = NodeType.__slots__, f"{name} line {lines[0][0]}"
    for column in header:
        if column not in known:
            raise SettingsError(f"{where}: unknown column {column!r}{did_you_mean(column, known)}")
    for column in _NEEDED:
        if column not in header:
            raise SettingsError(f"{where}: missing column {column!r}")
    return tuple(_row(header, line, f"{name} line {number}") for number, line in lines[1:])


def load_table(prices: str | None = None) -> tuple[NodeType, ...]:
    """Return the rows of the user's file, if one is named, and then the package's.

    Raises:
        SettingsError: if the file cannot be read or understood.
    """
    if prices is None:
        return _packaged()
    try:
        text = Path(prices).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else str(err)
        raise SettingsError(f"cost.prices: cannot read {prices}: {reason}") from err
    return (*read_prices(text, name=Path(prices).name), *_packaged())


def find_node_type(
    table: tuple[NodeType, ...], node_type: str, *, cloud: str | None = None, region: str | None = None
) -> NodeType:
    """Return the first row of a node type, in the cloud and region where they are given.

    Raises:
        SettingsError: naming the nearest, if there is none.
    """
    if cloud is not None:
        clouds = {row.cloud for row in table}
        if not clouds & {"", cloud}:
            raise SettingsError(f"cost.cloud: no prices of {cloud!r}{did_you_mean(cloud, clouds)}")
        table = tuple(row for row in table if row.cloud in {"", cloud})
    rows = tuple(row for row in table if row.node_type == node_type)
    if not rows:
        raise SettingsError(
            f"cost.node_type: no price of {node_type!r}, which a file in cost.prices can add"
            f"{_nearest(node_type, table)}"
        )
    found = next((row for row in rows if region is None or row.region in {"", region}), None)
    if found is None:
        regions = {row.region for row in rows}
        raise SettingsError(
            f"cost.region: no price of {node_type} in {region!r}, which a file in cost.prices can add"
            f"{did_you_mean(region or '', regions)}"
        )
    return found


@cache
def _packaged() -> tuple[NodeType, ...]:
    text = resources.files("raywf.cost").joinpath("prices.csv").read_text(encoding="utf-8")
    return read_prices(text, name="raywf/cost/prices.csv")


def _row(header: list[str], line: str, where: str) -> NodeType:
    cells = next(csv.reader([line]))
    if len(cells) != len(header):
        raise SettingsError(f"{where}: expected {len(header)} values, got {len(cells)}")
    given = {k: v.strip() for k, v in zip(header, cells, strict=True) if v.strip()}
    for column in _NEEDED:
        if column not in given:
            raise SettingsError(f"{where}: {column} is empty")
    spot = given.get("spot_usd_per_hour")
    return NodeType(
        node_type=given["node_type"],
        vcpus=int(_number(given, "vcpus", where, least=1)),
        usd_per_hour=_number(given, "usd_per_hour", where),
        cloud=given.get("cloud", ""),
        region=given.get("region", ""),
        memory_gib=_number(given, "memory_gib", where),
        gpus=int(_number(given, "gpus", where)),
        gpu=given.get("gpu", ""),
        spot_usd_per_hour=None if spot is None else _number(given, "spot_usd_per_hour", where),
        date=given.get("date", ""),
        source=given.get("source", ""),
    )


def _number(given: dict[str, str], column: str, where: str, *, least: float = 0.0) -> float:
    text = given.get(column, "0")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value < float("inf"):
        raise SettingsError(f"{where}: {column} must be a number of at least {least:g}, got {text!r}")
    return value


def _nearest(node_type: str, table: tuple[NodeType, ...]) -> str:
    """Return the nearest known node type, or one of each cloud where none is near."""
    known = sorted({row.node_type for row in table})
    near = did_you_mean(node_type, known)
    if near.startswith("; did you mean"):
        return near
    first = {row.cloud: row.node_type for row in reversed(table)}
    return f"; known: {len(known)} node types such as {', '.join(sorted(first.values()))}"
