"""Many rows as JSON columns, CSV and Arrow: the same answers and the same log as row by row."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import csv, ipc

from raywf.core.records import Prediction
from raywf.core.rollout import Rollouts
from raywf.outcomes import LogReader
from raywf.outcomes.lines import PredictionBatch, entries_of, to_line
from raywf.serving.shadow import ShadowWorker
from raywf.testing import SMALL_ROW, FolderSource

ROW = dict(SMALL_ROW)
ARROW, CSV = "application/vnd.apache.arrow.stream", "text/csv"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEADER = b"distance,carrier,departure,delay\n"
ODD = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows(count: int) -> list[dict[str, Any]]:
    """Return rows that differ, some values of them missing."""
    found = [ROW | {"distance": 100.0 + 37 * i} for i in range(count)]
    for i in range(0, count, 7):
        found[i] = found[i] | {"distance": None}
    for i in range(0, count, 5):
        found[i] = found[i] | {"carrier": None}
    return found


def columns(given: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in given] for name in given[0]}


def arrow_body(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def csv_body(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    csv.write_csv(table, sink)
    return sink.getvalue()


def table_of(given: list[dict[str, Any]]) -> pa.Table:
    ids = [f"r{i}" for i in range(len(given))]
    return pa.table({**columns(given), "__id": ids, "__time": [NOW] * len(given)})


def log(root: Path) -> dict[str, Prediction]:
    return {e.id: e for e in LogReader(str(root), "w").read()[0] if isinstance(e, Prediction)}


def one_by_one(client: Any, given: list[dict[str, Any]]) -> list[float]:
    body = {"rows": [{"features": row} for row in given]}
    found = client.post("/v1/predict", json=body).json()["predictions"]
    return [p["probabilities"]["late"] for p in found]


def test_json_columns(client: Any, tmp_path: Path) -> None:
    """Answers by column, in order, as row by row; the log has each row with its id and time."""
    given = rows(50)
    body = {"columns": columns(given), "ids": [f"r{i}" for i in range(50)], "times": [NOW.isoformat()] * 50}
    answer = client.post("/v1/predict", json=body)
    found = answer.json()["columns"]
    assert (answer.status_code, answer.headers["x-raywf-model-version"]) == (200, "1")
    assert found["id"] == body["ids"]
    assert found["probabilities"]["late"] == pytest.approx(one_by_one(client, given), abs=1e-12)
    logged = log(tmp_path / "root")
    for i, row in enumerate(given):
        entry = logged[f"r{i}"]
        assert (entry.features, entry.time, entry.version) == (row, NOW, "1")
        assert entry.scores == (found["probabilities"]["late"][i],)


@pytest.mark.parametrize("kind", [ARROW, CSV])
def test_arrow_and_csv(client: Any, tmp_path: Path, kind: str) -> None:
    """The same answers and log in either form, answered in the form that they came in."""
    given = rows(40)
    table = table_of(given)
    content = arrow_body(table) if kind == ARROW else csv_body(table)
    answer = client.post("/v1/predict", content=content, headers={"content-type": kind})
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)
    if kind == ARROW:
        found = ipc.open_stream(answer.content).read_all()
        assert found.schema.metadata == {b"model_version": b"1"}
    else:
        found = csv.read_csv(io.BytesIO(answer.content))
    assert found["id"].to_pylist() == [f"r{i}" for i in range(40)]
    assert found["probability_late"].to_pylist() == pytest.approx(one_by_one(client, given), abs=1e-12)
    logged = log(tmp_path / "root")
    assert [logged[f"r{i}"].features for i in range(40)] == given
    assert {logged[f"r{i}"].time for i in range(40)} == {NOW}


def test_another_form_is_asked_for(client: Any) -> None:
    """What `accept` names comes back; one that is not known gives the body's own."""
    content = csv_body(table_of(rows(3)))
    for accept, kind in ((ARROW, ARROW), ("application/json", "application/json"), ("text/html, */*", CSV)):
        headers = {"content-type": CSV, "accept": accept}
        answer = client.post("/v1/predict", content=content, headers=headers)
        assert answer.headers["content-type"].partition(";")[0] == kind


def test_all_tasks(clients: dict[str, Any]) -> None:
    """A class and a share for each class, or a value."""
    for task, names in (("multiclass", {"prediction", "probabilities"}), ("regression", {"value"})):
        found = clients[task].post("/v1/predict", json={"columns": columns(rows(5))}).json()["columns"]
        assert set(found) == {"id", *names}
        assert len(set(found["id"])) == 5


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"distance": ["far", "near"]}, 422, "field 'distance': must be numbers"),
        ({"distance": [True, False]}, 422, "field 'distance': must be numbers"),
        ({"distance": [1e39, 1]}, 422, "within 3.4e38"),
        ({"distance": [1]}, 422, "of one length"),
        ({"distance": 3}, 422, "must be a list"),
        ({"distance": [{}, {}]}, 422, "must be numbers"),
        ({"carrier": [1.5, 2.5]}, 422, "field 'carrier': must be text"),
        ({"carrier": [["a"], "b"]}, 422, "must be text, flags or whole numbers, got a list of 1"),
        ({"carrier": ["a", 1.5]}, 422, "got 1.5"),
        ({"departure": ["2013-01-01T05:00:00Z", 20130101]}, 422, "must be ISO 8601 text, got 20130101"),
        ({"departure": ["2013-01-01T05:00:00Z", "0000-01-01T00:00:00Z"]}, 422, "field 'departure'"),
        ({"departure": ["9999-12-31T23:59:59-10:00", None]}, 422, "field 'departure'"),
        ({"carier": ["a", "b"]}, 422, "did you mean 'carrier'?"),
        ({"distance": None}, 422, "must be a list"),
    ],
)
def test_wrong_columns(client: Any, tmp_path: Path, change: dict[str, Any], status: int, reason: str) -> None:
    """Refused as a whole, with the column and the rule; nothing is logged."""
    answer = client.post("/v1/predict", json={"columns": columns(rows(2)) | change})
    assert (answer.status_code, reason in answer.json()["error"]) == (status, True), answer.text
    assert log(tmp_path / "root") == {}


@pytest.mark.parametrize(
    ("kind", "content", "status", "reason"),
    [
        (ARROW, b"", 400, "not an Arrow IPC stream"),
        (ARROW, b"\xff\xff\xff\xff\x10\x00\x00\x00" + b"x" * 40, 400, "not an Arrow IPC stream"),
        (CSV, b"", 400, "not CSV"),
        (CSV, b"\n\n", 400, "not CSV"),
        (CSV, b"\xff\xfe\x00", 400, "not CSV"),
        (CSV, b"\n\xff\xfe,a\n1,2\n", 400, "not CSV"),
        (CSV, HEADER + b"1,2,3\n", 400, "not CSV"),
        (CSV, HEADER + b"far,UA,,\n", 422, "conversion error"),
        (CSV, b'"distance\n",carrier,departure,delay\n1,UA,,\n', 422, "unknown field"),
        (CSV, b"distance,carrier\n1,2\n", 422, "missing"),
        (CSV, b"a" + b"," * 100_000, 413, "longer than"),
        (CSV, b"a" + b"," * 40_000, 422, "there twice"),
        (CSV, b"distance,distance\n1,2\n", 422, "there twice"),
        (CSV, b"nothing\n1\n", 422, "unknown field"),
    ],
)
def test_wrong_bodies(client: Any, kind: str, content: bytes, status: int, reason: str) -> None:
    """Each has a client's error and a reason."""
    answer = client.post("/v1/predict", content=content, headers={"content-type": kind})
    assert (answer.status_code, reason in answer.json()["error"]) == (status, True), answer.text


def test_limits(client: Any) -> None:
    """No rows, more than allowed, ids that are too long, times before 1970."""
    table = table_of(rows(2))
    for broken, status in (
        (table.slice(0, 0), 422),
        (pa.concat_tables([table] * 60), 413),
        (table.set_column(table.column_names.index("__id"), "__id", [["", "x"]]), 422),
        (table.set_column(table.column_names.index("__time"), "__time", [["1930-01-01", "2020-01-01"]]), 422),
        (table.drop_columns(["carrier"]), 422),
    ):
        answer = client.post("/v1/predict", content=arrow_body(broken), headers={"content-type": ARROW})
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("given_time", "logged_time"),
    [
        ("2013-01-01T05:15:00Z", "2013-01-01T05:15:00Z"),
        ("2013-01-01T05:15:00", "2013-01-01T05:15:00Z"),
        ("2013-01-01T05:15:00.25+02:00", "2013-01-01T03:15:00.250000Z"),
        ("2013-01-01 05:15", "2013-01-01T05:15:00Z"),
        (None, None),
    ],
)
def test_times(client: Any, tmp_path: Path, given_time: str | None, logged_time: str | None) -> None:
    """Read and written as row by row, whatever the others of the column are."""
    others = ["2013-01-01T05:15:00Z", None, "2014-06-01T00:00:00.5Z"]
    given = [ROW | {"departure": one} for one in (given_time, *others)]
    table = table_of(given)
    client.post("/v1/predict", content=arrow_body(table), headers={"content-type": ARROW})
    single = {"features": given[0], "id": "single"}
    assert client.post("/v1/predict", json=single).status_code == 200
    logged = log(tmp_path / "root")
    assert logged["r0"].features["departure"] == logged["single"].features["departure"] == logged_time
    assert logged["r3"].features["departure"] == "2014-06-01T00:00:00.500000Z"


@pytest.mark.parametrize("kind", [pa.float32(), pa.int16(), pa.decimal128(8, 2), pa.uint64()])
def test_kinds_of_numbers(client: Any, kind: pa.DataType) -> None:
    """Any number of Arrow's is one."""
    given = [ROW | {"distance": float(d)} for d in (100, 500)]
    table = table_of(given)
    at = table.column_names.index("distance")
    cast = table.set_column(at, "distance", table["distance"].cast(kind))
    answer = client.post("/v1/predict", content=arrow_body(cast), headers={"content-type": ARROW})
    found = ipc.open_stream(answer.content).read_all()["probability_late"].to_pylist()
    assert found == pytest.approx(one_by_one(client, given), abs=1e-12)


def test_categories_in_a_dictionary(client: Any) -> None:
    """Dictionary-encoded text is text."""
    given = rows(10)
    table = table_of(given)
    at = table.column_names.index("carrier")
    cast = table.set_column(at, "carrier", table["carrier"].dictionary_encode())
    answer = client.post("/v1/predict", content=arrow_body(cast), headers={"content-type": ARROW})
    found = ipc.open_stream(answer.content).read_all()["probability_late"].to_pylist()
    assert found == pytest.approx(one_by_one(client, given), abs=1e-12)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_compressed_stream_is_refused_before_it_grows(client: Any, compression: str) -> None:
    """A small body may hold gigabytes."""
    sink = io.BytesIO()
    table = pa.table({"x": pa.array(np.zeros(1_000_000, dtype=np.int8))})
    options = ipc.IpcWriteOptions(compression=compression)
    with ipc.new_stream(sink, table.schema, options=options) as stream:
        stream.write_table(table)
    answer = client.post("/v1/predict", content=sink.getvalue(), headers={"content-type": ARROW})
    assert (answer.status_code, "write it without compression" in answer.text) == (400, True)


def dictionary(value: Any, count: int, index: pa.DataType) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, index), pa.array([value]))


@pytest.mark.parametrize(
    ("column", "value", "status"),
    [("carrier", "x" * 15_000, 413), ("carrier", "x" * 100, 200), ("distance", [1, 2], 422)],
)
def test_a_dictionary_is_not_written_out_before_its_size_is_known(
    client: Any, column: str, value: Any, status: int
) -> None:
    """Many rows may name one long text."""
    table = table_of(rows(90))
    at = table.column_names.index(column)
    large = table.set_column(at, column, dictionary(value, 90, pa.int8()))
    answer = client.post("/v1/predict", content=arrow_body(large), headers={"content-type": ARROW})
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("carrier", pa.array(["UA"], pa.string_view())),
        ("carrier", pa.DictionaryArray.from_arrays(pa.array([0]), pa.array(["UA"], pa.string_view()))),
        ("carrier", pa.array([float("nan")])),
        ("carrier", pa.array([7.0], pa.float16())),
        ("distance", pa.array([7.0], pa.float16())),
        ("__id", pa.array(["r0"], pa.string_view())),
    ],
)
def test_rarer_types_of_arrow_are_taken(client: Any, column: str, values: pa.Array) -> None:
    """Views, half floats, and whole numbers with gaps as pandas has them."""
    table = table_of(rows(1))
    changed = table.set_column(table.column_names.index(column), column, values)
    answer = client.post("/v1/predict", content=arrow_body(changed), headers={"content-type": ARROW})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("departure", pa.array([2**62], pa.timestamp("s", "UTC"))),
        ("departure", pa.array([-(2**60)], pa.timestamp("us", "UTC"))),
        ("departure", pa.array([2**31 - 1], pa.date32())),
        ("__time", pa.array([2**60], pa.timestamp("us", "UTC"))),
        ("__time", pa.array([2**31 - 1], pa.date32())),
        ("carrier", pa.array([1.5], pa.float16())),
        ("carrier", pa.array([float("inf")])),
        ("__id", pa.array([1.5])),
    ],
)
def test_values_out_of_range_are_refused(client: Any, column: str, values: pa.Array) -> None:
    """Never wrapped round, never a server's error."""
    table = table_of(rows(1))
    changed = table.set_column(table.column_names.index(column), column, values)
    answer = client.post("/v1/predict", content=arrow_body(changed), headers={"content-type": ARROW})
    assert (answer.status_code, column in answer.text) == (422, True), answer.text


SPELT = ("UA", " UA ", "\u00a0UA", "\u2003UA\u3000", "", " ", "\x1cUA", 7, 7.0, 10**18, 1e19, 1e300, True)
ROW_VALUES: list[tuple[str, Any]] = [("carrier", value) for value in SPELT]
ROW_VALUES += [("distance", value) for value in (2**63, 2**64 - 1, 2**53 + 1, -0.0, 5e-324, 1.5)]
ROW_VALUES += [("departure", v) for v in ("2013-01-01", "2013-W01-2T03:00", "0001-01-01T00:00:00Z")]


@pytest.mark.parametrize(("field", "value"), ROW_VALUES)
def test_columns_and_rows_agree(client: Any, tmp_path: Path, field: str, value: Any) -> None:
    """The same value gives the same answer and the same entry in the log, alone or beside others."""
    row = ROW | {field: value}
    other = ROW | {field: None}
    single = client.post("/v1/predict", json={"features": row, "id": " a "})
    many = client.post("/v1/predict", json={"columns": columns([row, other]), "ids": [" b ", None]})
    assert (single.status_code, many.status_code) == (200, 200), single.text + many.text
    logged = log(tmp_path / "root")
    assert logged[" a "].features == logged[" b "].features
    assert logged[" a "].scores == pytest.approx(logged[" b "].scores, abs=1e-12)


def test_a_csv_s_gaps_are_not_ids(client: Any, tmp_path: Path) -> None:
    """An id may be spelt None; blank lines before the header and line breaks in quotes change nothing."""
    lines = b"\n\n__id," + HEADER + b'None,NA,007,,\n,1.5,"a\nb",,NA\n'
    answer = client.post("/v1/predict", content=lines, headers={"content-type": CSV})
    assert answer.status_code == 200, answer.text
    logged = log(tmp_path / "root")
    assert logged["None"].features == {"distance": None, "carrier": "007", "departure": None, "delay": None}
    (other,) = set(logged) - {"None"}
    assert (len(other), logged[other].features["carrier"]) == (32, "a\nb")


@ODD
@given(content=st.binary(max_size=300), kind=st.sampled_from([ARROW, CSV, "application/json"]))
def test_no_body_is_a_server_error(client: Any, content: bytes, kind: str) -> None:
    """Whatever comes, the answer is a client's error."""
    answer = client.post("/v1/predict", content=content, headers={"content-type": kind})
    assert 400 <= answer.status_code < 500


@ODD
@given(data=st.data())
def test_a_damaged_stream_is_no_server_error(client: Any, data: st.DataObject) -> None:
    """A stream with some bytes changed is refused, or answered where the change does no harm."""
    body = bytearray(arrow_body(table_of(rows(8))))
    for _ in range(data.draw(st.integers(1, 8))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    answer = client.post("/v1/predict", content=bytes(body), headers={"content-type": ARROW})
    assert answer.status_code < 500


def test_a_batch_is_one_line(tmp_path: Path) -> None:
    """And is read as its rows, with one time or many."""
    times = [NOW, NOW.replace(hour=3)]
    for stated in (times, [NOW, NOW]):
        batch = PredictionBatch(
            ids=["a", "b"],
            times=stated,
            version="1",
            features={"x": [1.0, None]},
            scores=np.array([[0.1], [0.2]]),
        )
        line = to_line(batch)
        assert line.count(b"\n") == 1
        assert entries_of(line) == [
            Prediction(id="a", time=stated[0], version="1", features={"x": 1.0}, scores=(0.1,)),
            Prediction(id="b", time=stated[1], version="1", features={"x": None}, scores=(0.2,)),
        ]
    assert json.loads(line)["t"] == "2026-01-01T00:00:00Z"


def test_a_table_during_a_rollout(client: Any, tmp_path: Path, source: FolderSource) -> None:
    """Each row has its lane; the answers are in the table's order."""
    endpoint = client.endpoint
    endpoint._rollout._start_worker = lambda versions: ShadowWorker(endpoint._workflow, source, versions)
    Rollouts(str(tmp_path / "root"), "w").start(
        "canary", champion="1", challengers=("2",), share=0.5, time=NOW
    )
    endpoint._rollout.converge()
    answer = client.post(
        "/v1/predict", content=arrow_body(table_of(rows(60))), headers={"content-type": ARROW}
    )
    found = ipc.open_stream(answer.content).read_all()
    logged = log(tmp_path / "root")
    assert {e.version for e in logged.values()} == {"1", "2"}
    ids = found["id"].to_pylist()
    assert [logged[i].scores[0] for i in ids] == found["probability_late"].to_pylist()
    assert [logged[i].version for i in ids] == found["model_version"].to_pylist()
    endpoint._rollout.close()
