"""Lines as columns: the same as by entries, and what cannot be read is counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.records import Outcome, Prediction
from raywf.core.rollout import Part, ShadowAnswer
from raywf.core.service import Service
from raywf.outcomes.column_reader import ColumnReader
from raywf.outcomes.columns import columns_of, id_keys, instants, parse_columns
from raywf.outcomes.lines import PredictionBatch, entries_of, log_folder, to_line

START = datetime(2026, 1, 1, tzinfo=UTC)

SERVED = Service(
    id="s",
    time=START + timedelta(days=99),  # is no event, and makes no watermark
    length_s=86_400.0,
    version="2",
    answered=3,
    refused=1,
    failed=0,
    cpu_s=0.25,
    times={-80: 2, -79: 1},
)


def prediction(identity="a", version="1", **more):
    at = START + timedelta(seconds=ord(identity[0]), microseconds=7)
    return Prediction(
        id=identity, time=at, version=version, **({"features": {"x": 1.5}, "scores": (0.3,)} | more)
    )


def batch(**more):
    ids, features = ["p", "q"], {"x": [1.0, None], "s": ["u", "v"]}
    facts = {"ids": ids, "times": [START, START], "version": "2", "features": features}
    return PredictionBatch(**(facts | {"scores": np.array([[0.1], [0.2]])} | more))


def rows_of(columns):
    """What the columns hold by version, in an order that does not depend on theirs."""
    return {
        one.version: sorted(
            zip(
                one.keys.tolist(),
                one.times.tolist(),
                np.nan_to_num(one.scores).tolist(),
                one.features.lines(),
                strict=True,
            )
        )
        for one in columns.answers
    }


def same(ours, theirs):
    """Whether two readings hold the same columns."""
    assert (ours.newest, ours.events, rows_of(ours)) == (theirs.newest, theirs.events, rows_of(theirs))
    assert ours.services == theirs.services
    for name in ("keys", "times", "labels", "values"):
        np.testing.assert_array_equal(getattr(ours.labels, name), getattr(theirs.labels, name))


def test_lines_and_entries_give_the_same_columns():
    """Single rows, rows of a request, several versions, labels, what shadows said."""
    shadow = ShadowAnswer(
        id="a", time=START + timedelta(days=9), version="2", scores=(0.4,), part=Part("1:1")
    )
    records = [
        prediction("a"),
        prediction("b", "2", features={"x": 2.0, "s": None}),
        batch(),
        batch(ids=["r"], times=[START + timedelta(days=1)], features={}, scores=np.array([[0.5]])),
        Outcome(id="a", time=START, label="yes", value=2.0),
        Outcome(id="b", time=START, label=3.5),
        prediction("c", scores=(0.1, 0.2, 0.7)),
        shadow,
        SERVED,
    ]
    data = b"".join(map(to_line, records))
    found = parse_columns(data)
    same(found, columns_of([e for line in data.split(b"\n")[:-1] for e in entries_of(line)]))
    assert (found.corrupt, found.events, found.services) == (0, 10, (SERVED,))
    assert found.newest == (shadow.time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def test_features_are_found_by_name():
    """Whatever is missing is None, in rows and in batches, and JSON leaves it out."""
    data = [prediction("a", "2"), batch(), prediction("b", "2", features={"s": "w"})]
    (answers,) = parse_columns(b"".join(map(to_line, data))).answers
    found = dict(zip("xsy", answers.features.columns(["x", "s", "y"]), strict=True))
    rows = sorted(zip(found["x"], found["s"], found["y"], strict=True), key=repr)
    assert rows == [(1.0, "u", None), (1.5, None, None), (None, "v", None), (None, "w", None)]


SOUND = orjson.loads(to_line(SERVED))
GOOD = orjson.loads(to_line(prediction("g", part=Part("1:1"))))
BAD = [
    b"",
    b"{",
    b"5",
    b"[]",
    b"{}",
    *(
        orjson.dumps(GOOD | change)
        for change in ({"id": 5}, {"t": "noon"}, {"t": None}, {"v": 1}, {"f": None})
    ),
    *(
        orjson.dumps(GOOD | change)
        for change in ({"s": [None]}, {"s": ["x"]}, {"s": 1}, {"r": []}, {"r": [5]})
    ),
    *(orjson.dumps({k: v for k, v in GOOD.items() if k != name}) for name in ("id", "t", "v", "f")),
    b'{"id":"a","t":"2026-01-01T00:00:00Z","l":null}',
    b'{"id":"a","t":"2026-01-01T00:00:00Z","l":[1]}',
    b'{"id":"a","t":"2026-01-01T00:00:00Z","l":"yes","u":"much"}',
    b'{"ids":["a"],"t":"2026-01-01T00:00:00Z","v":"1","c":{"x":[1,2]},"s":[[0.1]]}',
    b'{"ids":["a","b"],"t":["2026-01-01T00:00:00Z"],"v":"1","c":{},"s":[[0.1],[0.2]]}',
    b'{"ids":["a"],"t":"2026-01-01T00:00:00Z","v":"1","c":[],"s":[[0.1]]}',
    b'{"id":"a","t":"2026-01-01T00:00:00Z","v":"1","x":[0.1]}',
    *(orjson.dumps(SOUND | change) for change in ({"n": [1]}, {"n": [1, 2, -3]}, {"h": [5]}, {"cpu": "x"})),
    *(
        orjson.dumps(SOUND | change)
        for change in ({"v": 1}, {"id": None}, {"t": 5}, {"t": "9999-01-01T00:00:00Z"})
    ),
]


@pytest.mark.parametrize("line", BAD)
def test_a_line_of_another_form_is_counted_and_left_out(line):
    """And those beside it are read."""
    good = [prediction("a"), Outcome(id="a", time=START, label="yes")]
    found = parse_columns(to_line(good[0]) + line + b"\n" + to_line(good[1]))
    assert found.corrupt == 1
    same(found, columns_of(good))


@given(st.lists(st.booleans(), max_size=60))
def test_bad_lines_are_found_among_good_ones(pattern):
    """Any number of them, anywhere."""
    lines = [to_line(prediction("a")) if is_good else BAD[8] + b"\n" for is_good in pattern]
    found = parse_columns(b"".join(lines))
    assert (found.events, found.corrupt) == (sum(pattern), len(pattern) - sum(pattern))


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00.123456Z",
        "2026-01-01T02:00:00.5+02:00",
        "2026-01-01T03:04",
    ],
)
def test_instants(text):
    """As Python reads them, an absent offset being UTC; alone and beside others."""
    at = datetime.fromisoformat(text)
    wanted = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    for texts in ([text], ["2026-05-05T00:00:00Z", text]):
        assert instants(texts)[-1] == wanted // timedelta(microseconds=1)


def test_keys_are_the_same_in_every_process():
    """Checkpoints rest on it."""
    assert id_keys(["a", "\u00e9", ""]).tolist() == [
        13950350942979735504,
        16908809132758853863,
        1760245841805064774,
    ]
    with pytest.raises(TypeError, match="no text"):
        id_keys(["a", 1])


def test_the_reader_yields_the_log_in_pieces(tmp_path, monkeypatch):
    """Each with the cursor after it, over segments, a line without an end left for later."""
    monkeypatch.setattr("raywf.outcomes.column_reader.BLOCK_BYTES", 150)
    folder = log_folder(str(tmp_path), "w")
    folder.mkdir(parents=True)
    lines = [to_line(prediction(one)) for one in "abcdefgh"]
    (folder / "1.jsonl").write_bytes(b"".join(lines[:5]))
    (folder / "2.jsonl").write_bytes(b"".join(lines[5:]) + b'{"id"')
    reader = ColumnReader(str(tmp_path), "w")
    found = list(reader.columns({}, max_bytes=10_000))
    assert sum(columns.events for columns, _ in found) == 8
    assert len(found) > 3
    assert found[-1][1] == {"1.jsonl": sum(map(len, lines[:5])), "2.jsonl": sum(map(len, lines[5:]))}
    assert list(reader.columns(found[-1][1], max_bytes=10_000)) == []
    assert [c.events for c, _ in reader.columns(found[0][1], max_bytes=1)] == [1]
